"""Answers that go on behind one context: it is a part of the prompt, and no loss is taken of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from seva_exp.core.errors import UnusableText
from seva_exp.core.records import ImageRef, Pair
from seva_exp.training import DpoTraining
from seva_exp.training.collate import Preference, PreferenceCollator, TextCollator
from seva_exp.training.forward import PackedForward
from seva_exp.training.lengths import lengths
from seva_exp.training.preferences import PairSet, preferences_of, usable
from seva_exp.training.reference import read_reference, score_reference
from seva_exp.training.spec import OUR_LOSSES
from seva_exp.training.weights.tpo import Tpo
from seva_exp.training.weights.ue_dpo import UeDpo

from .steps import assert_equal, prepared, step
from .tools import placement, tiny
from .tools import preferences as plain_preferences

BETA = 0.3
CONTEXTS = ["The image shows a red star", "", "The image shows a red star, a blue ring"]
"""Of preference 0, 1, 2; one has none."""


def begun(vlm, prompt: str, text: str) -> tuple[int, ...]:
    return vlm.answer_ids(prompt, text)[:-1] if text else ()


def preferences(vlm, n: int = 3, **data) -> list[Preference]:
    rows = plain_preferences(vlm, n, **data)
    return [
        replace(row, context=begun(vlm, row.prompt, text))
        for row, text in zip(rows, CONTEXTS, strict=False)
    ]


def looped(model, vlm, row: Preference, answer: tuple[int, ...]) -> float:
    """Sum over the answer's tokens alone of log p(token | picture, prompt, context, tokens before):
    one sequence alone, token by token."""
    prompt = vlm.encode(vlm.encode_image(row.load()), row.prompt)
    before = [*prompt.ids, *row.context]
    inputs, total = vlm.image_inputs([prompt.image]), 0.0
    with torch.no_grad():
        for place, token in enumerate(answer):
            ids = torch.tensor([[*before, *answer[:place]]])
            said = model(input_ids=ids, **inputs).logits[0, -1].log_softmax(-1)
            total += said[token].item()
    return total


@pytest.mark.parametrize("fast", ["on", "off"])
def test_the_loss_is_the_written_out_one_without_a_term_for_the_context(fast, tmp_path):
    """C-DPO (SENTINEL, arXiv:2507.12455): mean of -log sigmoid(beta (D(y_w) - D(y_l))), D the
    difference of log pi and log pi_0 summed over the sentence behind the context."""
    vlm = tiny()
    rows = preferences(vlm)
    spec = DpoTraining(beta=BETA, lora_rank=4, fast=fast)
    trainer = prepared(vlm, rows, spec, tmp_path)
    [batch], _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, "cpu")
    found = trainer.compute_loss(trainer.model, batch).item()
    trainer.forward.close()
    assert isinstance(trainer.forward, PackedForward) == (fast == "on")
    model, terms = trainer.model.eval(), []
    for row in rows:
        policy = [looped(model, vlm, row, ids) for ids in (row.chosen, row.rejected[0])]
        with model.disable_adapter():
            base = [looped(model, vlm, row, ids) for ids in (row.chosen, row.rejected[0])]
        margin = (policy[0] - base[0]) - (policy[1] - base[1])
        terms.append(math.log1p(math.exp(-BETA * margin)))
    assert found == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert abs(found - math.log(2)) > 1e-3


EVERY = {
    "losses": DpoTraining(
        loss=dict.fromkeys([*OUR_LOSSES, "sigmoid"], 1.0), beta=BETA, lora_rank=4
    ),
    "ue_dpo": DpoTraining(beta=BETA, lora_rank=4, weights=UeDpo()),
}


@pytest.mark.parametrize("spec", EVERY)
def test_packed_is_plain(spec, tmp_path):
    """With several rejected answers, and with views' pictures: these rows have the context too."""
    rows = partial(preferences, rejected=(1, 2), views=(2, 1), crossed=True)
    one, other = (
        step(tiny, rows, EVERY[spec].model_copy(update={"fast": fast}), tmp_path / fast)
        for fast in ("on", "off")
    )
    assert_equal(one, other)
    without = step(
        tiny,
        lambda vlm: [replace(row, context=()) for row in rows(vlm)],
        EVERY[spec].model_copy(update={"fast": "on"}),
        tmp_path / "without",
    )
    assert abs(one.loss - without.loss) > 1e-4, "the context is looked at"


def test_each_row_has_the_context_and_its_mask_has_not(tmp_path):
    vlm = tiny()
    rows = preferences(vlm, views=(1,), rejected=(1,))
    batch = PreferenceCollator(vlm, rows)([{"row": i} for i in range(3)])
    answers = [r.chosen for r in rows] + [r.rejected[0] for r in rows] + [r.chosen for r in rows]
    for number, answer in enumerate(answers):
        row, length = rows[number % 3], int(batch["attention_mask"][number].sum())
        ids, mask = batch["input_ids"][number, :length], batch["completion_mask"][number, :length]
        behind = len(row.context) + len(answer)
        assert tuple(ids[-behind:].tolist()) == row.context + answer
        assert mask.tolist() == [0] * (length - len(answer)) + [1] * len(answer)
    text = TextCollator(vlm, rows)([{"row": 0}])
    length = int(text["attention_mask"][0].sum())
    assert int(text["completion_mask"][0].sum()) == len(rows[0].chosen)
    assert tuple(
        text["input_ids"][0, :length].tolist()[-len(rows[0].context + rows[0].chosen) :]
    ) == (rows[0].context + rows[0].chosen)


def test_the_context_counts_in_a_row_s_length():
    vlm = tiny()
    rows = preferences(vlm)
    long, short = (list(lengths(vlm, some)) for some in (rows, plain_preferences(vlm, 3)))
    for row, one, other in zip(rows, long, short, strict=True):
        assert one.total - other.total == len(row.context)
        assert one.answer == other.answer


# Pairs


def pair(vlm, folder, **changes) -> Pair:
    from PIL import Image

    from seva_exp.core.digests import file_sha256

    path = folder / "a.png"
    Image.new("RGB", (72, 72), "red").save(path)
    prompt, context = "Describe the image.", CONTEXTS[0]
    ids = begun(vlm, prompt, context)
    whole = [vlm.answer_ids(prompt, context + text) for text in (", a blue ring", " and a moon.")]
    own = [one[len(ids) : -1] for one in whole]
    fields = dict(
        sample_id="a", image=ImageRef("a.png", file_sha256(path)), prompt=prompt,
        chosen=", a blue ring", rejected=(" and a moon.",), views=("sentence",),
        chosen_tokens=own[0], rejected_tokens=(own[1],), context=context, context_tokens=ids,
    )  # fmt: skip
    return Pair(**(fields | changes))


def test_the_reference_is_of_the_sentences_alone(tmp_path):
    vlm = tiny()
    made = pair(vlm, tmp_path)
    score_reference(vlm, PairSet([made], tmp_path), "auto", placement(tmp_path / "work"))
    found = read_reference(tmp_path / "work")["a"]
    [row] = preferences_of(vlm, PairSet([made], tmp_path))
    assert (row.context, row.chosen) == (made.context_tokens, made.chosen_tokens)
    assert found.chosen == pytest.approx(looped(vlm.model, vlm, row, row.chosen), rel=1e-5)
    [wrong] = row.rejected
    assert found.rejected == (pytest.approx(looped(vlm.model, vlm, row, wrong), rel=1e-5),)


def test_a_text_is_tokenised_behind_its_context(tmp_path):
    """With an end of sequence, as every text that was not generated."""
    vlm = tiny()
    made = pair(vlm, tmp_path)
    text = replace(made, chosen_tokens=(), rejected_tokens=((),), context_tokens=())
    [row] = preferences_of(vlm, PairSet([text], tmp_path))
    assert row.context == made.context_tokens
    assert row.chosen == (*made.chosen_tokens, vlm.end_id)
    assert row.rejected == ((*made.rejected_tokens[0], vlm.end_id),)


def test_kept_weights_are_of_the_sentence_s_tokens(tmp_path):
    """Packed is plain with the weights that the reference decides, too; as many as tokens."""
    from seva_exp.training.weighing import read_weights, score_weights

    vlm = tiny()
    made = pair(vlm, tmp_path)
    sums = []
    for fast in ("on", "off"):
        work = tmp_path / fast
        rows = PairSet([made], tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tpo, "logits", False)
            patch.setattr(
                Tpo, "__call__", lambda self, said: torch.arange(1.0, 1 + len(said.log_probs))
            )
            score_weights(Tpo(), vlm, rows, fast, placement(work))
        found = read_weights(work)["a"]
        assert len(found.chosen) == len(made.chosen_tokens)
        sums.append(found.reference.chosen)
    assert sums[0] == pytest.approx(sums[1], rel=1e-4)
    [row] = preferences_of(vlm, PairSet([made], tmp_path))
    steps = [looped(vlm.model, vlm, row, row.chosen[: n + 1]) for n in range(len(row.chosen))]
    each = [now - before for before, now in zip([0.0, *steps], steps, strict=False)]
    assert sums[0] == pytest.approx(sum((n + 1) * p for n, p in enumerate(each)), rel=1e-4)


def test_a_line_of_a_pair_without_a_context_is_as_it_was(tmp_path):
    from seva_exp.core.records import from_json, to_line

    made = pair(tiny(), tmp_path)
    assert from_json(Pair, json.loads(to_line(made))) == made
    without = replace(made, context="", context_tokens=())
    assert json.loads(to_line(without)).keys() == {
        "sample_id", "image", "prompt", "chosen", "rejected", "views", "chosen_tokens",
        "rejected_tokens",
    }  # fmt: skip
    assert from_json(Pair, json.loads(to_line(without))) == without
    assert made.question == "Describe the image. [The image shows a red star]"
    assert without.question == made.prompt


def test_answers_that_cannot_be_cut_from_their_context_are_refused_by_name(tmp_path):
    vlm = tiny()
    made = pair(vlm, tmp_path, chosen_tokens=(), context_tokens=(1, 2, 3))
    with pytest.raises(UnusableText, match="cannot be tokenised apart from its context"):
        preferences_of(vlm, PairSet([made], tmp_path))
    assert usable(vlm, [made])[1][0].reason == "tokens"
