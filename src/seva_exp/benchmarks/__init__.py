"""Benchmarks: questions with known answers, scoring rules, and statistics. A new one adds its line
to the union."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from seva_exp.benchmarks.amber import AmberBenchmark
from seva_exp.benchmarks.chair import ChairBenchmark
from seva_exp.benchmarks.chartqa import ChartqaBenchmark
from seva_exp.benchmarks.cv_bench import CvBenchBenchmark
from seva_exp.benchmarks.describe import DescribeAndRespond, Mode
from seva_exp.benchmarks.gqa import GqaBenchmark
from seva_exp.benchmarks.hallusionbench import HallusionbenchBenchmark
from seva_exp.benchmarks.judging import Judge
from seva_exp.benchmarks.llava_bench import LlavaBenchBenchmark
from seva_exp.benchmarks.mathvista import MathvistaBenchmark
from seva_exp.benchmarks.mmbench import MmbenchCnBenchmark, MmbenchEnBenchmark
from seva_exp.benchmarks.mme import MmeBenchmark
from seva_exp.benchmarks.mmhal import MmhalBenchmark
from seva_exp.benchmarks.mmstar import MmstarBenchmark
from seva_exp.benchmarks.mmvet import MmvetBenchmark
from seva_exp.benchmarks.mmvp import MmvpBenchmark
from seva_exp.benchmarks.naturalbench import NaturalbenchBenchmark
from seva_exp.benchmarks.object_halbench import ObjectHalbenchBenchmark
from seva_exp.benchmarks.official import Official
from seva_exp.benchmarks.pope import PopeAokvqaBenchmark, PopeBenchmark, PopeGqaBenchmark
from seva_exp.benchmarks.questions import QuestionsBenchmark
from seva_exp.benchmarks.scienceqa import ScienceqaBenchmark
from seva_exp.benchmarks.seed import SeedBenchmark
from seva_exp.benchmarks.shapes import ShapesBenchmark
from seva_exp.benchmarks.shr import ShrBenchmark
from seva_exp.benchmarks.textvqa import TextvqaBenchmark
from seva_exp.core.spec import BY_KIND, Spec, by_kind, one_of

_Union = (
    AmberBenchmark
    | ChairBenchmark
    | ChartqaBenchmark
    | CvBenchBenchmark
    | GqaBenchmark
    | HallusionbenchBenchmark
    | LlavaBenchBenchmark
    | MathvistaBenchmark
    | MmbenchCnBenchmark
    | MmbenchEnBenchmark
    | MmeBenchmark
    | MmhalBenchmark
    | MmstarBenchmark
    | MmvetBenchmark
    | MmvpBenchmark
    | NaturalbenchBenchmark
    | ObjectHalbenchBenchmark
    | PopeAokvqaBenchmark
    | PopeBenchmark
    | PopeGqaBenchmark
    | QuestionsBenchmark
    | ScienceqaBenchmark
    | SeedBenchmark
    | ShapesBenchmark
    | ShrBenchmark
    | TextvqaBenchmark
)

BENCHMARKS: dict[str, type[Spec]] = by_kind(_Union)
"""kind -> class."""
if TYPE_CHECKING:
    AnyBenchmark = Annotated[_Union, BY_KIND]
else:
    AnyBenchmark = one_of(BENCHMARKS)
"""The field type of a config that holds a benchmark."""
OFFICIAL: dict[str, type[Official]] = {
    kind: cls for kind, cls in BENCHMARKS.items() if issubclass(cls, Official)
}
"""Those that read files below the data root."""
