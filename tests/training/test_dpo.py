"""DPO is TRL's with our batches: the loss is the written-out formula; a wrong one is caught."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seva_exp import Machine, StageError
from seva_exp.interfaces import Placement
from seva_exp.models import TinyModel
from seva_exp.models.vlm import Vlm, load
from seva_exp.progress import progress
from seva_exp.randomness import python_rng
from seva_exp.training import DpoTraining
from seva_exp.training import dpo as dpo_module
from seva_exp.training.collate import Preference, PreferenceCollator
from seva_exp.training.dpo import SeededOrder, StepLog, train
from seva_exp.world import UNBIASED, draw, sample_scene

QUESTIONS = ["Describe the image.", "How many objects are there?", "Is there a star in the image?"]
CHOSEN = [" The image shows a red star.", " two", " Yes"]
REJECTED = [" The image shows a blue moon and a green ring.", " three", " No"]


def picture(index: int):
    return draw(sample_scene(python_rng(0, "test", str(index)), UNBIASED))


def preferences(vlm: Vlm, n: int) -> list[Preference]:
    tokenizer = vlm.processor.tokenizer

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text + "</s>", add_special_tokens=False).input_ids)

    return [
        Preference(
            f"s{i}",
            QUESTIONS[i % 3],
            partial(picture, i),
            ids(CHOSEN[i % 3]),
            ids(REJECTED[i % 3]),
        )
        for i in range(n)
    ]


def placement(work: Path, **changes) -> Placement:
    values = {
        "device": "cpu",
        "batch_size": 8,
        "train_batch_size": 8,
        "gradient_checkpointing": False,
        "progress": partial(progress, "off"),
        "work": work,
    }
    return Placement(**(values | changes))


def trained(work: Path, spec: DpoTraining, n: int = 6, seed: int = 0, **changes):
    vlm = load(TinyModel(), Machine())
    work.mkdir(exist_ok=True)
    return train(
        vlm, preferences(vlm, n), spec, placement(work, **changes), seed, "tiny", lambda *_: None
    )


def logprob(vlm: Vlm, preference: Preference, answer: tuple[int, ...]) -> float:
    """Summed log-probability of an answer, one sequence alone, token by token."""
    encoded = vlm.encode(vlm.encode_image(preference.load()), preference.prompt)
    ids = torch.tensor([encoded.ids + answer])
    with torch.inference_mode():
        logits = vlm.model(input_ids=ids, **vlm.image_inputs([encoded.image])).logits[0]
    start = len(encoded.ids)
    return sum(
        logits[start + i - 1].log_softmax(-1)[token].item() for i, token in enumerate(answer)
    )


def test_losses_of_two_steps_are_the_written_out_formula(tmp_path):
    """Step 1 is ln 2; step 2 is -log sigma(beta * margin) of the model after step 1."""
    spec = DpoTraining(
        batch_size=6, epochs=2, learning_rate=1e-3, warmup_ratio=0.0, schedule="constant"
    )
    _, rows = trained(tmp_path / "two", spec)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    one = spec.model_copy(update={"epochs": 1})
    folder, _ = trained(tmp_path / "one", one)
    base, policy = load(TinyModel(), Machine()), load(TinyModel(), Machine(), folder)
    losses = []
    for p in preferences(base, 6):
        chosen = logprob(policy, p, p.chosen) - logprob(base, p, p.chosen)
        rejected = logprob(policy, p, p.rejected) - logprob(base, p, p.rejected)
        losses.append(math.log(1 + math.exp(-spec.beta * (chosen - rejected))))
    assert rows[1]["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert rows[1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo"])
def test_every_loss_starts_at_its_value_for_equal_models(tmp_path, loss):
    spec = DpoTraining(loss=loss, batch_size=6)
    _, rows = trained(tmp_path / "x", spec)
    assert rows[0]["loss"] == pytest.approx(spec.loss_at_start(), rel=1e-4)


def test_a_wrong_reference_stops_the_stage(tmp_path, monkeypatch):
    """An adapter that is not the identity at the start makes policy and reference differ."""
    real = dpo_module.lora_config

    def not_identity(*args):
        config = real(*args)
        config.init_lora_weights = False
        return config

    monkeypatch.setattr(dpo_module, "lora_config", not_identity)
    with pytest.raises(StageError, match="the reference is wrong"):
        trained(tmp_path / "x", DpoTraining(batch_size=6))


def test_a_loss_that_is_not_finite_stops_the_stage():
    log = StepLog(DpoTraining(), lambda *_: None)
    state = type("State", (), {"global_step": 3})
    log.rows.append({"step": 1, "loss": 0.69})
    with pytest.raises(StageError, match="step 3"):
        log.on_log(None, state, None, {"loss": float("nan")})


def test_lora_goes_into_the_language_model_only(tmp_path):
    folder, _ = trained(tmp_path / "x", DpoTraining(batch_size=6))
    names = list(load_file(folder / "adapter_model.safetensors"))
    assert names
    assert all("language_model.layers" in name for name in names)
    assert not [n for n in names if "vision" in n or "projector" in n or "lm_head" in n]
    some, _ = trained(tmp_path / "y", DpoTraining(batch_size=6, lora_modules=("q_proj",)))
    assert all("q_proj" in name for name in load_file(some / "adapter_model.safetensors"))


def test_gradient_accumulation_gives_the_same_steps(tmp_path):
    spec = DpoTraining(batch_size=6, epochs=2, learning_rate=1e-3)
    # 11 pairs: the last step of an epoch has 5, so its micro-batches are of unequal size.
    _, whole = trained(tmp_path / "a", spec, n=11)
    for size in (1, 2, 3):
        _, parts = trained(tmp_path / str(size), spec, n=11, train_batch_size=size)
        assert [row["step"] for row in whole] == [row["step"] for row in parts] == [1, 2, 3, 4]
        for one, other in zip(whole, parts, strict=True):
            for name in ("loss", "grad_norm", "rewards/margins", "rewards/accuracies"):
                assert one[name] == pytest.approx(other[name], rel=2e-3, abs=1e-5), name


def test_training_twice_gives_the_same_adapter_and_another_seed_another(tmp_path):
    spec = DpoTraining(batch_size=4, learning_rate=1e-3)
    folders = [trained(tmp_path / str(i), spec, seed=seed)[0] for i, seed in enumerate((0, 0, 1))]
    one, same, other = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_order_of_rows_depends_on_each_id_alone():
    ids = [f"s{i}" for i in range(50)]
    order = [ids[i] for i in SeededOrder(ids, 0)]
    assert sorted(order) == sorted(ids)
    assert order != ids
    fewer = [name for name in ids if name != order[10]]
    assert [fewer[i] for i in SeededOrder(fewer, 0)] == [n for n in order if n != order[10]]
    second = SeededOrder(ids, 0)
    second.set_epoch(1)
    assert [ids[i] for i in second] != order


def test_a_batch_holds_the_clean_image_twice_and_masks_answers_only():
    vlm = load(TinyModel(), Machine())
    rows = preferences(vlm, 3)
    batch = PreferenceCollator(vlm, rows)([{"row": i} for i in range(3)])
    assert batch["pixel_values"].shape[0] == 6
    assert torch.equal(batch["pixel_values"][:3], batch["pixel_values"][3:])
    for row, preference in enumerate([*rows, *rows]):
        answer = preference.chosen if row < 3 else preference.rejected
        masked = batch["input_ids"][row][batch["completion_mask"][row].bool()]
        assert tuple(masked.tolist()) == answer
        length = int(batch["attention_mask"][row].sum())
        assert batch["completion_mask"][row, length:].sum() == 0
