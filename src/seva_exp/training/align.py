"""The align stage's work: pairs to an adapter and its metrics."""

from __future__ import annotations

from functools import partial

from seva_exp.core.spec import Json
from seva_exp.training.dpo import PreferenceTrainer, trainer_for
from seva_exp.training.driver import TrainingJob, train_stage
from seva_exp.training.held_out import split
from seva_exp.training.lengths import check_lengths
from seva_exp.training.preferences import PairSet, preferences_of
from seva_exp.training.spec import HELD_OUT, DpoTraining

LAST = {"reward_accuracy_last": "rewards/accuracies", "reward_margin_last": "rewards/margins"}
LAST_HELD_OUT = {"held_out_loss_last": f"{HELD_OUT}loss"} | {
    f"held_out_{name}": HELD_OUT + metric for name, metric in LAST.items()
}


def align(job: TrainingJob[DpoTraining], pairs: PairSet) -> Json:
    """Train; write ``adapter/``, ``metrics.jsonl``; return the counts, first and last numbers.

    Raises StageError as ``preferences_of``, ``split`` and ``trainer_for`` do, for pairs that do not
    fit the model's context (the reference stage leaves such out), and when a number is not finite.
    """
    every = preferences_of(job.vlm, pairs, job.spec.repeat)
    lengths = check_lengths(job.vlm, every, PreferenceTrainer.stage)
    preferences, held = split(every, job.spec.held_out, job.seed)
    make = partial(trainer_for, held_out=held)
    made = train_stage(
        job, preferences, lengths, make, PreferenceTrainer, LAST | (LAST_HELD_OUT if held else {})
    )
    return {
        "preferences": len(preferences),
        "rejected": sum(len(preference.rejected) for preference in preferences),
        **({"held_out": len(held)} if held else {}),
        **made,
    }
