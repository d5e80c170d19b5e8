"""What a reader of a run must know before its numbers: results that are none, answers of nothing,
questions that did not fit. Read from the artifacts and their summaries, so that a cached stage
tells it as one that was just made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import singledispatch
from pathlib import Path

from seva_exp.core.interfaces import TOO_LONG
from seva_exp.core.printable import ends
from seva_exp.core.records import Finding, Prediction
from seva_exp.core.spec import Json
from seva_exp.core.texts import is_empty, is_repetitive
from seva_exp.stages import Stage
from seva_exp.stages.artifacts import AdapterArtifact, AnswerArtifact, Artifact, ScoreArtifact

SHARE = 0.05
"""Of a stage's answers: more that are empty or go round in circles are told of."""
SAME, SAME_TARGETS, FEW = 0.95, 0.8, 20
"""So many of all answers are one text while no right answer is that frequent: told of, where there
are at least ``FEW`` answers. As many of one type tell that none of that type can be read."""
UNPARSED = "unparsed"
"""A prediction's count that says that no rule could read it."""


def findings(
    stages: Sequence[Stage], path_of: Callable[[Stage], Path], summaries: Mapping[str, Json]
) -> list[Finding]:
    """Of all stages of a run, in the order of work."""
    found = []
    for stage in stages:
        kinds = _found(stage.makes(path_of(stage)), summaries.get(stage.label, {}))
        found += [Finding(stage.label, *one) for one in kinds]
    return found


Kinds = Iterable[tuple[str, str, bool]]
"""Of each finding its kind, its text, and whether there is no result."""


@singledispatch
def _found(artifact: Artifact, summary: Json) -> Kinds:
    return ()


@_found.register
def _of_answers(artifact: AnswerArtifact, summary: Json) -> Kinds:
    return _empty(summary.get("empty", 0), summary["answers"])


@_found.register
def _of_adapter(artifact: AdapterArtifact, summary: Json) -> Kinds:
    changed = summary.get("adapter_changed")
    if changed is None:  # made before there was such a field
        rows = artifact.training()
        changed = any(r.get("learning_rate", 1) and r.get("grad_norm", 1) for r in rows)
    if not changed:
        yield "adapter_unchanged", "training changed nothing: the model is what it was before", True


@_found.register
def _of_scores(artifact: ScoreArtifact, summary: Json) -> Kinds:
    made = list(artifact.predictions())
    answered = [one for one in made if one.stop != TOO_LONG]
    if long := len(made) - len(answered):
        text = f"{long} of {len(made)} questions do not fit the model's context: unanswered"
        yield TOO_LONG, text, not answered
    texts = [one.text for one in answered if not is_empty(one.text)]
    yield from _empty(len(answered) - len(texts), len(answered))
    yield from _unread(answered)
    if (some := sum(map(is_repetitive, texts))) > SHARE * len(answered):
        text = f"{some} of {len(answered)} answers go round in circles"
        yield "repetitive_answers", text, False
    yield from _one_answer(answered, texts)


def _empty(empty: int, answers: int) -> Iterator[tuple[str, str, bool]]:
    if empty > SHARE * answers:
        every = empty == answers
        which = f"all {answers}" if every else f"{empty} of {answers}"
        yield "empty_answers", f"{which} answers are empty", every


def _unread(answered: Sequence[Prediction]) -> Iterator[tuple[str, str, bool]]:
    """By type of question: where no answer could be read, a score of 0 is none. A type with fewer
    than ``FEW`` (a group of four choices among yes or no) tells nothing beside others."""
    known: dict[str, list[bool]] = {}
    for one in answered:
        if UNPARSED in one.counts and not is_empty(one.text):
            known.setdefault(one.type, []).append(bool(one.counts[UNPARSED]))
    mute = [type_ for type_, unread in known.items() if all(unread)]
    if len(mute) < len(known):
        mute = [type_ for type_ in mute if len(known[type_]) >= FEW]
    if mute:
        count = sum(len(known[type_]) for type_ in mute)
        of = "" if len(mute) == len(known) else f" to questions of {', '.join(sorted(mute))}"
        yield "unread_answers", f"none of {count} answers{of} could be read", True


def _one_answer(
    answered: Sequence[Prediction], texts: Sequence[str]
) -> Iterator[tuple[str, str, bool]]:
    if len(answered) < FEW or not texts:
        return
    [(common, count)] = Counter(texts).most_common(1)
    [(_, right)] = Counter(one.target for one in answered).most_common(1)
    if count >= SAME * len(answered) and right < SAME_TARGETS * len(answered):
        text = f"{count} of {len(answered)} answers are the same: {ends(repr(common), 60)}"
        yield "one_answer", text, False
