"""What ``method=sentinel`` asks of the rest of an experiment."""

from __future__ import annotations

from seva_exp.decoding import AnyGeneration
from seva_exp.methods import AnyMethod, SentinelMethod
from seva_exp.training import DpoTraining
from seva_exp.training.weight import TokenWeights


def sentence_fault(method: AnyMethod, generation: AnyGeneration, dpo: DpoTraining) -> str:
    """What of judges, decoding and weights does not go with sentences behind a context; empty if
    all does, and for other methods."""
    if not isinstance(method, SentinelMethod):
        return ""
    weights = dpo.weights
    for name, score in method.scores.items():
        if score.no_verdict:
            return (
                f"method.scores.{name}: kind={score.kind} {score.no_verdict}, and method=sentinel "
                "asks whether a sentence is right. Take +score=chair (with recall=0) or "
                "+score=judge."
            )
    if not generation.in_process:
        return (
            f"generation={generation.kind}: method=sentinel goes on behind the tokens of an "
            "answer, with the model that is loaded here. Take generation=hf."
        )
    if isinstance(weights, TokenWeights) and weights.sentences:
        return (
            f"dpo.weights: kind={weights.kind} weighs an answer's sentences against each other, "
            "and with method=sentinel an answer is one sentence behind a context. Take other "
            "weights, or dpo.weights=null."
        )
    return ""
