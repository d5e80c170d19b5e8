"""Fine-tuning on responses: the loss is the plain mean over response tokens; it goes on with an
adapter that is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seva_exp import StageError
from seva_exp.core.digests import FileDigests
from seva_exp.core.records import ImageRef, Sample
from seva_exp.training import DpoTraining, SftTraining, driver
from seva_exp.training.collate import ExampleCollator, Preference
from seva_exp.training.finetune import fine_tune
from seva_exp.training.preferences import examples_of

from .tools import CHOSEN, QUESTIONS, job, logprob, picture, placement, tiny, trained

RECIPE = SftTraining(batch_size=6, learning_rate=1e-3, warmup_ratio=0.0, schedule="constant")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for i in range(11):
        picture(i).save(root / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def aligned(tmp_path_factory) -> Path:
    """An adapter with a trained projector, of rank 8."""
    spec = DpoTraining(
        batch_size=6, learning_rate=1e-3, warmup_ratio=0.0, train_projector=True, lora_rank=8
    )
    return trained(tmp_path_factory.mktemp("aligned") / "x", spec)[0]


def samples(root: Path, n: int = 6) -> list[Sample]:
    digests = FileDigests(root)
    refs = [ImageRef(f"{i}.png", digests(root / f"{i}.png")) for i in range(n)]
    return [Sample(f"s{i}", r, QUESTIONS[i % 3], CHOSEN[i % 3]) for i, r in enumerate(refs)]


def tuned(work: Path, pictures: Path, spec: SftTraining, n: int = 6, start=None, **changes):
    place = placement(work, **changes)
    made = samples(pictures, n)
    summary = fine_tune(job(tiny(), spec, place, start=start), made, pictures)
    lines = (work / "metrics.jsonl").read_text().splitlines()
    return summary, [json.loads(line) for line in lines]


def token_mean(vlm, pictures: Path, n: int = 6) -> float:
    """One sequence at a time."""
    examples, _ = examples_of(vlm, samples(pictures, n), pictures)
    rows = [Preference(e.id, e.prompt, e.load, e.response, ()) for e in examples]
    total = sum(logprob(vlm, row, row.chosen) for row in rows)
    return -total / sum(len(row.chosen) for row in rows)


def test_the_loss_is_the_mean_over_the_responses_tokens(pictures, tmp_path):
    _, [first, second] = tuned(tmp_path / "two", pictures, RECIPE.model_copy(update={"epochs": 2}))
    assert first["loss"] == pytest.approx(token_mean(tiny(), pictures), rel=1e-4)
    summary, _ = tuned(tmp_path / "one", pictures, RECIPE)
    folder = tmp_path / "one" / summary["adapter"]["dir"]
    assert second["loss"] == pytest.approx(token_mean(tiny(folder), pictures), rel=1e-4)
    assert second["loss"] < first["loss"]


def test_a_step_does_not_depend_on_its_micro_batches(pictures, tmp_path):
    """Responses of unlike lengths; the last step has 5 of the 11 samples."""
    _, whole = tuned(tmp_path / "whole", pictures, RECIPE, n=11)
    assert [row["step"] for row in whole] == [1, 2]
    for size in (1, 2, 4):
        _, parts = tuned(tmp_path / str(size), pictures, RECIPE, n=11, train_batch_size=size)
        for one, other in zip(whole, parts, strict=True):
            assert {"entropy", "mean_token_accuracy", "epoch"} <= set(one) == set(other)
            for name in one:
                near = 1e-5 if one["step"] == 1 else 2e-3  # then AdamW has made more of rounding
                assert one[name] == pytest.approx(other[name], rel=near, abs=1e-5), name


def test_only_response_tokens_are_labelled(pictures):
    vlm = tiny()
    examples, _ = examples_of(vlm, samples(pictures, 3), pictures)
    batch = ExampleCollator(vlm, examples)([{"row": i} for i in range(3)])
    assert set(batch) == {"input_ids", "attention_mask", "labels", "pixel_values"}
    for row, example in enumerate(examples):
        labels = batch["labels"][row]
        assert tuple(labels[labels != -100].tolist()) == example.response
        assert vlm.decode(example.response) == CHOSEN[row]
        assert example.response[-1] in vlm.eos_ids


def test_it_goes_on_with_the_adapter_of_the_alignment(aligned, pictures, tmp_path):
    """Its LoRA shape is kept, whatever the recipe's; its projector is kept, and still."""
    summary, rows = tuned(tmp_path / "x", pictures, RECIPE, start=aligned)
    assert rows[0]["loss"] == pytest.approx(token_mean(tiny(aligned), pictures), rel=1e-4)
    folder = tmp_path / "x" / "adapter"
    assert summary["adapter"] == {
        "dir": "adapter",
        "base": "tiny",
        "sha256": FileDigests(folder)(folder / "adapter_model.safetensors"),
    }
    before, after = (load_file(f / "adapter_model.safetensors") for f in (aligned, folder))
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    for name, value in before.items():
        assert torch.equal(value, after[name]) == ("projector" in name), name
    assert token_mean(tiny(folder), pictures) < rows[0]["loss"]


@pytest.mark.parametrize("begins", [True, False])
def test_the_projector_is_trained_where_asked(aligned, pictures, tmp_path, begins):
    start = aligned if begins else None
    spec = RECIPE.model_copy(update={"train_projector": True, "projector_learning_rate": 1e-4})
    tuned(tmp_path / "x", pictures, spec, start=start)
    after = load_file(tmp_path / "x" / "adapter" / "adapter_model.safetensors")
    key = "base_model.model.model.multi_modal_projector.linear_1.weight"
    before = tiny(start).model.model.multi_modal_projector.linear_1.weight
    assert (after[key] - before).abs().max().item() == pytest.approx(1e-4, rel=0.2)


def test_a_sample_without_a_response_is_named(pictures, tmp_path):
    [sample] = samples(pictures, 1)
    bare = Sample(sample.id, sample.image, sample.prompt)
    with pytest.raises(StageError, match="s0: it has no response"):
        fine_tune(job(tiny(), RECIPE, placement(tmp_path / "x")), [bare], pictures)


def test_a_number_that_is_not_finite_stops_it(pictures, tmp_path):
    """A learning rate at which the second step is lost."""
    spec = RECIPE.model_copy(update={"learning_rate": 1e38, "epochs": 3})
    with pytest.raises(StageError, match=r"sft\.learning_rate"):
        tuned(tmp_path / "x", pictures, spec)


def test_lora_over_a_quantized_model_is_float32(pictures, tmp_path, monkeypatch):
    """As it is when training begins (which needs bitsandbytes)."""
    vlm, kinds = tiny(dtype="bfloat16"), []
    vlm.model.is_loaded_in_4bit = True

    def begins(trainer, *_):
        kinds.extend(p.dtype for p in trainer.model.parameters() if p.requires_grad)
        raise InterruptedError

    monkeypatch.setattr(driver, "run", begins)
    made = samples(pictures, 2)
    with pytest.raises(InterruptedError):
        fine_tune(job(vlm, RECIPE, placement(tmp_path)), made, pictures)
    assert set(kinds) == {torch.float32}
