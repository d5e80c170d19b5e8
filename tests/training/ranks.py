"""A training stage small enough to run under several processes in a test."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from seva_exp.models.vlm import Vlm
from seva_exp.stages import Inputs, StageContext
from seva_exp.training import DpoTraining, SftTraining
from seva_exp.training.finetune import fine_tune

from .test_finetune import samples
from .tools import job, preferences, tiny, train

ROWS = 11
"""Two steps of five and one of one, for which two ranks with micro-batches of one need fillers."""
HELD_OUT = 3
DPO = DpoTraining(
    loss={"sigmoid": 1.0, "softmax": 0.5, "image": 1.0, "chosen_nll": 0.001},
    batch_size=5,
    epochs=2,
    learning_rate=1e-3,
    train_projector=True,
)
SFT = SftTraining(batch_size=5, learning_rate=1e-3)


@dataclass
class TwoTrainings:
    """DPO on rows of unlike numbers of answers and views, then fine-tuning. At the step
    ``dies_at``, rank 1 is killed."""

    pictures: Path
    dies_at: int | None = None
    label: str = "align"

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> dict:
        vlm = tiny(dtype=context.machine.dtype)
        place = context.placement(work)

        def on_step(step: int, row: dict) -> None:
            if step == self.dies_at and os.environ.get("RANK") == "1":
                os.kill(os.getpid(), signal.SIGKILL)
            self.look(vlm)
            context.log("align", step, row)

        rows = preferences(vlm, ROWS + HELD_OUT, rejected=(1, 2, 3), views=(2, 0, 1, 1))
        of = job(vlm, DPO, place, on_step=on_step)
        _, logged = train(of, rows[:ROWS], rows[ROWS:])
        place = replace(place, checkpoint_minutes=None, checkpoints=work / "none")
        vlm, made = tiny(dtype=context.machine.dtype), samples(self.pictures, ROWS)
        fine_tune(job(vlm, SFT, place), made, self.pictures)
        tuned = (place.work / "metrics.jsonl").read_text().splitlines()
        return {"dpo": logged, "sft": [json.loads(line) for line in tuned]}

    def look(self, vlm: Vlm) -> None:
        """At each step of DPO, on every rank that logs."""
