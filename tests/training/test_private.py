"""What we use of the private parts of TRL, transformers and PEFT is still what we take it for."""

from __future__ import annotations

import ast
import inspect
import textwrap
from types import FunctionType

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer
from trl import DPOTrainer, SFTTrainer

from seva_exp import StageError
from seva_exp.training import DpoTraining
from seva_exp.training.dpo import PreferenceTrainer
from seva_exp.training.finetune import ResponseTrainer
from seva_exp.training.peft_private import COPY, TRAINED, keep_input_dtype, projectors
from seva_exp.training.trl_private import TOKENS, OneRank

from .tools import first_loss

LOSSES = {PreferenceTrainer: DPOTrainer._compute_loss, ResponseTrainer: SFTTrainer.compute_loss}
OFF = {"aux_loss"}
"""Metrics that TRL logs for a mixture of experts' loss, whose weight we set to 0."""


def source(function: FunctionType) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def logged(tree: ast.Module) -> set[str]:
    """The names in ``self._metrics[mode][NAME]``."""
    return {
        node.slice.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.value, ast.Subscript)
        and ast.unparse(node.value.value) == "self._metrics"
    }


@pytest.mark.parametrize(("ours", "loss"), LOSSES.items(), ids=lambda one: one.__qualname__)
def test_every_metric_of_trl_has_its_unit(ours, loss):
    found = logged(source(loss))
    assert TOKENS in found
    assert found - {TOKENS} - OFF <= set(ours.units)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=lambda one: one.__qualname__)
def test_trl_gathers_by_no_other_way(loss):
    """``OneRank`` stands in for these two; the others it hands on."""
    asked = {
        node.attr
        for node in ast.walk(source(loss))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self.accelerator"
    }
    assert {one for one in asked if "gather" in one or "reduce" in one} == {
        name for name in asked if name in vars(OneRank)
    }
    assert asked <= {
        "gather",
        "gather_for_metrics",
        "device",
        "unwrap_model",
        "num_processes",
        "parallelism_config",
    }


def test_a_rank_alone_gathers_its_own_value_and_hands_the_rest_on():
    class Accelerator:
        device = "here"

        def gather(self, value):
            raise AssertionError("it waits for other ranks")

    value = torch.ones(3)
    alone = OneRank(Accelerator())
    assert alone.gather(value) is value and alone.gather_for_metrics(value) is value
    assert alone.device == "here"


def test_trl_s_loss_takes_what_we_hand_it():
    assert [*inspect.signature(DPOTrainer._compute_loss).parameters] == [
        "self", "model", "inputs", "return_outputs",
    ]  # fmt: skip
    text = inspect.getsource(DPOTrainer._compute_loss)
    for name in ("completion_mask", "ref_chosen_logps", "ref_rejected_logps", "attention_mask"):
        assert f'"{name}"' in text
    assert "self._compute_loss(" in inspect.getsource(DPOTrainer.compute_loss)


def test_the_metrics_are_where_trl_s_log_looks(tmp_path):
    """A value of each micro-batch, which ``log`` averages and clears."""
    trainer, _, _ = first_loss(tmp_path, DpoTraining(batch_size=6, lora_rank=4))
    trainer.forward.close()
    seen = trainer.tokens_seen
    assert seen > 0 and trainer.metrics[TOKENS] == [seen]
    trainer.tokens_seen = 7
    assert trainer.metrics[TOKENS] == [7]
    trainer.metrics["entropy"][:] = [2.5]
    logs: dict[str, float] = {}
    DPOTrainer.log(trainer, logs)
    assert logs["entropy"] == 2.5 and logs[TOKENS] == 7
    assert not trainer.metrics


def test_a_metric_without_a_unit_is_refused(tmp_path):
    trainer, _, _ = first_loss(tmp_path, DpoTraining(batch_size=6, lora_rank=4))
    trainer.forward.close()
    trainer.metrics["sharpness"].append(1.0)
    with pytest.raises(StageError, match=r"align: TRL logs a metric 'sharpness'.*constraints\.txt"):
        trainer.log({})


@pytest.mark.parametrize(
    ("name", "parameters", "caller"),
    [
        ("_prepare_inputs", ["self", "inputs"], "training_step"),
        ("_save_checkpoint", ["self", "model", "trial"], "_maybe_log_save_evaluate"),
        ("save_model", ["self", "output_dir", "_internal_call"], "_save_checkpoint"),
        ("_load_from_checkpoint", ["self", "resume_from_checkpoint", "model"], "train"),
    ],
)
def test_the_trainer_calls_the_hooks_that_we_override(name, parameters, caller):
    assert [*inspect.signature(getattr(Trainer, name)).parameters] == parameters
    assert f"self.{name}(" in inspect.getsource(getattr(Trainer, caller))


def test_peft_s_modules_are_what_we_take_them_for():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    made = get_peft_model(model, LoraConfig(r=1, target_modules=["0"], modules_to_save=["1"]))
    trained = [name for name, p in made.named_parameters() if p.requires_grad]
    assert all(any(part in name for part in TRAINED) for name in trained)
    assert sum(COPY in name for name in trained) == 2  # weight and bias
    assert [type(part.original_module) for part in projectors(made)] == [torch.nn.Linear]
    layer = made.base_model.model[0]
    narrow = torch.ones(1, 2, dtype=torch.bfloat16)
    assert layer._cast_input_dtype(narrow, torch.float32).dtype == torch.float32
    keep_input_dtype(made)
    assert layer._cast_input_dtype(narrow, torch.float32).dtype == torch.bfloat16
