"""Rejected answers that the model makes of the clean ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from seva_exp.augment import AnyRewrite, AnySource
from seva_exp.core.records import Answer, Sample, from_json, write_jsonl
from seva_exp.core.spec import Json
from seva_exp.inputs.views import View
from seva_exp.models import AnyModel
from seva_exp.stages.base import Inputs, Stage, StageContext, Trained
from seva_exp.stages.per_sample import PerSample, Work
from seva_exp.stages.preferences import Rejected
from seva_exp.training.spec import Fast


@dataclass(frozen=True)
class Rewritten(PerSample, Rejected):
    """The clean answers, rewritten by the model as the round begins: ``answers.jsonl``, one a
    sample, whose ``stop`` says why where there is none."""

    name: ClassVar[str] = "rewritten"
    version: ClassVar[int] = 1
    source: AnyRewrite  # type: ignore[assignment]  # what rewrites is no text source
    model: AnyModel | None = None
    adapter: Trained | None = None
    fast: Fast = "auto"

    @property
    def augmentation(self) -> AnySource | None:
        return self.source.shown

    @property
    def inputs(self) -> Mapping[str, Stage]:
        before = {"adapter": self.adapter} if self.adapter else {}
        return {**super().inputs, **before}

    def spec(self) -> Json:
        assert self.model
        return {**super().spec(), "model": self.model.identity(self.clean.samples.digests)}

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        return PerSample.run(self, work, inputs, context)

    def todo(self, inputs: Inputs) -> Iterator[tuple[str, Any]]:
        for sample, clean in self._samples(inputs):
            assert clean and clean.sample_id == sample.id, "answers stand in the samples' order"
            yield sample.id, (sample, clean)

    @contextmanager
    def working(
        self, work: Path, inputs: Inputs, context: StageContext, left: Sequence[Any]
    ) -> Iterator[Work]:
        from seva_exp.preferences.rewriting import Bench, rewriter_of

        assert self.model
        adapter = self.adapter.makes(inputs["adapter"]).adapter if self.adapter else None
        samples, clean = self.clean.samples, self.clean.makes(inputs["clean"])
        shown = self.source.shown
        bench = Bench(
            context.model(self.model, adapter),
            samples.data.image_root(inputs["samples"]),
            context.placement(work),
            self.view,
            self.seed,
            View(self.view, shown, self.seed) if shown else None,
            clean.answers,
            self.fast,
        )
        with rewriter_of(self.source, bench) as rewrite:

            def make(some: Sequence[tuple[Sample, Answer]]) -> list[Json]:
                return [asdict(answer) for answer in rewrite(some)]

            yield make

    def gathered(
        self, work: Path, pieces: Sequence[Any], rows: Sequence[Mapping[str, Any]]
    ) -> Json:
        answers = [from_json(Answer, dict(row)) for row in rows]
        write_jsonl(self.makes(work).file, answers)
        unmade = Counter(one.stop for one in answers if not (one.text or one.tokens))
        return {"answers": len(answers) - unmade.total(), "samples": len(answers), **unmade}
