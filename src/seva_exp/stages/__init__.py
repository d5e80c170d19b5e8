"""The stages: what each takes, makes and depends on."""

from seva_exp.stages.base import Stage, StageContext
from seva_exp.stages.evaluation import (
    Compare,
    Evaluate,
    JudgeAnswers,
    paired,
    read_deltas,
    read_scores,
)
from seva_exp.stages.preferences import Answers, Pairs, Samples
from seva_exp.stages.training import Align, FineTune, Infuse, Reference, Trained

__all__ = [
    "Align",
    "Answers",
    "Compare",
    "Evaluate",
    "FineTune",
    "Infuse",
    "JudgeAnswers",
    "Pairs",
    "Reference",
    "Samples",
    "Stage",
    "StageContext",
    "Trained",
    "paired",
    "read_deltas",
    "read_scores",
]
