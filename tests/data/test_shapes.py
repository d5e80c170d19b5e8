"""The embedded world as data: what is drawn depends on seed and number, answers are right."""

import hashlib
import re
from collections import Counter

import numpy as np
from PIL import Image

from seva_exp.core.randomness import python_rng
from seva_exp.data import ShapesData, ShapesInstructData
from seva_exp.data.shapes import WEIGHTS, draw_qa
from seva_exp.world import BIASED, UNBIASED, draw, mentions, sample_scene
from seva_exp.world.language import NUMBERS, PLAIN_PROMPTS, plural
from seva_exp.world.scene import COLORS, KINDS


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_shapes(tmp_path):
    found = ShapesData(samples=5).build(3, tmp_path, sha256)
    assert [s.id for s in found.samples] == [f"shapes-{i:06d}" for i in range(5)]
    assert found.drops == [] and len({s.image.sha256 for s in found.samples}) == 5
    folder = ShapesData().image_root(tmp_path)
    assert folder == tmp_path / "images"
    assert len(list(folder.iterdir())) == 5
    for sample in found.samples:
        with Image.open(folder / sample.image.path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (72, 72))
        assert sample.image.sha256 == sha256(folder / sample.image.path)


def test_shapes_depend_on_seed_and_number_only(tmp_path):
    small = ShapesData(samples=4).build(0, tmp_path / "a", sha256).samples
    large = ShapesData(samples=9).build(0, tmp_path / "b", sha256).samples
    other = ShapesData(samples=4).build(1, tmp_path / "c", sha256).samples
    assert large[:4] == small
    assert not {s.image.sha256 for s in small} & {s.image.sha256 for s in other}


def test_scenes_of_the_biased_world_like_their_partners(tmp_path):
    biased = ShapesData(samples=4, scenes="biased")
    plain = ShapesData(samples=4)
    found = biased.build(0, tmp_path / "a", sha256).samples
    other = plain.build(0, tmp_path / "b", sha256).samples
    assert [s.image.sha256 for s in found] != [s.image.sha256 for s in other]
    assert biased.identity(sha256) == plain.identity(sha256) | {"scenes": "biased"}
    scene = sample_scene(python_rng(0, "data.shapes.scene", found[0].id), BIASED)
    draw(scene).save(tmp_path / "drawn.png")
    assert sha256(tmp_path / "drawn.png") == found[0].image.sha256


def test_shapes_ask_every_type_by_its_weight():
    starts = {
        "Is there": "existence",
        "What color": "color",
        "What shape is": "kind",
        "How many": "count",
        "Where": "position",
        "Is the ": "relation",
        "What is written": "text",
        "What does the text": "text",
        "Read the": "text",
    }
    counts = Counter()
    for i in range(2000):
        scene = sample_scene(python_rng(0, "t", str(i)), UNBIASED)
        question = draw_qa(scene, python_rng(0, "q", str(i))).question
        kinds = {kind for start, kind in starts.items() if question.startswith(start)}
        counts[kinds.pop() if kinds else "describe"] += 1
    assert set(counts) == set(WEIGHTS)
    assert all(150 < counts[k] < 300 for k in ("color", "kind", "count", "position"))
    assert all(380 < counts[k] < 560 for k in ("existence", "describe"))
    assert counts["text"] > 60 and counts["relation"] > 60


def test_shapes_identity(tmp_path):
    def unused(path):
        raise AssertionError(path)

    assert ShapesData().identity(unused) == {"kind": "shapes", "samples": 600}
    ShapesData().check()


# --- shapes_instruct


def fits(scene, question, answer):
    """Whether the answer is right, judged by the scene alone."""
    things = scene.things
    words = set(re.findall(r"[a-z]+", question.lower()))
    kinds = [t.kind for t in things]
    if question in PLAIN_PROMPTS:
        return mentions(answer) == [(t.color, t.kind) for t in things] and (
            scene.text is None or scene.text.lower() in answer
        )
    if question.startswith("What color"):
        return {t.color for t in things if t.kind in words} == {answer}
    if question.startswith("What shape"):
        return {t.kind for t in things if t.color in words} == {answer}
    if question.startswith("How many"):
        of = {name: kinds.count(name) for name in KINDS if plural(name) in words}
        return NUMBERS.index(answer) == (sum(of.values()) if of else len(things))
    if question.startswith("Where"):
        return {t.position for t in things if t.kind in words} == {answer}
    if question.startswith("Is there"):
        color = words & set(COLORS)
        there = any(t.kind in words and (not color or t.color in color) for t in things)
        return answer == ("Yes" if there else "No")
    if question.startswith("Is the "):
        one, other = (next(t.x for t in things if t.kind == k) for _, k in mentions(question))
        return answer == ("Yes" if (one < other) == ("left" in words) else "No")
    return answer == scene.text.lower()


def test_shapes_instruct_holds_right_answers(tmp_path):
    made = ShapesInstructData(samples=400).build(3, tmp_path, sha256)
    assert made.drops == [] and len({s.id for s in made.samples}) == 400
    starts = Counter()
    for sample in made.samples:
        scene = sample_scene(
            python_rng(3, f"{ShapesInstructData.stream}.scene", sample.id), UNBIASED
        )
        assert np.array_equal(np.asarray(draw(scene)), pixels(tmp_path, sample))
        assert fits(scene, sample.prompt, sample.response), (sample, scene)
        starts[sample.prompt.split()[0]] += 1
    assert len(starts) >= 8


def pixels(tmp_path, sample):
    with Image.open(ShapesInstructData().image_root(tmp_path) / sample.image.path) as image:
        return np.asarray(image)


def test_shapes_instruct_has_scenes_of_its_own(tmp_path):
    data = ShapesInstructData(samples=40)
    made = data.build(0, tmp_path / "a", sha256).samples
    shapes = ShapesData(samples=40).build(0, tmp_path / "b", sha256).samples
    assert not {s.image.sha256 for s in made} & {s.image.sha256 for s in shapes}
    assert not {s.id for s in made} & {s.id for s in shapes}
    assert ShapesInstructData(samples=9).build(0, tmp_path / "c", sha256).samples == made[:9]
    assert data.identity(None) == {"kind": "shapes_instruct", "samples": 40} and data.seeded
    other = data.build(1, tmp_path / "d", sha256).samples
    assert not {s.image.sha256 for s in made} & {s.image.sha256 for s in other}
