"""The pairs of one round: whom the model is asked about what, and how two answers are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from seva_exp.augment import Adversarial, AnotherCandidate, AnySource, Rewrite, TextSource
from seva_exp.core.records import CLEAN
from seva_exp.decoding import HfGeneration
from seva_exp.experiment.contrast import source_of
from seva_exp.experiment.fitting import views_of_round
from seva_exp.experiment.value import CANDIDATE, Experiment
from seva_exp.inputs.views import ViewDraw
from seva_exp.methods import BestOfKMethod, SentinelMethod
from seva_exp.preferences.ambiguity import SCORE, WEAK
from seva_exp.preferences.selection import Selection
from seva_exp.scores import AnyScore
from seva_exp.scores.mean_logprob import MeanLogprob
from seva_exp.stages import (
    Align,
    Answers,
    AttackedAnswers,
    Attacks,
    ChosenPairs,
    Continued,
    GivenPairs,
    HardestPairs,
    ModelScores,
    ModelSentenceScores,
    Pairs,
    Rejected,
    Rewritten,
    Samples,
    ScoreCandidates,
    SentencePairs,
    SentenceScores,
)
from seva_exp.stages.parts import Part

LIKELIHOOD = "likelihood"
"""The name of the score by which the hardest negative is chosen."""


def pairs_of_round(
    experiment: Experiment, samples: Samples, before: Align | None, number: int, suffix: str
) -> Pairs:
    """The pairs of one round: what the model says as the round before has left it."""
    method = experiment.method
    new = method.curriculum.data == "new"
    part = Part(number, method.rounds) if new else None
    ask = _Asking(experiment, samples, before, suffix, part)
    if experiment.data.gives_pairs:
        return GivenPairs(
            samples, ask(), (), experiment.filters, method.newlines, experiment.seed, suffix
        )
    if isinstance(method, BestOfKMethod):
        return _best_of_k(method, ask, number)
    if isinstance(method, SentinelMethod):
        return _sentinel(method, ask, number)
    draw = method.draw(experiment.aug)
    clean = ask()
    negatives: list[Answers | Rejected] = []
    for name in views_of_round(method, experiment.aug, number):
        source = experiment.aug[name]
        if isinstance(source, TextSource):
            negatives.append(Rejected(clean, name, source, experiment.seed, draw, suffix))
        elif isinstance(source, Rewrite):
            negatives.append(_rewritten(source.in_round(number), name, clean, draw, experiment))
        elif isinstance(source, Adversarial):
            attacks = Attacks(clean, name, source, experiment.seed, suffix)
            negatives.append(ask(name, source, draw, attacks=attacks))
        else:
            negatives.append(ask(name, source, draw))
    made = (
        samples,
        clean,
        tuple(negatives),
        experiment.filters,
        method.newlines,
        experiment.seed,
        suffix,
        ask.agreement(clean),
    )
    if method.negatives != "hardest":
        return Pairs(*made)
    asked = tuple(one for one in negatives if isinstance(one, Answers))
    return HardestPairs(*made, likelihood=_scores(MeanLogprob(), LIKELIHOOD, asked, ask))


def _rewritten(
    source: Rewrite, name: str, clean: Answers, draw: ViewDraw | None, experiment: Experiment
) -> Rewritten:
    return Rewritten(
        clean, name, source, experiment.seed, draw, clean.suffix,
        experiment.model, clean.adapter, experiment.dpo.fast,
    )  # fmt: skip


@dataclass(frozen=True)
class _Asking:
    """Asks the model of a round: the clean question, or a view's."""

    experiment: Experiment
    samples: Samples
    before: Align | None
    suffix: str
    part: Part | None = None

    def agreement(self, clean: Answers | None = None) -> ScoreCandidates | None:
        """The agreement of the clean answer with those under weak views; none where they are not
        asked."""
        ambiguity = self.experiment.ambiguity
        if ambiguity is None:
            return None
        weak = [
            self(f"{WEAK}{name}", view, careful=True)
            for name, view in sorted(ambiguity.views.items())
        ]
        return _scores(ambiguity.score, SCORE, (clean or self(), *weak), self)

    def __call__(
        self,
        name: str = CLEAN,
        source: AnySource | None = None,
        draw: ViewDraw | None = None,
        careful: bool = False,
        attacks: Attacks | None = None,
    ) -> Answers:
        """``careful``: asked as the clean view asks, whatever the source. ``attacks``: with the
        pictures that these have found."""
        experiment = self.experiment
        asking = experiment.method.careful
        generation = experiment.generation.contrasted_at("views" if source else "clean")
        careful = careful or source is None or source.careful
        kind = partial(AttackedAnswers, attacks=attacks) if attacks else Answers
        return kind(
            self.samples,
            experiment.model,
            generation.changed(source.decoding()) if source else generation,
            name,
            source,
            experiment.seed,
            asking=asking if careful else None,
            draw=draw,
            adapter=self.before,
            suffix=self.suffix,
            part=self.part,
            against=source_of(generation, experiment.aug),
        )


def _best_of_k(method: BestOfKMethod, ask: _Asking, number: int) -> ChosenPairs:
    """The pairs of round ``number`` (from 1) of K candidates."""
    experiment = ask.experiment
    candidates = [ask()] if method.clean else []
    for k in range(1, method.candidates + 1):
        again = AnotherCandidate(temperature=method.temperature, number=k)
        candidates.append(ask(f"{CANDIDATE}{k}", again))
    if method.ask_views:
        candidates += [ask(name, experiment.aug[name]) for name in sorted(experiment.aug)]
    scores = [
        _scores(score, name, tuple(candidates), ask)
        for name, score in method.scores_of(number).items()
    ]
    weights = tuple((one.called, one.score.weight) for one in scores)
    return ChosenPairs(
        ask.samples,
        candidates[0],
        tuple(candidates),
        experiment.filters,
        method.newlines,
        experiment.seed,
        ask.suffix,
        ask.agreement(),
        scores_of=tuple(scores),
        selection=Selection(method.select, method.gap, method.mix, weights),
        views=tuple(sorted(experiment.aug.items())),
    )


def _scores(
    score: AnyScore, name: str, candidates: tuple[Answers, ...], ask: _Asking
) -> ScoreCandidates:
    experiment = ask.experiment
    return (ModelScores if score.needs_model else ScoreCandidates)(
        ask.samples,
        candidates,
        score,
        name,
        experiment.model,
        experiment.seed,
        experiment.dpo.fast,
        experiment.aug[score.looks_at] if score.looks_at else None,
        experiment.judge if score.needs_judge else None,
        ask.before,
        ask.suffix,
    )


def _sentinel(method: SentinelMethod, ask: _Asking, number: int) -> SentencePairs:
    """The pairs of round ``number`` (from 1) of sentences behind one context."""
    experiment, clean = ask.experiment, ask()
    scores = method.scores_of(number)

    def judged(of: Answers | Continued) -> tuple[SentenceScores, ...]:
        return tuple(_verdicts(score, name, of, ask) for name, score in scores.items())

    continued = Continued(
        clean,
        judged(clean),
        HfGeneration(max_new_tokens=method.max_new_tokens, temperature=method.temperature),
        method.candidates,
        method.split,
        ask.suffix,
    )
    return SentencePairs(
        ask.samples,
        clean,
        (),
        experiment.filters,
        method.newlines,
        experiment.seed,
        ask.suffix,
        continued=continued,
        verdicts=judged(continued),
        views=tuple(sorted(experiment.aug.items())),
    )


def _verdicts(score: AnyScore, name: str, of: Answers | Continued, ask: _Asking) -> SentenceScores:
    experiment, method = ask.experiment, ask.experiment.method
    assert isinstance(method, SentinelMethod)
    return (ModelSentenceScores if score.needs_model else SentenceScores)(
        ask.samples,
        (),
        score,
        name,
        experiment.model,
        experiment.seed,
        experiment.dpo.fast,
        judge=experiment.judge if score.needs_judge else None,
        adapter=ask.before,
        suffix=ask.suffix,
        of=of,
        split=method.split,
    )
