"""Rewritten answers: what the model says without the picture, or under a noised one, against loops
that are written out."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch

from seva_exp.augment import Apasi, DiffusionNoise, PovidNoise
from seva_exp.core.digests import file_sha256
from seva_exp.core.randomness import python_rng
from seva_exp.core.records import Answer, ImageRef, Sample
from seva_exp.core.texts import bare, in_place_of, pieces
from seva_exp.inputs.views import PartnerPictures, View
from seva_exp.models.vlm import Vlm
from seva_exp.preferences.continuing import Begun, next_piece, pieces_of
from seva_exp.preferences.filters import NOT_REPLACED, ONE_SENTENCE, SAME_TOKENS, no_pair
from seva_exp.preferences.rewriting import Bench, Likely, rewriter_of
from seva_exp.training.preferences import shown_image

from ..training.tools import picture, placement, tiny

PROMPT = "Describe the image."
SAID = [
    "The image shows a red star, a blue ring and a green moon.",
    "two",
    "The image shows a pink star and an orange circle. The text says stop.",
    "The image shows a green triangle, a red ring, a yellow moon and a blue cross.",
]


@pytest.fixture(scope="module")
def vlm() -> Vlm:
    return tiny()


@pytest.fixture(scope="module")
def answered(vlm, tmp_path_factory) -> tuple[Path, list[tuple[Sample, Answer]]]:
    root, rows = tmp_path_factory.mktemp("pictures"), []
    for number, text in enumerate(SAID):
        file = root / f"{number}.png"
        picture(number).save(file)
        sample = Sample(f"s{number}", ImageRef(file.name, file_sha256(file)), PROMPT)
        ids = vlm.answer_ids(PROMPT, text)
        rows.append((sample, Answer(sample.id, "clean", PROMPT, text, ids, "eos")))
    return root, rows


def rewritten(source, vlm, answered, work: Path, seed: int = 0, **changes) -> list[Answer]:
    root, rows = answered
    view = View("worse", source.shown, seed) if source.shown else None
    clean = [answer for _, answer in rows]
    bench = Bench(
        vlm, root, placement(work, **changes), "worse", seed, view, lambda: iter(clean), "auto"
    )
    with rewriter_of(source, bench) as rewrite:
        return rewrite(rows)


def greedy(vlm: Vlm, ids: list[int], most: int) -> list[int]:
    """The likeliest token behind ``ids``, again and again, until an end of sequence."""
    new: list[int] = []
    with torch.inference_mode():
        while len(new) < most and not (new and new[-1] in vlm.eos_ids):
            logits = vlm.model(input_ids=torch.tensor([ids + new])).logits[0, -1]
            logits[vlm.image_token_id] = -torch.inf
            new.append(int(logits.argmax()))
    return new


def by_loop(vlm: Vlm, answer: Answer, rate: float, seed: int) -> tuple[str, int]:
    """APASI: a share of the clauses, never the first, become how the model without the picture goes
    on behind what stands before them; and how many were to be replaced."""
    parts = pieces(answer.text, "clauses")
    if len(parts) < 2:
        return "", 0
    count = min(len(parts) - 1, max(1, round(rate * len(parts))))
    rng, made = python_rng(seed, "rewrite/apasi", answer.sample_id), list(parts)
    drawn = sorted(rng.sample(range(1, len(parts)), count))
    for number in drawn:
        before = "".join(parts[:number])
        ids = list(vlm.encode_text(PROMPT).ids) + list(vlm.answer_ids(PROMPT, before)[:-1])
        new = vlm.decode([*vlm.answer_ids(PROMPT, before)[:-1], *greedy(vlm, ids, 64)])
        found = pieces(new, "clauses")
        if found[:number] == parts[:number] and len(found) > number:
            made[number] = in_place_of(parts[number], found[number], "clauses")
    return "".join(made), count


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_apasi_is_the_written_out_loop(rate, vlm, answered, tmp_path):
    source = Apasi(rate=rate, split="clauses")
    for seed in (0, 1):
        found = rewritten(source, vlm, answered, tmp_path, seed, batch_size=3)
        changed = 0
        for (sample, clean), one in zip(answered[1], found, strict=True):
            assert (one.sample_id, one.view, one.asked) == (sample.id, "worse", PROMPT)
            text, count = by_loop(vlm, clean, rate, seed)
            if count == 0:
                assert (one.stop, one.text) == (ONE_SENTENCE, "")
            elif text == clean.text and one.stop == NOT_REPLACED:
                assert one.text == ""
            else:
                assert (one.text, one.tokens, one.stop) == (text, (), "eos")
                was, now = (pieces(t, "clauses") for t in (clean.text, one.text))
                assert now[0] == was[0], "never the first"
                assert len(now) == len(was)
                assert sum(a != b for a, b in zip(was, now, strict=True)) <= count
                changed += text != clean.text
        assert changed


def test_which_sentences_depends_on_seed_and_sample_alone(vlm, answered, tmp_path):
    source = Apasi(split="clauses")
    one = rewritten(source, vlm, answered, tmp_path, batch_size=1)
    root, rows = answered
    other = rewritten(source, vlm, (root, rows[::-1]), tmp_path, batch_size=4)
    assert one == other[::-1]
    assert one != rewritten(source, vlm, answered, tmp_path, seed=1)


def test_the_rate_falls_by_round():
    source = Apasi(rate=0.4, fall=0.5)
    assert [source.in_round(n).rate for n in (1, 2, 3)] == [0.4, 0.2, 0.1]
    assert source.in_round(1) == Apasi(rate=0.4), "the fall is in no key of its own"
    assert PovidNoise().in_round(3) == PovidNoise()


def test_a_guided_sentence_begins_with_a_likely_object(vlm, answered, tmp_path):
    source = Apasi(
        split="sentences", rate=1.0, guide=("cross", "moon", "ring", "star"), lead=" The {object}"
    )
    [*_, third, _] = rewritten(source, vlm, answered, tmp_path)
    # Beside a star the answers name a ring and a moon once each, a cross never.
    first, second = pieces(SAID[2], "sentences")
    if third.stop == NOT_REPLACED:
        pytest.fail("the model came to no end")
    assert third.text.startswith(f"{first} The moon") or third.text.startswith(f"{first} The ring")
    assert second not in third.text


def test_likely_objects_are_drawn_by_how_often_both_are_named():
    texts = ["a dog and a ball", "a dog, a ball", "a dog and a cat", "a horse"]
    answers = [Answer(str(i), "clean", "", text, (), "eos") for i, text in enumerate(texts)]
    likely = Likely(("dog", "cat", "ball", "horse"), iter(answers))
    draws = [likely("two dogs", Random(n)) for n in range(300)]
    assert {*draws} == {"cat", "ball"}
    assert 0.58 < draws.count("ball") / 300 < 0.75, "twice as often as the cat"
    assert likely("a horse", Random(0)) is None and likely("a tree", Random(0)) is None


def test_povid_is_the_written_out_loop(vlm, answered, tmp_path):
    """At each place the likeliest token under the noised picture, behind the clean answer's own."""
    source = PovidNoise(step=700)
    found = rewritten(source, vlm, answered, tmp_path, seed=3)
    root, rows = answered
    view = View("diffusion_noise", DiffusionNoise(step=700), 3)
    same = 0
    for (sample, clean), one in zip(rows, found, strict=True):
        image = shown_image(vlm, view, sample, root, PartnerPictures(()))
        encoded = vlm.encode(image, PROMPT)
        inputs, expected = vlm.image_inputs([image]), []
        with torch.inference_mode():
            for place in range(len(clean.tokens)):
                ids = torch.tensor([[*encoded.ids, *clean.tokens[:place]]])
                logits = vlm.model(input_ids=ids, **inputs).logits[0, -1]
                logits[vlm.image_token_id] = -torch.inf
                expected.append(int(logits.argmax()))
        if tuple(expected) == clean.tokens:
            assert (one.stop, one.tokens) == (SAME_TOKENS, ())
            same += 1
        else:
            assert one.tokens == tuple(expected) and one.text == vlm.decode(expected)
            assert len(one.tokens) == len(clean.tokens)
    assert same < len(SAID)


def test_a_clean_picture_says_the_same_and_makes_no_pair(vlm, answered, tmp_path):
    """The model's own greedy answer, without noise: every token is the likeliest one."""
    root, rows = answered
    sample = rows[0][0]
    image = vlm.encode_image(picture(0))
    encoded = vlm.encode(image, PROMPT)
    with torch.inference_mode():
        out = vlm.model.generate(
            input_ids=torch.tensor([encoded.ids]), **vlm.image_inputs([image]),
            do_sample=False, max_new_tokens=48,
        )  # fmt: skip
    ids = tuple(out[0, len(encoded.ids) :].tolist())
    clean = Answer(sample.id, "clean", PROMPT, vlm.decode(ids), ids, "eos")
    [one] = rewritten(PovidNoise(step=0), vlm, (root, [(sample, clean)]), tmp_path)
    assert one.stop == SAME_TOKENS
    assert no_pair(clean, one).reason == SAME_TOKENS
    empty = Answer(sample.id, "clean", PROMPT, "", (), "eos")
    [none] = rewritten(PovidNoise(step=0), vlm, (root, [(sample, empty)]), tmp_path)
    assert no_pair(empty, none).reason == "empty"


# Sentences and clauses

LAST = ("The image shows a pink star", " and an orange circle.")
ANIMALS = ("A cat", "; a dog", ", and a cow.")


@pytest.mark.parametrize(
    ("text", "sentences", "clauses"),
    [
        (SAID[2], 2, [*LAST, " The text says stop."]),
        ("two", 1, ["two"]),
        ("", 0, []),
        ("A cat; a dog, and a cow.\nYes!  No?", 3, [*ANIMALS, "\nYes!", "  No?"]),
        ("One... two. -", 2, ["One...", " two. -"]),
    ],
)  # fmt: skip
def test_pieces_joined_are_the_text(text, sentences, clauses):
    assert pieces(text, "clauses") == clauses
    assert "".join(clauses) == text == "".join(pieces(text, "sentences"))
    assert len(pieces(text, "sentences")) == sentences


def test_a_new_clause_keeps_what_stood_around_the_old_one():
    assert in_place_of(" and a green moon.", ", a red ring", "clauses") == " and a red ring."
    assert in_place_of(", a red ring", " and a green moon.", "clauses") == ", a green moon"
    assert in_place_of(" A dog.", " It rains!", "sentences") == " It rains!"
    assert (
        bare(", and a cow.", "clauses") == "a cow." and bare(" And so.", "sentences") == "And so."
    )


def test_a_generated_answer_is_cut_between_tokens(vlm):
    ids = vlm.answer_ids(PROMPT, SAID[2])
    found = pieces_of(vlm, ids, "clauses")
    assert [piece.text for piece in found] == pieces(SAID[2], "clauses")
    assert sum((piece.tokens for piece in found), ()) == ids[:-1], "without the end of sequence"


def test_what_is_no_piece_of_its_own_is_none(vlm):
    begun = Begun("The image shows a red star", vlm.answer_ids(PROMPT, SAID[0])[:6])
    assert vlm.decode(begun.ids) == begun.text
    rest = vlm.answer_ids(PROMPT, SAID[0])[6:]
    piece = next_piece(vlm, begun, rest, "clauses")
    assert piece.text == ", a blue ring" and piece.tokens == rest[: len(piece.tokens)]
    assert next_piece(vlm, begun, piece.tokens, "clauses") is None, "it may go on"
    ended = next_piece(vlm, begun, (*piece.tokens, vlm.end_id), "clauses")
    assert ended == piece
    assert next_piece(vlm, begun, (vlm.end_id,), "clauses") is None
    assert next_piece(vlm, begun, (), "clauses") is None
    fish = vlm.processor.tokenizer("fish and a dog", add_special_tokens=False)["input_ids"]
    assert next_piece(vlm, begun, (*fish, vlm.end_id), "clauses") is None, "starfish"
    assert next_piece(vlm, Begun("", ()), vlm.answer_ids(PROMPT, "two"), "sentences").text == "two"


# Specs


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rate": 0.0}, "rate"), ({"fall": 1.5}, "fall"), ({"lead": " There is"}, "{object}"),
        ({"guide": ("Dog",)}, "lower case"), ({"guide": ("dog", "dog")}, "twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_its_field(fields, said):
    with pytest.raises(ValueError, match=said):
        Apasi(**fields)
