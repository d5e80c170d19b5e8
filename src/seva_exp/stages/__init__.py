"""The stages: what each takes, makes and depends on."""

from seva_exp.stages.attacks import AttackedAnswers, Attacks
from seva_exp.stages.base import Inputs, Stage, StageContext, Trained
from seva_exp.stages.candidates import ChosenPairs, ModelScores, ScoreCandidates
from seva_exp.stages.evaluation import Compare, Evaluate, JudgeAnswers, paired
from seva_exp.stages.explaining import ExplainWords
from seva_exp.stages.external_adapter import ExternalAdapter
from seva_exp.stages.hardest import HardestPairs
from seva_exp.stages.pairs import Pairs
from seva_exp.stages.preferences import Answers, Rejected, Samples
from seva_exp.stages.replay import ReplayedPairs
from seva_exp.stages.rewriting import Rewritten
from seva_exp.stages.sentences import (
    Continued,
    ModelSentenceScores,
    SentencePairs,
    SentenceScores,
)
from seva_exp.stages.training import Align, AnswerTokenWeights, FineTune, Infuse, Reference

STAGES: dict[str, type[Stage]] = {
    stage.name: stage
    for stage in (
        Samples,
        Answers,
        Attacks,
        AttackedAnswers,
        Rejected,
        ScoreCandidates,
        Rewritten,
        ModelScores,
        SentenceScores,
        ModelSentenceScores,
        Continued,
        Pairs,
        ChosenPairs,
        SentencePairs,
        HardestPairs,
        ReplayedPairs,
        Reference,
        AnswerTokenWeights,
        Align,
        Infuse,
        FineTune,
        ExternalAdapter,
        Evaluate,
        JudgeAnswers,
        Compare,
        ExplainWords,
    )
}
"""By name, which is what the labels of a run begin with; the labels of those of which there are
several kinds (``rejected`` beside ``answers``, ``chosen_pairs`` beside ``pairs``) begin alike."""
