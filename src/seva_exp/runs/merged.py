"""The aligned model as a checkpoint that any program reads: the adapter merged into the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seva_exp.core.environment import describe_environment
from seva_exp.core.machine import Machine, resolve_device, resolve_dtype
from seva_exp.core.runtime import hush
from seva_exp.core.spec import Json, digest
from seva_exp.core.store import Manifest
from seva_exp.models import AnyModel
from seva_exp.models.adapter import LOST, merge_adapter
from seva_exp.models.processor import load_processor
from seva_exp.models.weights import load_weights
from seva_exp.runs.reader import FinishedRun

STAGE, VERSION = "merged", 2


def merged_checkpoint(run: FinishedRun, machine: Machine) -> tuple[Path, str]:
    """The folder in the store, made if need be: weights in the number format that ``machine``
    computes in, config, and the processor as runs use it. And what a person should know of it, if
    anything."""
    dtype = str(resolve_dtype(machine, resolve_device(machine))).removeprefix("torch.")
    spec: Json = {"dtype": dtype}
    adapter, trained = run.adapter, run.trained
    assert adapter is not None
    assert trained is not None
    inputs = {"adapter": trained.key}
    key = digest({"stage": STAGE, "version": VERSION, "spec": spec, "inputs": inputs})

    def describe(seconds: float, summary: Json) -> Manifest:
        environment = describe_environment(machine)
        return Manifest(STAGE, VERSION, key, spec, inputs, environment, seconds, summary)

    def work(folder: Path) -> Json:
        return {"lost": write_merged(run.model(), adapter, dtype, folder)}

    made, _ = run.store.make(describe, STAGE, key, work)
    return run.store.path(STAGE, key), rounding_warning(made.summary["lost"], dtype)


def rounding_warning(lost: float, dtype: str) -> str:
    """A warning where the merged checkpoint's rounding loses much of the adapter's change, else
    ""."""
    if lost <= LOST or dtype == "float32":
        return ""
    return (
        f"merged into {dtype} weights the adapter's change is off by up to {lost:.0%} of itself, "
        "by rounding: these numbers are of another model than the run's, which had the adapter "
        "beside the weights. --dtype float32 loses nothing."
    )


def write_merged(model: AnyModel, adapter: Path, dtype: str, folder: Path) -> float:
    """On the CPU, in ``dtype``: rounded once; the largest share of a layer's change that is lost by
    that. Of the generation config only the special ids are kept: how answers are decoded is the
    asker's choice."""
    merged, lost = merged_model(model, adapter, dtype)
    save_checkpoint(merged, model, folder)
    return lost


def merged_model(model: AnyModel, adapter: Path, dtype: str) -> tuple[Any, float]:
    """The base model with the adapter in its weights, on the CPU in ``dtype``, and the largest
    share of a layer's change that is lost by rounding."""
    hush()
    merged = load_weights(model, dtype=dtype)
    return merged, merge_adapter(merged, adapter, most=float("inf")).lost


def save_checkpoint(merged: Any, model: AnyModel, folder: Path) -> None:
    """Weights, config, special ids, and the processor of ``model`` as runs use it."""
    from transformers import GenerationConfig

    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    old = merged.generation_config
    merged.generation_config = GenerationConfig(**{name: getattr(old, name) for name in ids})
    merged.save_pretrained(str(folder))
    load_processor(model).save_pretrained(str(folder))
