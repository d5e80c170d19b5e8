"""From an experiment to its stages, in the order of work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError, suggest
from seva_exp.core.records import ALIGNED, CLEAN
from seva_exp.experiment.contrast import contrasted_evaluation, source_of
from seva_exp.experiment.explaining import worse_view
from seva_exp.experiment.rounds import pairs_of_round
from seva_exp.experiment.trained_elsewhere import trained_elsewhere
from seva_exp.experiment.value import Experiment
from seva_exp.methods import AdapterMethod, SticMethod
from seva_exp.models import AnyModel
from seva_exp.models.adapter_files import AdapterFiles
from seva_exp.stages import (
    Align,
    Answers,
    AttackedAnswers,
    Compare,
    Continued,
    Evaluate,
    ExplainWords,
    ExternalAdapter,
    FineTune,
    Infuse,
    JudgeAnswers,
    Pairs,
    ReplayedPairs,
    Samples,
    Stage,
    Trained,
)


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
        return [*_measured(method, model, measuring, digests), *measuring.explained]
    samples = Samples(experiment.data, seed, digests, method.plain)
    stages: list[Stage] = [samples]
    align: Align | None = None
    rounds: list[Pairs] = []
    last = last or method.rounds
    for number in range(1, last + 1):
        suffix = f".round{number}" if method.rounds > 1 else ""
        pairs = own = pairs_of_round(experiment, samples, align, number, suffix)
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
        stages += measuring.after(ALIGNED, align)
        return [*stages, *measuring.judged, *measuring.explained]
    stages += measuring.after("stage1", align)
    instructions, *tuning, tuned = _second_stage(experiment, align, digests)
    # All data is read before any model is loaded: a bad row is told at once.
    stages = [samples, instructions, *stages[1:], *tuning, tuned]
    stages += measuring.after(ALIGNED, tuned)
    return [*stages, *measuring.judged, *measuring.explained]


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
        self._final: list[Compare] = []
        self._experiment = experiment

    @property
    def judged(self) -> list[Stage]:
        """The judge's stages so far."""
        return [*(one for one in self._answers if one), *self._compared]

    @property
    def explained(self) -> list[Stage]:
        """What the words of base's and final model's answers rest on, where that is asked for."""
        how, (name, view) = self._experiment.explain, worse_view(self._experiment)
        seed = self._experiment.seed
        return [
            ExplainWords(one.base, one.after, how, seed, name, view) for one in self._final if how
        ]

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
                self._compared.append(one := Compare(before, again, final))
            else:
                compared.append(one := Compare(base, after, final))
            self._final += [one] if final else []
        return [*found, *compared]

    def _judged(self, stage: Evaluate) -> JudgeAnswers | None:
        judge = self._judge if stage.benchmark.judged else None
        return JudgeAnswers(stage, judge) if judge else None


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
