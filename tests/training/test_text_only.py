"""Answers behind a prompt without a picture, in every family: asked as its template asks, and no
token sees a later one."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from seva_exp import Machine
from seva_exp.models.vlm import load
from seva_exp.training.answer_logprobs import TextForward
from seva_exp.training.collate import Preference
from seva_exp.training.reference import scoring

from ..models import families

pytestmark = pytest.mark.usefixtures("numbers_in_words")
MACHINE = Machine(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def spec_of(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda name: families.build(name, root / name))


@families.each_family
def test_a_prompt_without_a_picture(spec_of, name):
    vlm = load(spec_of(name), MACHINE)
    encoded = vlm.encode_text("How many?")
    assert vlm.image_token_id not in encoded.ids
    assert "How many?" in vlm.processor.tokenizer.decode(encoded.ids)
    asked = Preference("s", "How many?", None, (10, 11, 12, 13), ((10, 11, 12, 14, 15, 16),))
    forward = TextForward(vlm)
    batch = forward.collator([asked])([{"row": 0}])
    with scoring(vlm, None) as model, torch.no_grad():
        found = forward(model, batch)["log_probs"]
    first, other = (
        row[mask[1:].bool()] for row, mask in zip(found, batch["completion_mask"], strict=True)
    )
    assert (len(first), len(other)) == (4, 6)
    assert torch.allclose(first[:3], other[:3], atol=1e-5), "what comes later changes nothing"
    for count, value in enumerate(first.tolist()):
        rows = torch.tensor([[*encoded.ids, *asked.chosen[: count + 1]]])
        kinds = {}
        if encoded.types:
            answer = vlm._family.attention.answer_type
            kinds["token_type_ids"] = torch.tensor(
                [[0] * len(encoded.ids) + [answer] * (count + 1)]
            )
        with torch.no_grad():
            logits = vlm.model(input_ids=rows, **kinds).logits[0, -2]
        assert value == pytest.approx(
            torch.log_softmax(logits, -1)[asked.chosen[count]].item(), abs=1e-4
        )
