"""What lies behind a comparison's numbers, read once from the runs' folders: what became of the
samples, training curves, the same samples across views, answers that changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seva_exp.compare.changed import changed
from seva_exp.compare.comparison import Comparison
from seva_exp.compare.differences import in_words
from seva_exp.compare.samples import same_samples
from seva_exp.compare.training import training
from seva_exp.core.records import BASE, PairCounts
from seva_exp.core.spec import Json


@dataclass(frozen=True)
class SharedPairs:
    """Pairs and drops of the samples of ``runs`` runs that share their pairs."""

    label: str
    runs: int
    counts: PairCounts


@dataclass(frozen=True)
class Evidence:
    """``reports`` are the report pages of the comparison's models, where they have one;
    ``training``, ``samples`` and ``changed`` are as their modules make them."""

    reports: list[Path | None]
    pairs: list[SharedPairs]
    training: Json
    samples: list[Json]
    changed: list[Json]

    @classmethod
    def of(cls, c: Comparison) -> Evidence:
        """Of all runs of a comparison."""
        return cls(reports(c), shared_pairs(c), training(c.models), same_samples(c), changed(c))


def reports(c: Comparison) -> list[Path | None]:
    """Of each final model its run's page; a base has none."""
    pages = [None if one.model == BASE else one.run.folder / "report.html" for one in c.models]
    return [page if page and page.exists() else None for page in pages]


def shared_pairs(c: Comparison) -> list[SharedPairs]:
    """Runs that learnt from the same pairs stand together."""
    found: dict[str, list[int]] = {}
    for i in c.finals:
        stage = c.models[i].run.pairs_stage
        if stage and c.models[i].run.report.pairs:
            found.setdefault(stage.key, []).append(i)
    out = []
    for ids in found.values():
        first = c.models[ids[0]].run
        assert first.report.pairs is not None
        label = in_words(c.shared_fields(ids)) or first.name
        out.append(SharedPairs(label, len(ids), first.report.pairs))
    return out
