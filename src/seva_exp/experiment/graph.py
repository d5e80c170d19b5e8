"""From an experiment to its stages, in the order of work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from seva_exp.augment import Adversarial, AnotherCandidate, AnySource, Rewrite, TextSource
from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError, suggest
from seva_exp.core.records import ALIGNED, CLEAN
from seva_exp.decoding import HfGeneration
from seva_exp.experiment.contrast import contrasted_evaluation, source_of
from seva_exp.experiment.fitting import views_of_round
from seva_exp.experiment.trained_elsewhere import trained_elsewhere
from seva_exp.experiment.value import CANDIDATE, Experiment
from seva_exp.inputs.views import ViewDraw
from seva_exp.methods import AdapterMethod, BestOfKMethod, SentinelMethod, SticMethod
from seva_exp.models import AnyModel
from seva_exp.models.adapter_files import AdapterFiles
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
    Compare,
    Continued,
    Evaluate,
    ExternalAdapter,
    FineTune,
    HardestPairs,
    Infuse,
    JudgeAnswers,
    ModelScores,
    ModelSentenceScores,
    Pairs,
    Rejected,
    ReplayedPairs,
    Rewritten,
    Samples,
    ScoreCandidates,
    SentencePairs,
    SentenceScores,
    Stage,
    Trained,
)
from seva_exp.stages.parts import Part

LIKELIHOOD = "likelihood"
"""The name of the score by which the hardest negative is chosen."""


def graph(
    experiment: Experiment,
    digests: FileDigests,
    data_root: Path | None = None,
    last: int | None = None,
) -> list[Stage]:
    """The experiment's stages in the order of work, each after its inputs. ``data_root`` is where
    official benchmarks lie; ``last`` the round behind which it stops, whose model is the final
    one."""
    seed, model, method = experiment.seed, experiment.model, experiment.method
    measuring = _Measuring(experiment, digests, data_root)
    if isinstance(method, AdapterMethod):
        return _measured(method, model, measuring, digests)
    samples = Samples(experiment.data, seed, digests, method.plain)
    stages: list[Stage] = [samples]
    align: Align | None = None
    rounds: list[Pairs] = []
    last = last or method.rounds
    for number in range(1, last + 1):
        suffix = f".round{number}" if method.rounds > 1 else ""
        pairs = own = _round(experiment, samples, align, number, suffix)
        if rounds and method.curriculum.replay:
            pairs = replayed = ReplayedPairs.of(own, rounds, method.curriculum.replay)
            assert replayed.new
            own = replayed.new
        rounds.append(own)
        align = Align(pairs, model, experiment.dpo, seed, align, method.reference, suffix)
        # What looks at no answer comes before the model is asked: its faults are told at once.
        made = _made(own)
        early = [one for one in made if not one.needs_model and not _looks_at_answers(one)]
        late = [one for one in made if one not in early]
        stages += [*early, own.clean, *late, own, *([pairs] if pairs is not own else [])]
        stages += measuring.base if number == 1 else []
        stages += [align.reference, *([align.weights] if align.weights else []), align]
        if number < last:
            stages += measuring.after(f"round{number}", align)
    assert align is not None
    if experiment.sft is None:
        return [*stages, *measuring.after(ALIGNED, align), *measuring.judged]
    stages += measuring.after("stage1", align)
    instructions, *tuning, tuned = _second_stage(experiment, align, digests)
    # All data is read before any model is loaded: a bad row is told at once.
    stages = [samples, instructions, *stages[1:], *tuning, tuned]
    return [*stages, *measuring.after(ALIGNED, tuned), *measuring.judged]


def _measured(
    method: AdapterMethod, model: AnyModel, measuring: _Measuring, digests: FileDigests
) -> list[Stage]:
    """Base model and what was trained elsewhere, on the same questions."""
    found = trained_elsewhere(method, model)
    if isinstance(found, AdapterFiles):
        adapter = ExternalAdapter(model, found, digests)
        stages = [adapter, *measuring.base, *measuring.after(ALIGNED, adapter)]
    else:
        stages = [*measuring.base, *measuring.after(ALIGNED, None, found)]
    return [*stages, *measuring.judged]


def _made(pairs: Pairs) -> list[Stage]:
    """What lies between clean answers and pairs: before its steps, the attacks and the answers
    under weak views."""
    steps = list(pairs.steps)
    before = [one.attacks for one in steps if isinstance(one, AttackedAnswers) and one.attacks]
    asked = pairs.agreement.inputs.values() if pairs.agreement else ()
    known = [*steps, pairs.samples, pairs.clean]
    return [*before, *(one for one in asked if one not in known), *steps]


def _looks_at_answers(stage: Stage) -> bool:
    return any(isinstance(source, Answers | Continued) for source in stage.inputs.values())


class _Measuring:
    """The stages that measure models on the experiment's benchmarks. Where a judge scores, the
    judge's stages and the comparisons by its scores come last: a judge that fails holds up nothing
    else."""

    def __init__(
        self, experiment: Experiment, digests: FileDigests, data_root: Path | None
    ) -> None:
        contrasted = contrasted_evaluation(experiment.generation)
        self.base = [
            Evaluate(
                experiment.model,
                name,
                benchmark,
                digests,
                root=data_root,
                vllm=experiment.generation.measuring,
                contrasted=contrasted,
                against=source_of(contrasted, experiment.aug) if contrasted else None,
            )
            for name, benchmark in sorted(experiment.benchmark.items())
        ]
        self._judge = experiment.judge
        self._answers = [self._judged(one) for one in self.base]
        self._compared: list[Compare] = []

    @property
    def judged(self) -> list[Stage]:
        """The judge's stages so far."""
        return [*(one for one in self._answers if one), *self._compared]

    def after(
        self, which: str, trained: Trained | None, model: AnyModel | None = None
    ) -> list[Stage]:
        """The evaluations of a trained model (another ``model`` than the base, where it is given)
        and their comparisons with the base's; those that wait for a judge are in ``judged``."""
        final = which == ALIGNED
        found = [
            replace(stage, trained=trained, which=which, model=model or stage.model)
            for stage in self.base
        ]
        compared: list[Stage] = []
        for base, after, before in zip(self.base, found, list(self._answers), strict=False):
            if before and (again := self._judged(after)):
                self._answers.append(again)
                self._compared.append(Compare(before, again, final))
            else:
                compared.append(Compare(base, after, final))
        return [*found, *compared]

    def _judged(self, stage: Evaluate) -> JudgeAnswers | None:
        judge = self._judge if stage.benchmark.judged else None
        return JudgeAnswers(stage, judge) if judge else None


def _round(
    experiment: Experiment, samples: Samples, before: Align | None, number: int, suffix: str
) -> Pairs:
    """The pairs of one round: what the model says as the round before has left it."""
    method = experiment.method
    new = method.curriculum.data == "new"
    part = Part(number, method.rounds) if new else None
    ask = _Asking(experiment, samples, before, suffix, part)
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


def _second_stage(
    experiment: Experiment, align: Align, digests: FileDigests
) -> tuple[Samples, Answers, Infuse, FineTune]:
    """STIC's stage 2: describe, infuse, fine-tune."""
    seed, model, method = experiment.seed, experiment.model, experiment.method
    data = experiment.instruction_data()
    assert isinstance(method, SticMethod)
    assert experiment.sft is not None
    assert data is not None
    samples = Samples(data, seed, digests, where="instructions")
    descriptions = Answers(
        samples,
        model,
        experiment.generation.contrasted_at(None),
        CLEAN,
        None,
        seed,
        asking=method.describe,
        adapter=align,
    )
    infused = Infuse(samples, descriptions, method)
    tuned = FineTune(infused, align, model, experiment.sft, seed)
    return samples, descriptions, infused, tuned


def matching(field: str, name: str, all_stages: Sequence[Stage]) -> list[Stage]:
    """The stages called ``name``: a label (answers.clean), or its beginning (answers); where no
    label begins so, a stage's name (rejected, whose labels are answers.NAME)."""
    found = [stage for stage in all_stages if stage.is_called(name)]
    found = found or [stage for stage in all_stages if stage.name == name]
    if not found:
        known = [stage.label for stage in all_stages] + [stage.name for stage in all_stages]
        raise InputError(f"{field}={name}: no such stage.{suggest(name, set(known))}")
    return found


def chosen_stages(all_stages: Sequence[Stage], stop_after: str | None) -> list[Stage]:
    """Those that a run does: all, or the one called ``stop_after`` and what it needs."""
    if stop_after is None:
        return list(all_stages)
    keys = with_inputs(matching("stop_after", stop_after, all_stages))
    return [stage for stage in all_stages if stage.key in keys]


def with_inputs(some: Iterable[Stage]) -> set[str]:
    """Keys of these stages and of everything that they need. A stage that many need is looked at
    once: the rounds of ``best_of_k`` are wide."""
    keys: set[str] = set()
    left = list(some)
    while left:
        stage = left.pop()
        if stage.key not in keys:
            keys.add(stage.key)
            left += stage.inputs.values()
    return keys


def forced_keys(force: Iterable[str], all_stages: Sequence[Stage]) -> set[str]:
    """Keys of the stages to compute anew: those named by ``force`` and all that follow, which
    stand behind their inputs."""
    forced = {stage.key for name in force for stage in matching("force", name, all_stages)}
    for stage in all_stages:
        if any(one.key in forced for one in stage.inputs.values()):
            forced.add(stage.key)
    return forced
