"""DPO is TRL's with our batches: what a step is does not depend on how it is cut; a wrong reference
is caught."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from seva_exp import StageError
from seva_exp.training import DpoTraining
from seva_exp.training import dpo as dpo_module
from seva_exp.training.batches import SeededOrder
from seva_exp.training.collate import PreferenceCollator
from seva_exp.training.steps import StepLog

from .tools import logprob, preferences, tiny, trained


def test_losses_of_two_steps_are_the_written_out_formula(tmp_path):
    """Step 1 is ln 2; step 2 is -log sigma(beta * margin) of the model after step 1."""
    spec = DpoTraining(
        batch_size=6, epochs=2, learning_rate=1e-3, warmup_ratio=0.0, schedule="constant"
    )
    _, rows = trained(tmp_path / "two", spec)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    one = spec.model_copy(update={"epochs": 1})
    folder, _ = trained(tmp_path / "one", one)
    base, policy = tiny(), tiny(folder)
    losses = []
    for p in preferences(base, 6):
        chosen = logprob(policy, p, p.chosen) - logprob(base, p, p.chosen)
        [wrong] = p.rejected
        rejected = logprob(policy, p, wrong) - logprob(base, p, wrong)
        losses.append(math.log(1 + math.exp(-spec.beta * (chosen - rejected))))
    assert rows[1]["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert rows[1]["loss"] < rows[0]["loss"]


def test_lengths_and_drift_are_logged_beside_trl_s_metrics(tmp_path):
    """The second step's are those of the model after the first, answer by answer."""
    spec = DpoTraining(
        batch_size=6, epochs=2, learning_rate=1e-3, warmup_ratio=0.0, schedule="constant"
    )
    rejected = (1, 2, 3)
    _, [first, second] = trained(tmp_path / "two", spec, rejected=rejected, train_batch_size=2)
    one = spec.model_copy(update={"epochs": 1})
    folder, _ = trained(tmp_path / "one", one, rejected=rejected)
    base, policy = tiny(), tiny(folder)
    data = preferences(base, 6, rejected)
    assert first["kl_k1/chosen"] == pytest.approx(0, abs=1e-6)
    drift = sum(logprob(policy, p, p.chosen) - logprob(base, p, p.chosen) for p in data)
    tokens = sum(len(p.chosen) for p in data)
    assert second["kl_k1/chosen"] == pytest.approx(drift / tokens, rel=1e-3)
    assert second["lengths/chosen"] == pytest.approx(tokens / 6)
    wrong = [len(ids) for p in data for ids in p.rejected]
    assert second["lengths/rejected"] == pytest.approx(sum(wrong) / len(wrong))
    # What depends on the machine is told, and not part of what two runs have in common.
    assert not {"tokens_per_second", "peak_memory_gib"} & set(second)
    lines = (tmp_path / "two" / "throughput.jsonl").read_text().splitlines()
    for step, row in enumerate(map(json.loads, lines), 1):
        assert set(row) == {"step", "tokens_per_second", "peak_memory_gib"}
        assert row["step"] == step and row["tokens_per_second"] > 0
        assert 0.05 < row["peak_memory_gib"] < 100


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
    log = StepLog("align", "dpo", lambda *_: None)
    state = type("State", (), {"global_step": 3})
    with pytest.raises(StageError, match=r"step 3\. Lower dpo\.learning_rate"):
        log.on_log(None, state, None, {"loss": float("nan")})


def test_lora_goes_into_the_language_model_only(tmp_path):
    folder, _ = trained(tmp_path / "x", DpoTraining(batch_size=6))
    names = list(load_file(folder / "adapter_model.safetensors"))
    assert names
    assert all("language_model.layers" in name for name in names)
    assert not [n for n in names if "vision" in n or "projector" in n or "lm_head" in n]
    some, _ = trained(tmp_path / "y", DpoTraining(batch_size=6, lora_modules=("q_proj",)))
    assert all("q_proj" in name for name in load_file(some / "adapter_model.safetensors"))


SUMS = {"sigmoid": 1.0, "softmax": 0.5, "chosen_nll": 1e-3, "image": 1.0, "anchor": 0.5}


@pytest.mark.parametrize(
    ("loss", "rejected", "views", "sizes"),
    [("sigmoid", (1,), (0,), (3,)), (SUMS, (1, 2, 3), (2, 0, 1, 1), (1, 2))],
)
def test_gradient_accumulation_gives_the_same_steps(tmp_path, loss, rejected, views, sizes):
    """The numbers of rejected answers and of pictures differ within and between micro-batches."""
    spec = DpoTraining(loss=loss, batch_size=6, learning_rate=1e-3, warmup_ratio=0.0)
    # 11 preferences: the last step has 5, so its micro-batches are of unequal size.
    data = {"n": 11, "rejected": rejected, "views": views}
    _, whole = trained(tmp_path / "a", spec, **data)
    for size in sizes:
        _, parts = trained(tmp_path / str(size), spec, **data, train_batch_size=size)
        assert [row["step"] for row in whole] == [row["step"] for row in parts] == [1, 2]
        for one, other in zip(whole, parts, strict=True):
            assert set(one) == set(other)
            for name in one:
                assert one[name] == pytest.approx(other[name], rel=2e-3, abs=1e-5), name


@pytest.mark.parametrize("fast", ["on", "off"])
def test_no_logged_number_depends_on_the_micro_batches(tmp_path, fast):
    """At the first step the weights are equal, so that the numbers are, to float32's rounding:
    answers of unlike lengths, several of them for some of the seven preferences."""
    spec = DpoTraining(batch_size=7, loss=SUMS, fast=fast, lora_rank=4)
    data = {"n": 7, "rejected": (1, 2, 3), "views": (2, 0, 1)}
    rows = {
        size: trained(tmp_path / str(size), spec, **data, train_batch_size=size)[1][0]
        for size in ((7, 4, 2, 1) if fast == "on" else (7, 2))
    }
    whole = rows.pop(7)
    assert {"entropy", "logits/chosen", "logits/rejected", "mean_token_accuracy"} <= set(whole)
    for size, parts in rows.items():
        assert set(parts) == set(whole)
        for name, value in whole.items():
            assert parts[name] == pytest.approx(value, rel=1e-5, abs=1e-5), (size, name)


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


def test_copies_of_a_preference_are_shuffled_apart():
    ids = [f"s{i}{copy}" for copy in ("", "#2") for i in range(50)]
    order = [ids[i] for i in SeededOrder(ids, 0)]
    assert [name for name in order if "#" not in name] != [
        name.removesuffix("#2") for name in order if "#" in name
    ]
    assert [name for name in order if "#" not in name] == [
        ids[i]
        for i in SeededOrder(ids[:50], 0)  # where the first copies stand is untouched
    ]


def test_a_batch_holds_each_row_once_and_masks_answers_only():
    vlm = tiny()
    rows = preferences(vlm, 3, rejected=(1, 3, 2), views=(0, 2, 1))
    batch = PreferenceCollator(vlm, rows)([{"row": i} for i in range(3)])
    clean = [vlm.encode_image(row.load()) for row in rows]
    views = [make() for row in rows for make in row.images]
    owners = batch["rejected_owner"].tolist(), batch["view_owner"].tolist()
    assert owners == ([0, 1, 1, 1, 2, 2], [1, 1, 2])
    shown = clean + [clean[i] for i in owners[0]] + views
    expected = torch.cat([image.pixels["pixel_values"] for image in shown])
    assert torch.equal(batch["pixel_values"], expected)
    answers = [row.chosen for row in rows] + [ids for row in rows for ids in row.rejected]
    answers += [rows[i].chosen for i in owners[1]]
    asked = [row.prompt for row in rows] + [rows[i].prompt for i in owners[0] + owners[1]]
    assert len(batch["input_ids"]) == len(answers) == 12
    for row, answer in enumerate(answers):
        masked = batch["input_ids"][row][batch["completion_mask"][row].bool()]
        assert tuple(masked.tolist()) == answer
        length = int(batch["attention_mask"][row].sum())
        assert batch["completion_mask"][row, length:].sum() == 0
        prompt = batch["input_ids"][row, : length - len(answer)].tolist()
        assert tuple(prompt) == vlm.encode(shown[row], asked[row]).ids


def test_the_prompt_of_a_view_fits_its_picture():
    """A picture that takes more placeholders than the clean one."""
    vlm = tiny()
    [row] = preferences(vlm, 1, views=(1,))
    image = row.images[0]()
    longer = replace(image, placeholders=image.placeholders * 2)
    batch = PreferenceCollator(vlm, [replace(row, images=(lambda: longer,))])([{"row": 0}])
    tokens = (batch["input_ids"] == vlm.image_token_id).sum(dim=1).tolist()
    assert tokens == [36, 36, 72]
