"""One driver for the stages that train: what they are given, and the work they have in common.

A stage makes its rows of data (``preferences.py``) and its trainer (``dpo.py``, ``finetune.py``);
lengths, steps, log, adapter and summary are here.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from seva_exp.core.digests import FileDigests
from seva_exp.core.files import write_whole
from seva_exp.core.interfaces import Placement, VisionLanguageModel
from seva_exp.core.records import Adapter
from seva_exp.core.spec import Json, canonical
from seva_exp.training.collate import FinetuneExample, Preference
from seva_exp.training.lengths import check_lengths
from seva_exp.training.lora import save_adapter
from seva_exp.training.spec import Training
from seva_exp.training.steps import OnStep, StepLog, StepTrainer, run
from seva_exp.training.throughput import summary as throughput

SpecT = TypeVar("SpecT", bound=Training)
Row = TypeVar("Row", bound=Preference | FinetuneExample)
TrainerT = TypeVar("TrainerT", bound=StepTrainer)


@dataclass(frozen=True)
class TrainingJob(Generic[SpecT]):
    """A training without its rows of data. ``vlm`` is the base model, known as
    ``base_name``. Training goes on with the adapter in the folder ``start``, or with a new one;
    ``reference`` (of DPO) is that adapter, or the base model. ``on_step`` is told each step."""

    vlm: VisionLanguageModel
    spec: SpecT
    placement: Placement
    seed: int
    base_name: str
    on_step: OnStep
    start: Path | None = None
    reference: Literal["start", "base"] = "start"


def train(job: TrainingJob[SpecT], trainer: StepTrainer) -> tuple[Path, list[Json]]:
    """Train; return the adapter's folder and the logged rows, one a step. Raises StageError when a
    number is not finite."""
    stage, group = trainer.stage, trainer.group
    log = StepLog(stage, group, job.on_step)
    steps = math.ceil(len(trainer.order) / job.spec.batch_size) * job.spec.epochs
    try:
        run(trainer, log, stage, steps, job.placement)
    finally:
        trainer.leave()
    folder = job.placement.work / "adapter"
    save_adapter(trainer.model, folder, job.base_name)
    return folder, log.rows


def train_stage(
    job: TrainingJob[SpecT],
    rows: Sequence[Row],
    make: Callable[[TrainingJob[SpecT], Sequence[Row]], TrainerT],
    stage: str,
    shown: dict[str, str],
) -> Json:
    """A stage's work: train on ``rows`` with the trainer that ``make`` makes; write ``adapter/``
    and ``metrics.jsonl`` (one line a step); return the first and last numbers, of metrics those
    that ``shown`` names (summary's name -> metric's).

    Raises StageError for rows that do not fit the model's context, before anything is trained.
    """
    lengths = check_lengths(job.vlm, rows, stage)
    folder, logged = train(job, make(job, rows))
    work = job.placement.work
    return {
        "steps": len(logged),
        "loss_first": logged[0]["loss"],
        "loss_last": logged[-1]["loss"],
        **{name: logged[-1].get(metric) for name, metric in shown.items()},
        **lengths,
        **throughput(work),
        "adapter": left_behind(work, folder, job.base_name, logged),
    }


def left_behind(work: Path, folder: Path, base_name: str, rows: Sequence[Json]) -> Json:
    """Write ``metrics.jsonl`` (one line a step), take the checkpoints away, and describe
    the adapter in ``folder``."""
    lines = "".join(canonical(row) + "\n" for row in rows)
    write_whole(work / "metrics.jsonl", lines)
    shutil.rmtree(work / "trainer", ignore_errors=True)
    weights = FileDigests(work)(folder / "adapter_model.safetensors")
    return asdict(Adapter(folder.name, base_name, weights))
