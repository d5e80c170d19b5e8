"""Scores that ask no model of the run, each beside a loop written out from its formula."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, CLIPModel

from seva_exp.core.digests import FileDigests, file_sha256
from seva_exp.core.errors import InputError
from seva_exp.core.interfaces import Placement
from seva_exp.core.progress import progress
from seva_exp.core.records import AnswerGroup, ImageRef, Sample
from seva_exp.models import TinyModel
from seva_exp.scores import SCORES, Agreement, Chair, Clip, JudgeScore
from seva_exp.scores.agreement import word_f1
from seva_exp.scores.base import Desk
from seva_exp.scores.judge import Claim

from .clip_folder import tiny_clip


def group(*texts: str, counts=None, sample=None) -> AnswerGroup:
    sample = sample or Sample("s", ImageRef("a.png", "0"), "What is it?")
    return AnswerGroup(sample, texts, ((),) * len(texts), tuple(counts or [1] * len(texts)))


def desk(folder: Path, **fields) -> Desk:
    placement = Placement("cpu", 4, 4, False, lambda *words: progress("off", *words), folder)
    none = lambda: None  # noqa: E731
    return Desk(TinyModel(), none, none, folder, none, placement, "scores.x", 0, **fields)


def values(score, some, where):
    with score.scorer(where, some) as scorer:
        return scorer(some)


# agreement


def mean_likeness(texts, alike):
    """(1/(n-1)) sum over j != i of alike(i, j), candidate by candidate."""
    n = len(texts)
    return [sum(alike(texts[i], texts[j]) for j in range(n) if j != i) / (n - 1) for i in range(n)]


def test_short_answers_agree_where_they_are_equal():
    said = ["red", "red", "blue", "Red.", "green"]
    of_each = mean_likeness(["red", "red", "blue", "red", "green"], lambda a, b: float(a == b))
    found = Agreement().values(group("red", "blue", "Red.", "green", counts=[2, 1, 1, 1]))
    assert found == pytest.approx(
        [of_each[said.index(t)] for t in ("red", "blue", "Red.", "green")]
    )
    assert found[0] == 0.5 and found[1] == 0


def test_long_answers_agree_by_the_words_that_they_share():
    texts = [
        "The image shows a red star, a ring and a ring.",
        "the image shows ring, ring",
        "Nothing at all is to be seen here today",
    ]
    words = [
        ["image", "shows", "red", "star", "ring", "and", "ring"],
        ["image", "shows", "ring", "ring"],
        ["nothing", "at", "all", "is", "to", "be", "seen", "here", "today"],
    ]

    def f1(one, other):
        left, common = list(other), 0
        for word in one:
            if word in left:
                left.remove(word)
                common += 1
        if not common:
            return 0.0
        precision, recall = common / len(one), common / len(other)
        return 2 * precision * recall / (precision + recall)

    assert Agreement().values(group(*texts)) == pytest.approx(mean_likeness(words, f1))
    assert Agreement(measure="equal").values(group(*texts)) == (0, 0, 0)
    assert word_f1("a b", "a b") == 1 and word_f1("a", "b") == 0


def test_one_candidate_has_nobody_to_agree_with():
    assert Agreement().values(group("red")) == (None,)
    assert Agreement().values(group("red", counts=[3])) == (1.0,)


# chair


def test_chair_by_the_truth_of_the_world(tmp_path):
    where = desk(tmp_path, truth=lambda id: "The image shows a red star and a blue ring.")
    texts = ("A red star, a green ring and a cross.", "A red star.", "3")
    found = values(Chair(recall=0.5), [group(*texts)], where)[0]
    # of (red star, green ring, cross) one is there, of two things one is named
    assert found[0] == pytest.approx(0.5 * 1 / 2 - 2 / 3)
    assert found[1] == pytest.approx(0.5 * 1 / 2)
    assert found[2] is None
    assert values(Chair(), [group(*texts)], where)[0][:2] == (pytest.approx(-2 / 3), 0)


def test_chair_by_a_file_of_boxes_and_synonyms(tmp_path):
    rows = [
        {"id": "s", "objects": ["cat", {"label": "Dog", "box": [0, 0, 9, 9]}]},
        {"id": "t", "objects": ["car"]},
    ]
    (tmp_path / "boxes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "synonyms.txt").write_text("cat, kitten\ndog, puppy\ncar, truck\n")
    fields = {"path": str(tmp_path / "boxes.jsonl")}
    texts = ("Two dogs and a car.", "A kitten and a puppy.", "Nothing.")
    plain = values(Chair(**fields), [group(*texts)], desk(tmp_path))[0]
    assert plain == (-1 / 2, None, None)
    known = Chair(**fields, synonyms=str(tmp_path / "synonyms.txt"), recall=1.0)
    known.check("method.scores.chair")
    assert values(known, [group(*texts)], desk(tmp_path))[0] == (1 / 2 - 1 / 2, 1.0, None)
    other = group("A cat.", sample=Sample("u", ImageRef("b", "0"), "?"))
    assert values(known, [other], desk(tmp_path))[0] == (None,), "of u the file knows nothing"


def test_a_bad_row_of_boxes_is_named_with_its_line(tmp_path):
    file = tmp_path / "boxes.jsonl"
    file.write_text('{"id": "s", "objects": ["cat"]}\n{"id": "t", "objects": "cat"}\n')
    with pytest.raises(InputError, match=r"chair\.path: .*boxes\.jsonl', line 2: .*objects.*list"):
        Chair(path=str(file)).check("method.scores.chair")
    with pytest.raises(InputError, match=r"chair\.path: there is no file .*Did you mean"):
        Chair(path=str(file)[:-1]).check("method.scores.chair")


def test_the_content_of_a_file_is_in_the_identity_and_its_path_is_not(tmp_path):
    digests = FileDigests(tmp_path)
    for name, label in (("a", "cat"), ("b", "cat"), ("c", "dog")):
        (tmp_path / name).write_text(json.dumps({"id": "s", "objects": [label]}) + "\n")
    a, b, c = (Chair(path=str(tmp_path / name)).identity(digests) for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("kind", SCORES)
def test_weight_and_rounds_are_in_no_identity(kind):
    cls = SCORES[kind]
    one, other = cls(), cls(weight=0.5, since=3, until=4)
    assert one.identity(file_sha256) == other.identity(file_sha256)


# clip


@pytest.mark.parametrize("unit", ["answer", "sentence"])
def test_clip_is_the_cosine_of_both_embeddings(tmp_path, unit):
    folder = tiny_clip(tmp_path / "clip")
    picture = tmp_path / "a.png"
    Image.linear_gradient("L").convert("RGB").save(picture)
    sample = Sample("s", ImageRef("a.png", file_sha256(picture)), "?")
    texts = ("a red star. a blue ring", "the image shows " + "one two " * 20, "yes")
    score = Clip(path=str(folder), unit=unit)
    score.check("method.scores.clip")
    found = values(score, [group(*texts, sample=sample)], desk(tmp_path))[0]

    model, processor = (
        CLIPModel.from_pretrained(folder).double(),
        AutoProcessor.from_pretrained(folder),
    )
    pixels = processor.image_processor(Image.open(picture), return_tensors="pt")["pixel_values"]

    def cosine(text):
        ids = processor.tokenizer(text)["input_ids"]
        ids = [*ids[:11], 1] if len(ids) > 12 else ids  # cut to a context of 12, the end kept
        with torch.no_grad():
            out = model(input_ids=torch.tensor([ids]), pixel_values=pixels.double())
        one, other = out.text_embeds[0], out.image_embeds[0]
        return max(0.0, 100 * (one @ other / (one.norm() * other.norm())).item())

    parts = [["a red star.", "a blue ring"], [texts[1].strip()], [texts[2]]]
    if unit == "answer":
        parts = [[text] for text in texts]
    expected = [sum(map(cosine, some)) / len(some) for some in parts]
    assert any(expected)
    assert found == pytest.approx(expected, abs=1e-4)


def test_clip_is_refused_by_its_field(tmp_path):
    assert Clip().lacking("method.scores.clip").startswith("method.scores.clip.path: must be set")
    with pytest.raises(InputError, match=r"clip\.path: there is no folder"):
        Clip(path=str(tmp_path / "no")).check("method.scores.clip")
    with pytest.raises(InputError, match=r"has no config\.json"):
        Clip(path=str(tmp_path)).check("method.scores.clip")
    folder = tiny_clip(tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    with pytest.raises(InputError, match="model_type is 'siglip'"):
        Clip(path=str(folder)).check("method.scores.clip")


# judge


def test_an_answer_is_split_into_claims():
    text = "The image shows a red star, a ring and a cube. It is 3.5 m wide."
    assert JudgeScore().claims(text) == ["The image shows a red star, a ring and a cube",
                                         "It is 3.5 m wide"]  # fmt: skip
    clauses = JudgeScore(split="clauses", lead="The image shows ")
    assert clauses.claims(text) == ["a red star", "a ring", "a cube", "It is 3.5 m wide"]
    assert JudgeScore(split="whole").claims(text) == [text.rstrip(".")]
    assert JudgeScore().claims(" . ") == []


def test_a_claim_is_put_into_the_question_and_its_braces_stay():
    score = JudgeScore(template="{question} {claim}?")
    assert score.asked("a {question} cat", "Why {claim}?") == "Why {claim}? a {question} cat?"
    with pytest.raises(ValueError, match="must stand in it"):
        JudgeScore(template="Is it?")


def test_denied_claims_are_counted_and_unread_ones_are_not():
    verdicts = {"0": 1.0, "1": 0.0, "2": None, "3": 0.0}
    claims = [Claim(id, "", group("x")) for id in verdicts]
    assert JudgeScore.value(verdicts, claims) == -2
    assert JudgeScore.value(verdicts, claims[:1]) == 0
    assert JudgeScore.value(verdicts, claims[2:3]) is None
    assert JudgeScore.value(verdicts, []) is None
