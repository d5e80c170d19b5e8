"""The one number that a search makes better (``objective=NAME``), read from a finished run.

``benchmark/NAME/SPLIT/METRIC/{base,aligned,delta}`` is a score; so is, with ``explain=words``,
``benchmark/NAME/words/on_picture/delta``, and what else the words rest on (SPLIT ``words``). The
others cost no training, and
ask how hard the negatives are:

* ``pairs/kept_share``: pairs that are left over the samples;
* ``reference/margin``: log pi_ref(chosen) - log pi_ref(rejected), the mean over pairs; near 0 the
  model itself hardly tells the two apart;
* ``negatives/hardness``: the mean over *samples* of sigma(-margin), the probability that the
  reference prefers the rejected answer (Bradley-Terry); 0 for a sample without a pair. Too weak a
  view leaves no pairs, too strong a one leaves pairs that teach nothing new: both score low.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator

from seva_exp.core.errors import InputError, StageError, suggest
from seva_exp.core.records import ALIGNED, BASE
from seva_exp.experiment import Experiment
from seva_exp.grounding.metrics import METRICS
from seva_exp.runs.reader import FinishedRun
from seva_exp.stages import STAGES, Reference
from seva_exp.stages.labels import kind_of

WHICH = (BASE, ALIGNED, "delta")


def check_objective(name: str, experiment: Experiment, stop_after: str | None = None) -> None:
    """Raises InputError for what no run of ``experiment`` can give, or none that stops there, and
    for a score on questions that are kept for the report of what was chosen."""
    group, *rest = name.split("/")
    if group != "benchmark":
        if name not in CHEAP:
            known = [*CHEAP, "benchmark/NAME/SPLIT/METRIC/delta"]
            raise InputError(f"objective={name}: no such number.{suggest(name, known)}")
        return
    if len(rest) != 4 or rest[3] not in WHICH:
        raise InputError(
            f"objective={name}: a score is benchmark/NAME/SPLIT/METRIC/WHICH, with WHICH one of: "
            f"{', '.join(WHICH)}."
        )
    benchmark = experiment.benchmark.get(rest[0])
    if benchmark is None:
        raise InputError(
            f"objective={name}: no benchmark {rest[0]} in the config."
            f"{suggest(rest[0], experiment.benchmark)}"
        )
    metrics = {f"{metric.split}/{metric.name}" for metric in benchmark.metrics()}
    explained = {f"{metric.split}/{metric.name}" for metric in METRICS}
    if f"{rest[1]}/{rest[2]}" in explained and experiment.explain is None:
        raise InputError(f"objective={name}: nothing is explained. Add explain=words.")
    metrics |= explained if metrics and experiment.explain else set()
    if metrics and f"{rest[1]}/{rest[2]}" not in metrics:
        raise InputError(
            f"objective={name}: {rest[0]} has no metric {rest[1]}/{rest[2]}."
            f"{suggest(f'{rest[1]}/{rest[2]}', metrics)}"
        )
    last = STAGES.get(kind_of(stop_after)) if stop_after else None
    if stop_after and not (last and last.measures):
        raise InputError(
            f"objective={name}: nothing is measured with stop_after={stop_after}. "
            "Set stop_after=null."
        )
    if benchmark.split != "selection":
        raise InputError(
            f"objective={name}: what is chosen by a score must not be reported on the same "
            "questions. Set benchmark.split=selection, and report with benchmark.split=test."
        )


def value_of(name: str, run: FinishedRun) -> float:
    """The objective of a finished run. Raises StageError where the run has no such number."""
    if name in CHEAP:
        return CHEAP[name](run)
    _, benchmark, split, metric, which = name.split("/")
    rows = run.report.final_deltas if which == "delta" else run.report.scores
    for row in rows:
        same = (row.benchmark, row.split, row.metric) == (benchmark, split, metric)
        if same and (which == "delta" or row.model == which):
            return row.value
    raise StageError(f"objective={name}: this run measured no such thing (stop_after, no pairs?).")


def _kept_share(run: FinishedRun) -> float:
    if run.report.pairs is None:
        raise StageError("objective=pairs/kept_share: this run made no pairs.")
    return run.report.pairs.kept / max(1, run.report.pairs.sampled)


def _margin(run: FinishedRun) -> float:
    margins = list(_margins(run))
    if not margins:
        raise StageError("objective=reference/margin: no pair is left to take a margin of.")
    return statistics.fmean(margins)


def _hardness(run: FinishedRun) -> float:
    """sigma(-m) summed over pairs, by samples."""
    if run.report.pairs is None:
        raise StageError("objective=negatives/hardness: this run made no pairs.")
    hard = math.fsum(0.5 * (1 - math.tanh(m / 2)) for m in _margins(run))
    return hard / max(1, run.report.pairs.sampled)


def _margins(run: FinishedRun) -> Iterator[float]:
    """Pair by pair, over its rejected answers; none where no pair was left to score."""
    pairs = run.report.pairs
    if pairs and pairs.kept and not run.stages(Reference.name):
        raise StageError("objective: the stage 'reference' was not done; stop_after=reference.")
    return run.margins()


CHEAP: dict[str, Callable[[FinishedRun], float]] = {
    "pairs/kept_share": _kept_share,
    "reference/margin": _margin,
    "negatives/hardness": _hardness,
}
"""The objectives that need no training."""
