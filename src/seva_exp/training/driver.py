"""One driver for the stages that train: what they are given, and the work they have in common.

A stage makes its rows of data (``preferences.py``) and its trainer (``dpo.py``, ``finetune.py``);
lengths, steps, log, adapter and summary are here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from seva_exp.core.digests import file_sha256
from seva_exp.core.errors import StageError
from seva_exp.core.files import write_whole
from seva_exp.core.interfaces import Placement, VisionLanguageModel
from seva_exp.core.records import Adapter
from seva_exp.core.spec import Json, canonical
from seva_exp.training.batches import SeededOrder
from seva_exp.training.checkpoints import CheckpointClock, undamaged
from seva_exp.training.collate import FinetuneExample, Preference
from seva_exp.training.lora import has_changed, save_adapter
from seva_exp.training.schedule import Schedule
from seva_exp.training.spec import Training
from seva_exp.training.steps import OnStep, StepLog, StepTrainer
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
    steps = Schedule.of(job.spec, len(trainer.order)).steps
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
    lengths: Json,
    make: Callable[[TrainingJob[SpecT], Sequence[Row]], TrainerT],
    kind: type[TrainerT],
    shown: dict[str, str],
) -> Json:
    """A stage's work: train on ``rows`` with the trainer that ``make`` makes; write ``adapter/``
    and ``metrics.jsonl`` (one line a step); return ``lengths``, the first and last numbers, of
    metrics those that ``shown`` names (summary's name -> metric's).

    Raises StageError, before anything is trained, where no step would have a learning rate.
    """
    schedule = Schedule.of(job.spec, len(rows))
    if not schedule.peak:
        raise StageError(schedule.refusal(kind.stage, kind.group, job.spec, len(rows)))
    job.placement.note(f"{kind.stage}: {schedule}")
    folder, logged = train(job, make(job, rows))
    work = job.placement.work
    return {
        "steps": len(logged),
        "warmup_steps": schedule.warmup,
        "learning_rate_peak": schedule.peak,
        "loss_first": logged[0]["loss"],
        "loss_last": logged[-1]["loss"],
        **{name: logged[-1].get(metric) for name, metric in shown.items()},
        **lengths,
        **throughput(work),
        "adapter_changed": has_changed(folder, job.start, logged),
        "adapter": left_behind(work, folder, job.base_name, logged),
    }


def left_behind(work: Path, folder: Path, base_name: str, rows: Sequence[Json]) -> Json:
    """Write ``metrics.jsonl`` (one line a step), take the checkpoints away, and describe
    the adapter in ``folder``."""
    lines = "".join(canonical(row) + "\n" for row in rows)
    write_whole(work / "metrics.jsonl", lines)
    shutil.rmtree(work / "trainer", ignore_errors=True)
    weights = file_sha256(folder / "adapter_model.safetensors")
    return asdict(Adapter(folder.name, base_name, weights))


def run(trainer: StepTrainer, log: StepLog, label: str, steps: int, placement: Placement) -> None:
    """Train, from the last checkpoint on if there is one. Our own progress bar and log take the
    place of the trainer's."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Epochs(trainer.order))
    log.watch(trainer, placement)
    last = _checkpointed(trainer, label, placement)
    with placement.progress(label, steps, "step") as bar:
        trainer.add_callback(_Bar(bar))
        try:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        finally:
            trainer.close()


def _checkpointed(trainer: StepTrainer, label: str, placement: Placement) -> Path | None:
    """See to the checkpoints; the last one, if there is one to go on from. With weights shared out
    there are none: two processes that loaded one by FSDP2 waited for each other for ever."""
    minutes = placement.checkpoint_minutes
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        if minutes is not None:
            placement.warn(
                f"{label}: with weights shared out (machine.accelerate) no checkpoints are saved; "
                "a training that is stopped begins anew"
            )
        return None
    if minutes is not None:
        trainer.add_callback(CheckpointClock(minutes))
    return undamaged(Path(trainer.args.output_dir), trainer.model.dtype)


class _Epochs(TrainerCallback):
    """Tells the row order which epoch it is; the Trainer reaches only accelerate's samplers."""

    def __init__(self, order: SeededOrder) -> None:
        self._order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._order.set_epoch(int(state.epoch or 0))


class _Bar(TrainerCallback):
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.update(1)
