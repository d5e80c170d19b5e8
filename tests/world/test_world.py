"""The synthetic world: determinism, exact ground truth, pictures that show what they should."""

import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from seva_exp.world import (
    BIASED,
    QUESTIONS,
    UNBIASED,
    Scene,
    Thing,
    describe,
    draw,
    existence,
    mentions,
    sample_scene,
)
from seva_exp.world.draw import PALETTE, SHADE
from seva_exp.world.language import likely_absent, plural, sentence
from seva_exp.world.questions import side
from seva_exp.world.scene import COLORS, FAVOURITE_COLOR, KINDS, PARTNER, SIDE, WORDS

BACKGROUND = (250, 250, 250)
SCENE = Scene(
    things=(
        Thing("star", "yellow", 15, 15, 9),
        Thing("cross", "red", 58, 14, 8),
        Thing("cross", "blue", 16, 56, 8),
    ),
    text="STOP",
    text_box=(26, 38, 70, 58),
    background=BACKGROUND,
    seed=0,
)
FINGERPRINT = """
import hashlib, random
from seva_exp.world import *
from seva_exp.world.language import likely_absent
rng, digest = random.Random(5), hashlib.sha256()
for _ in range(60):
    s = sample_scene(rng, BIASED)
    asked = [ask(s, rng) for ask in QUESTIONS.values()]
    asked += [existence(s, rng, w, m) for w in (True, False) for m in ("popular", "adversarial")]
    digest.update(repr((s, asked, describe(s, likely_absent(s, rng, 2)))).encode())
    digest.update(draw(s).tobytes())
print(digest.hexdigest())
"""


def answers(kind: str, scene: Scene = SCENE, draws: int = 200) -> dict[str, str]:
    """Every question of a type that turns up, with its answer."""
    rng = random.Random(0)
    asked = [QUESTIONS[kind](scene, rng) for _ in range(draws)]
    found = {qa.question: qa.answer for qa in asked if qa is not None}
    assert all(qa.answer == found[qa.question] and qa.type == kind for qa in asked if qa)
    return found


def sampled(prior, n: int = 2000) -> list[Scene]:
    rng = random.Random(11)
    return [sample_scene(rng, prior) for _ in range(n)]


def test_same_seed_same_world_whatever_the_hash_seed():
    prints = [
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert prints[0] == prints[1] != ""


def test_question_answers_are_the_ground_truth():
    assert answers("color") == {"What color is the star?": "yellow"}
    assert answers("kind") == {
        "What shape is the yellow object?": "star",
        "What shape is the red object?": "cross",
        "What shape is the blue object?": "cross",
    }
    assert answers("position") == {"Where is the star?": "top left"}
    assert set(answers("text").values()) == {"stop"}
    counts = answers("count")
    assert counts["How many objects are there?"] == "three"
    assert counts["How many crosses are there?"] == "two"
    assert counts["How many moons are there?"] == "zero"


def test_relation_compares_the_x_of_two_unique_kinds():
    assert answers("relation") == {}
    pair = Scene(SCENE.things[:2], None, None, BACKGROUND, 0)
    assert answers("relation", pair) == {
        "Is the star to the left of the cross?": "Yes",
        "Is the star to the right of the cross?": "No",
        "Is the cross to the left of the star?": "No",
        "Is the cross to the right of the star?": "Yes",
    }


@pytest.mark.parametrize(
    ("x", "y", "quadrant"),
    [
        (20, 20, "top left"),
        (50, 20, "top right"),
        (20, 50, "bottom left"),
        (50, 50, "bottom right"),
    ],
)
def test_position_is_the_quadrant_of_the_center(x: float, y: float, quadrant: str):
    assert Thing("moon", "red", x, y, 8).position == quadrant


def test_side_is_the_half_of_the_only_thing_of_its_kind():
    rng = random.Random(0)
    crosses = Scene(SCENE.things[1:], None, None, BACKGROUND, 0)
    assert side(SCENE, rng) == ("On what side is the star?", "left", "side")
    assert side(crosses, rng) is None


def test_questions_without_an_unambiguous_answer_are_not_asked():
    twins = Scene((SCENE.things[1], SCENE.things[1]), None, None, BACKGROUND, 0)
    for kind in ("color", "kind", "position", "relation", "text"):
        assert answers(kind, twins) == {}


@pytest.mark.parametrize("mode", ["random", "popular", "adversarial"])
def test_existence_answers_are_true_in_every_mode(mode: str):
    rng = random.Random(3)
    for scene in sampled(UNBIASED, 200):
        pairs = [(o.color, o.kind) for o in scene.things]
        for want in (True, False):
            qa = existence(scene, rng, want, mode)
            ((color, kind),) = mentions(qa.question)
            truth = (color, kind) in pairs if color else kind in [k for _, k in pairs]
            assert truth == want == (qa.answer == "Yes")


def test_adversarial_existence_asks_for_what_the_biased_world_would_add():
    star = Scene(SCENE.things[:1], None, None, BACKGROUND, 0)
    rng = random.Random(0)
    asked = [existence(star, rng, False, "adversarial").question for _ in range(50)]
    assert set(asked) == {"Is there a moon in the image?", "Is there a yellow moon in the image?"}


def test_unknown_existence_mode_is_refused():
    with pytest.raises(ValueError, match="mode: 'hard'"):
        existence(SCENE, random.Random(0), True, "hard")


def test_mentions_inverts_describe():
    rng = random.Random(2)
    for scene in sampled(UNBIASED, 300):
        extra = likely_absent(scene, rng, 2)
        pairs = [(o.color, o.kind) for o in scene.things]
        assert mentions(describe(scene, extra)) == pairs + list(extra)
        assert all(kind not in [k for _, k in pairs] for _, kind in extra)


def test_mentions_reads_plurals_and_missing_colors():
    assert mentions("Two crosses, a Red star and stars; nothing ringing.") == [
        (None, "cross"),
        ("red", "star"),
        (None, "star"),
    ]
    assert all(mentions(plural(kind)) == [(None, kind)] for kind in KINDS)


def test_description_reads_well():
    assert sentence([("orange", "ring")]) == "The image shows an orange ring."
    assert describe(SCENE) == (
        "The image shows a yellow star, a red cross and a blue cross. The text says stop."
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("size", [72, 216])
def test_things_are_drawn_in_their_color(kind: str, color: str, size: int):
    r, u = 9.0, size / SIDE
    image = draw(Scene((Thing(kind, color, 30, 40, r),), None, None, BACKGROUND, 1), size)
    dx, dy = {"ring": (0.77 * r, 0), "moon": (-0.6 * r, 0.3 * r)}.get(kind, (0, 0))
    pixel = image.getpixel((int((30 + dx) * u), int((40 + dy) * u)))
    assert image.size == (size, size)
    assert all(abs(a - b) <= SHADE + 1 for a, b in zip(pixel, PALETTE[color], strict=True))
    assert image.getpixel((size - 1, 0)) == BACKGROUND
    if kind == "ring":
        assert min(image.getpixel((int(30 * u), int(40 * u)))) > 180


def test_the_card_shows_dark_ink_on_white_for_every_word():
    faces = []
    for word in WORDS:
        scene = Scene(SCENE.things[:1], word, SCENE.text_box, BACKGROUND, 0)
        face = draw(scene).crop((27, 39, 69, 57)).convert("L")
        assert face.getextrema()[0] < 110 and face.getextrema()[1] > 250
        faces.append(face.tobytes())
    assert len(dict.fromkeys(faces)) == len(WORDS)


def test_scenes_keep_their_promises():
    for scene in sampled(UNBIASED, 500):
        assert 1 <= len(scene.things) <= (3 if scene.text else 4)
        for o in scene.things:
            assert o.r < o.x < SIDE - o.r and o.r < o.y < SIDE - o.r
        assert list(scene.things) == sorted(scene.things, key=lambda o: (o.y >= SIDE / 2, o.x))


def favourite_share(scenes: list[Scene]) -> float:
    things = [o for s in scenes for o in s.things]
    return sum(FAVOURITE_COLOR[o.kind] == o.color for o in things) / len(things)


def partner_share(scenes: list[Scene]) -> float:
    groups = [[o.kind for o in s.things] for s in scenes if len(s.things) == 2]
    return sum(PARTNER[a] == b for a, b in groups) / len(groups)


def test_the_priors_are_biased_and_unbiased():
    biased, unbiased = sampled(BIASED), sampled(UNBIASED)
    assert favourite_share(biased) == pytest.approx(0.6 + 0.4 / 6, abs=0.03)
    assert favourite_share(unbiased) == pytest.approx(1 / 6, abs=0.03)
    assert partner_share(biased) == pytest.approx(0.5 + 0.5 / 8, abs=0.07)
    assert partner_share(unbiased) == pytest.approx(1 / 8, abs=0.05)
    words = {
        name: Counter(s.text for s in scenes if s.text)
        for name, scenes in (("biased", biased), ("unbiased", unbiased))
    }
    assert words["biased"]["STOP"] / words["biased"].total() == pytest.approx(0.335, abs=0.06)
    assert words["unbiased"]["STOP"] / words["unbiased"].total() == pytest.approx(0.05, abs=0.03)


def test_importing_the_world_loads_no_heavy_library():
    code = "import sys, seva_exp.world; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
