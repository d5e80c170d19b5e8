"""From models to numbers: evaluate, judge, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from PIL.Image import Image

from seva_exp.augment import AnySource
from seva_exp.benchmarks import AnyBenchmark, Judge
from seva_exp.benchmarks.guards import priced
from seva_exp.benchmarks.judge_answers import (
    Bench,
    Estimate,
    estimate,
    judge_all,
    judged_scores,
    settled,
)
from seva_exp.benchmarks.judging import Judging
from seva_exp.benchmarks.replies import Replies
from seva_exp.core.digests import FileDigests
from seva_exp.core.interfaces import AnswerEngine
from seva_exp.core.machine import Machine
from seva_exp.core.plugin_source import code_of
from seva_exp.core.records import BASE, CLEAN, Delta, Prediction, Score, write_jsonl
from seva_exp.core.sharing import Sharing
from seva_exp.core.spec import Json
from seva_exp.core.store import Store
from seva_exp.decoding import HfGeneration, VllmGeneration
from seva_exp.decoding.engines import check_engine, engine_of
from seva_exp.decoding.spec import NOISE
from seva_exp.inputs.views import View
from seva_exp.models import AnyModel
from seva_exp.stages.artifacts import DeltaArtifact, JudgedArtifact, ScoreArtifact
from seva_exp.stages.base import Inputs, Stage, StageContext, Trained
from seva_exp.stages.contrast import against, view_against
from seva_exp.stages.labels import about_model
from seva_exp.stages.processes import ProcessTask, launch
from seva_exp.stages.shown import Answered


@dataclass(frozen=True)
class Evaluate(Stage):
    """One model on one benchmark: ``predictions.jsonl`` and ``scores.jsonl``. ``which`` names the
    model in this run: ``base``, ``aligned`` (the final one), ``round1``, ``stage1`` ..."""

    name: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 4
    makes: ClassVar[type[ScoreArtifact]] = ScoreArtifact
    needs_model: ClassVar[bool] = True
    measures: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    model: AnyModel
    benchmark_name: str
    benchmark: AnyBenchmark
    digests: FileDigests = field(compare=False)
    trained: Trained | None = None
    root: Path | None = field(default=None, compare=False)
    """The data root: where a run reads, no part of what it computes."""
    which: str = BASE
    vllm: VllmGeneration | None = None
    """How vLLM is asked, where it answers."""
    contrasted: HfGeneration | None = None
    """How the model is asked with a contrast, where there is one."""
    against: AnySource | None = None
    """What the contrast looks at."""

    @property
    def label(self) -> str:
        return about_model(self.name, self.which, self.benchmark_name)

    @property
    def inputs(self) -> Mapping[str, Stage]:
        return {"adapter": self.trained} if self.trained else {}

    @property
    def asks_vllm(self) -> bool:
        return self.vllm is not None

    def prepare(self, machine: Machine) -> None:
        for generation in (self.vllm, self.contrasted):
            if generation:
                check_engine(generation, machine, self.model)

    def question_estimate(self) -> tuple[int, int] | None:
        if self.benchmark.lacking(self.root):
            return None
        bounds = [one.max_new_tokens for one in self.benchmark.questions(self.root)]
        return len(bounds), sum(bounds)

    @property
    def protocol(self) -> str:
        """The name that its scores bear."""
        return self.benchmark.protocol_name

    def scores(self, path: Path) -> list[Score]:
        found = self.makes(path).scores()  # the artifact may be another run's
        return [replace(s, benchmark=self.benchmark_name, model=self.which) for s in found]

    def spec(self) -> Json:
        return {
            "model": self.model.identity(self.digests),
            "benchmark": self.benchmark.identity(self.digests, self.root)
            | code_of(type(self.benchmark)),
            "protocol": self.protocol,
            **({"engine": self.vllm.kind} if self.vllm else {}),
            **self._contrast(),
        }

    def _contrast(self) -> Json:
        how = self.contrasted
        if how is None or how.contrast is None:
            return {}
        sampled = {"temperature": how.temperature, "noise": NOISE} if how.seeded else {}
        return {"contrast": how.contrast.identity() | sampled, **against(how, self.against)}

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        from seva_exp.benchmarks.evaluate import conclude

        Sharing(work).begin()
        job, start = (
            ProcessTask(self.share, self.label, work, inputs, together=False),
            time.monotonic(),
        )
        several = context.several() and not self.vllm
        done = launch(job, context) if several else [job.task(work, inputs, context)]
        seconds = time.monotonic() - start
        summary, found = conclude(
            self.benchmark, work, model=self.which, name=self.benchmark_name, root=self.root
        )
        write_jsonl(self.makes(work).scores_file, found)
        questions = sum(one["asked"] for one in done)
        return {**summary, "questions_per_second": round(questions / seconds, 1), **context.engine}

    def share(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        """One process's share: the questions on its share of the pictures."""
        from seva_exp.benchmarks.evaluate import ask
        from seva_exp.decoding.engine import Engine

        adapter = self.trained.makes(inputs["adapter"]).adapter if self.trained else None
        placement = context.placement(work, self.model, adapter)
        how = self.contrasted

        def engine() -> AnswerEngine:
            load = partial(context.model, self.model, adapter)
            if self.vllm:
                return engine_of(self.vllm, self.model, load, placement, View(CLEAN, None, 0))
            if how and how.contrast:
                clean = View(CLEAN, None, how.contrast.seed)
                other = view_against(how, self.against)
                return engine_of(how, self.model, load, placement, clean, other)
            return Engine(
                load(),
                placement.batch_size,
                tokens=placement.generation_tokens,
                neighbours=placement.neighbours,
                graphs=placement.cuda_graphs,
                warn=placement.warn,
            )

        sharing = Sharing(work, context.rank, context.ranks)
        questions = ask(self.benchmark, engine, placement, self.label, sharing, self.root)
        return {"asked": questions}


@dataclass(frozen=True)
class JudgeAnswers(Stage):
    """A judge's verdicts on one evaluation's answers: ``judgements.jsonl``, and
    ``predictions.jsonl`` and ``scores.jsonl`` as an evaluation's. The evaluation's key knows
    nothing of the judge: another one reads the same answers."""

    name: ClassVar[str] = "judge"
    version: ClassVar[int] = 2
    makes: ClassVar[type[JudgedArtifact]] = JudgedArtifact
    measures: ClassVar[bool] = True
    judges: ClassVar[bool] = True
    of: Evaluate
    judge: Judge

    @property
    def which(self) -> str:
        """The model, as the evaluation calls it."""
        return self.of.which

    @property
    def benchmark_name(self) -> str:
        """The evaluation's own."""
        return self.of.benchmark_name

    @property
    def benchmark(self) -> AnyBenchmark:
        """The evaluation's own."""
        return self.of.benchmark

    @property
    def root(self) -> Path | None:
        """The evaluation's own."""
        return self.of.root

    @property
    def label(self) -> str:
        return about_model(self.name, self.which, self.benchmark_name)

    @property
    def inputs(self) -> Mapping[str, Stage]:
        return {"of": self.of}

    @property
    def protocol(self) -> str:
        """The evaluation's, and who judges."""
        return self.benchmark.protocol_judged + self.judge.label(self.judging)

    @property
    def judging(self) -> Judging | None:
        """How the judge is asked; None while files are lacking."""
        lacking = self.benchmark.lacking(self.of.root)
        return None if lacking else self.benchmark.judging(self.of.root, self.judge.own_prompts)

    def scores(self, path: Path) -> list[Score]:
        return self.of.scores(path)

    def prepare(self, machine: Machine) -> None:
        assert self.judging
        self.judge.prepare(machine.judge, self.judging)

    def spec(self) -> Json:
        return {"judge": self.judge.identity(self.judging), "protocol": self.protocol}

    def bench(self, store: Path) -> Bench:
        """The benchmark with its judge; replies are kept in ``store``."""
        assert self.judging
        return Bench(self.benchmark, self.judging, self.judge, Replies(store))

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        found = list(self.of.makes(inputs["of"]).predictions())
        bench = self.bench(context.machine.store_root())
        cases = bench.cases(list(self.benchmark.questions(self.of.root)), found)
        server = context.machine.judge
        judgements, summary = judge_all(
            bench, cases, server, context.progress, context.warn, self.label
        )
        write_jsonl(self.makes(work).judgements_file, judgements)
        write_jsonl(self.makes(work).file, settled(found, judgements))
        names = {
            "model": self.which, "benchmark": self.benchmark_name, "protocol": self.protocol,
        }  # fmt: skip
        scores = judged_scores(self.benchmark, found, judgements, names)
        write_jsonl(self.makes(work).scores_file, scores)
        if summary["unjudged"]:
            context.warn(
                f"{self.label}: {summary['unjudged']} of {summary['judgements']} judgements could "
                f"not be had (reported as unjudged); force=[{self.label}] asks for them again"
            )
        return summary

    def judge_estimate(self, store: Store, renewed: Collection[str] = ()) -> Estimate | None:
        if not (self.judge.model and self.judging):
            return None
        path = store.path(self.of.name, self.of.key)
        name, key = self.of.name, self.of.key
        there = key not in renewed and store.whole(name, key)
        found = list(self.of.makes(path).predictions()) if there else None
        questions = list(self.benchmark.questions(self.of.root))
        return estimate(self.bench(store.root), questions, found)


@dataclass(frozen=True)
class Compare(Stage):
    """A trained model - base of every metric of one benchmark: ``deltas.jsonl``."""

    name: ClassVar[str] = "compare"
    version: ClassVar[int] = 2
    makes: ClassVar[type[DeltaArtifact]] = DeltaArtifact
    measures: ClassVar[bool] = True
    base: Evaluate | JudgeAnswers
    after: Evaluate | JudgeAnswers
    final: bool = True
    """Whether ``after`` is the run's final model: its comparison is just called by the
    benchmark."""

    @property
    def label(self) -> str:
        which = "" if self.final else f"{self.after.which}."
        return f"compare.{which}{self.base.benchmark_name}"

    @property
    def inputs(self) -> Mapping[str, Stage]:
        return {"base": self.base, "after": self.after}

    def deltas(self, path: Path) -> list[Delta]:
        name, found = self.base.benchmark_name, self.makes(path).deltas()
        named = (replace(delta, benchmark=name, model=self.after.which) for delta in found)
        return priced(named, self.base.benchmark.guards)

    def answered(self, path_of: Callable[[Stage], Path]) -> Answered | None:
        base, after = self.base, self.after

        def pictures(wanted: Collection[str]) -> Iterator[tuple[str, Callable[[], Image]]]:
            for question in base.benchmark.questions(base.root):
                if question.id in wanted and question.load:
                    yield question.id, question.load

        before, now = (stage.makes(path_of(stage)).file for stage in (base, after))
        found = Answered(base.benchmark_name, base.protocol, before, now, pictures)
        return found if self.final else None

    def spec(self) -> Json:
        return {"protocol": self.base.protocol}

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        before = list(self.base.makes(inputs["base"]).predictions())
        after = list(self.after.makes(inputs["after"]).predictions())
        found = paired(self.base.benchmark, self.base.benchmark_name, before, after)
        write_jsonl(self.makes(work).file, found)
        return {"metrics": len(found)}


def paired(
    benchmark: AnyBenchmark, name: str, before: list[Prediction], after: list[Prediction]
) -> list[Delta]:
    """after - before of every metric, with its price, for answers to the same questions of
    ``benchmark``, which a run calls ``name``; empty where no question has a score in both."""
    from seva_exp.benchmarks.statistics import deltas

    kept = scored_in_both(before, after)
    if not kept[0]:
        return []
    return priced(deltas(benchmark.metrics, *kept, benchmark=name), benchmark.guards)


def scored_in_both(
    before: list[Prediction], after: list[Prediction]
) -> tuple[list[Prediction], list[Prediction]]:
    """Without the questions that a judge has left open for one of the models: the others are
    compared in pairs."""
    left_open = {one.sample_id for one in (*before, *after) if one.score is None}
    kept = [[one for one in some if one.sample_id not in left_open] for some in (before, after)]
    return kept[0], kept[1]
