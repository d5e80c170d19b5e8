"""From an experiment to its stages, in the order of work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seva_exp.augment import AnotherCandidate, AnySource, TextSource
from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError, suggest
from seva_exp.core.records import ALIGNED, CLEAN
from seva_exp.experiment.contrast import contrasted_evaluation, source_of
from seva_exp.experiment.value import CANDIDATE, Experiment
from seva_exp.inputs.views import ViewDraw
from seva_exp.methods import BestOfKMethod, SticMethod
from seva_exp.preferences.selection import Selection
from seva_exp.scores import AnyScore
from seva_exp.stages import (
    Align,
    Answers,
    ChosenPairs,
    Compare,
    Evaluate,
    FineTune,
    Infuse,
    JudgeAnswers,
    ModelScores,
    Pairs,
    Rejected,
    Samples,
    Scores,
    Stage,
    Trained,
)


def graph(
    experiment: Experiment, digests: FileDigests, data_root: Path | None = None
) -> list[Stage]:
    """The experiment's stages in the order of work, each after its inputs. ``data_root`` is where
    official benchmarks lie."""
    seed, model, method = experiment.seed, experiment.model, experiment.method
    samples = Samples(experiment.data, seed, digests, method.plain)
    measuring = _Measuring(experiment, digests, data_root)
    stages: list[Stage] = [samples]
    align: Align | None = None
    for number in range(1, method.rounds + 1):
        suffix = f".round{number}" if method.rounds > 1 else ""
        pairs = _round(experiment, samples, align, number, suffix)
        align = Align(pairs, model, experiment.dpo, seed, align, method.reference, suffix)
        # What looks at no answer comes before the model is asked: its faults are told at once.
        made = [one for one in pairs.inputs.values() if one not in (samples, pairs.clean)]
        early = [one for one in made if not one.needs_model and not _looks_at_answers(one)]
        late = [one for one in made if one not in early]
        stages += [*early, pairs.clean, *late, pairs, *(measuring.base if number == 1 else [])]
        stages += [align.reference, *([align.weights] if align.weights else []), align]
        if number < method.rounds:
            stages += measuring.after(f"round{number}", align)
    assert align is not None
    if experiment.sft is None:
        return [*stages, *measuring.after(ALIGNED, align), *measuring.judged]
    stages += measuring.after("stage1", align)
    instructions, *tuning, tuned = _second_stage(experiment, align, digests)
    # All data is read before any model is loaded: a bad row is told at once.
    stages = [samples, instructions, *stages[1:], *tuning, tuned]
    return [*stages, *measuring.after(ALIGNED, tuned), *measuring.judged]


def _looks_at_answers(stage: Stage) -> bool:
    return any(isinstance(source, Answers) for source in stage.inputs.values())


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

    def after(self, which: str, trained: Trained) -> list[Stage]:
        """The evaluations of a trained model and their comparisons with the base's; those that
        wait for a judge are in ``judged``."""
        final = which == ALIGNED
        found = [replace(stage, trained=trained, which=which) for stage in self.base]
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
    ask = _Asking(experiment, samples, before, suffix)
    if isinstance(method, BestOfKMethod):
        return _best_of_k(method, ask, number)
    draw = method.draw(experiment.aug)
    clean = ask()
    negatives: list[Answers | Rejected] = []
    for name in method.active_views(experiment.aug):
        source = experiment.aug[name]
        if isinstance(source, TextSource):
            negatives.append(Rejected(clean, name, source, experiment.seed, draw, suffix))
        else:
            negatives.append(ask(name, source, draw))
    return Pairs(
        samples,
        clean,
        tuple(negatives),
        experiment.filters,
        method.newlines,
        experiment.seed,
        suffix,
    )


@dataclass(frozen=True)
class _Asking:
    """Asks the model of a round: the clean question, or a view's."""

    experiment: Experiment
    samples: Samples
    before: Align | None
    suffix: str

    def __call__(
        self, name: str = CLEAN, source: AnySource | None = None, draw: ViewDraw | None = None
    ) -> Answers:
        experiment = self.experiment
        careful = experiment.method.careful
        generation = experiment.generation.contrasted_at("views" if source else "clean")
        return Answers(
            self.samples,
            experiment.model,
            generation.changed(source.decoding()) if source else generation,
            name,
            source,
            experiment.seed,
            asking=careful if source is None or source.careful else None,
            draw=draw,
            adapter=self.before,
            suffix=self.suffix,
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
        tuple(scores),
        Selection(method.select, method.gap, method.mix, weights),
        tuple(sorted(experiment.aug.items())),
    )


def _scores(score: AnyScore, name: str, candidates: tuple[Answers, ...], ask: _Asking) -> Scores:
    experiment = ask.experiment
    return (ModelScores if score.needs_model else Scores)(
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
    """Keys of these stages and of everything that they need."""
    keys: set[str] = set()
    for stage in some:
        keys |= {stage.key} | with_inputs(stage.inputs.values())
    return keys


def forced_keys(force: Iterable[str], all_stages: Sequence[Stage]) -> set[str]:
    """Keys of the stages to compute anew: those named by ``force`` and all that follow."""
    named = {stage.key for name in force for stage in matching("force", name, all_stages)}
    return {stage.key for stage in all_stages if named & with_inputs([stage])}
