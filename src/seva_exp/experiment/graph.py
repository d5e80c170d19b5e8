"""From an experiment to its stages, in the order of work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seva_exp.benchmarks import Judge
from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError, suggest
from seva_exp.core.records import ALIGNED, CLEAN
from seva_exp.methods import SticMethod
from seva_exp.stages import (
    Align,
    Answers,
    Compare,
    Evaluate,
    FineTune,
    Infuse,
    JudgeAnswers,
    Pairs,
    Samples,
    Stage,
    Trained,
)

if TYPE_CHECKING:
    from seva_exp.experiment import Experiment


def graph(
    experiment: Experiment, digests: FileDigests, data_root: Path | None = None
) -> list[Stage]:
    """The experiment's stages in the order of work, each after its inputs. ``data_root`` is where
    official benchmarks lie."""
    seed, model, method = experiment.seed, experiment.model, experiment.method
    samples = Samples(experiment.data, seed, digests, method.plain)
    base = [
        Evaluate(model, name, benchmark, digests, root=data_root)
        for name, benchmark in sorted(experiment.benchmark.items())
    ]
    stages: list[Stage] = [samples]
    align: Align | None = None
    for number in range(1, method.rounds + 1):
        suffix = f".round{number}" if method.rounds > 1 else ""
        pairs = _round(experiment, samples, align, suffix)
        align = Align(pairs, model, experiment.dpo, seed, align, method.reference, suffix)
        stages += [pairs.clean, *pairs.negatives, pairs, *(base if number == 1 else [])]
        stages += [align.reference, align]
        if number < method.rounds:
            stages += _measured(base, f"round{number}", align)
    assert align is not None
    if experiment.sft is None:
        return _judged(stages + _measured(base, ALIGNED, align), experiment.judge)
    stages += _measured(base, "stage1", align)
    instructions, *tuning, tuned = _second_stage(experiment, align, digests)
    # All data is read before any model is loaded: a bad row is told at once.
    stages = [samples, instructions, *stages[1:], *tuning, tuned, *_measured(base, ALIGNED, tuned)]
    return _judged(stages, experiment.judge)


def _judged(stages: Sequence[Stage], judge: Judge | None) -> list[Stage]:
    """With a judge's verdicts between evaluations and comparisons. They come last: a judge that
    fails holds up nothing else."""
    verdicts = {
        stage.label: JudgeAnswers(stage, judge)
        for stage in stages
        if judge and isinstance(stage, Evaluate) and stage.benchmark.judged
    }
    before: list[Stage] = []
    after: list[Stage] = []
    for stage in stages:
        if isinstance(stage, Compare) and stage.base.label in verdicts:
            read, again = verdicts[stage.base.label], verdicts[stage.after.label]
            after.append(replace(stage, base=read, after=again))
        else:
            before.append(stage)
    return [*before, *verdicts.values(), *after]


def _round(experiment: Experiment, samples: Samples, before: Align | None, suffix: str) -> Pairs:
    """The pairs of one round: what the model says as the round before has left it."""
    method = experiment.method
    ask = partial(
        Answers,
        samples,
        experiment.model,
        experiment.generation,
        seed=experiment.seed,
        adapter=before,
        suffix=suffix,
    )
    draw = method.draw(experiment.aug)
    negatives = tuple(
        ask(view=name, augmentation=experiment.aug[name], draw=draw)
        for name in method.asked(experiment.aug)
    )
    clean = ask(view=CLEAN, augmentation=None, asking=method.careful)
    return Pairs(
        samples,
        clean,
        negatives,
        experiment.filters,
        method.newlines,
        experiment.seed,
        suffix,
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
        experiment.generation,
        CLEAN,
        None,
        seed,
        asking=method.describe,
        adapter=align,
    )
    infused = Infuse(samples, descriptions, method)
    tuned = FineTune(infused, align, model, experiment.sft, seed)
    return samples, descriptions, infused, tuned


def _measured(base: Sequence[Evaluate], which: str, trained: Trained) -> list[Stage]:
    """The evaluations of a trained model and their comparisons with the base's."""
    after = [replace(stage, trained=trained, which=which) for stage in base]
    final = which == ALIGNED
    return [*after, *(Compare(b, a, final) for b, a in zip(base, after, strict=True))]


def matching(field: str, name: str, all_stages: Sequence[Stage]) -> list[Stage]:
    """The stages called ``name``: a label (answers.clean), or its beginning (answers)."""
    found = [s for s in all_stages if s.label == name or s.label.startswith(name + ".")]
    if not found:
        known = [stage.label for stage in all_stages] + [stage.name for stage in all_stages]
        raise InputError(f"{field}={name}: no such stage.{suggest(name, set(known))}")
    return found


def with_inputs(wanted: Iterable[Stage]) -> set[str]:
    """Keys of these stages and of everything that they need."""
    keys: set[str] = set()
    for stage in wanted:
        keys |= {stage.key} | with_inputs(stage.inputs)
    return keys


def forced_keys(force: Iterable[str], all_stages: Sequence[Stage]) -> set[str]:
    """Keys of the stages to compute anew: those named by ``force`` and all that follow."""
    named = {stage.key for name in force for stage in matching("force", name, all_stages)}
    return {stage.key for stage in all_stages if named & with_inputs([stage])}
