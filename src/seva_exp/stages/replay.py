"""Pairs of earlier rounds, once more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from pathlib import Path
from typing import ClassVar

from seva_exp.augment import AnySource
from seva_exp.core.randomness import seed_for
from seva_exp.core.records import Drop, Pair, jsonl_writer, read_jsonl, write_jsonl
from seva_exp.core.spec import Json
from seva_exp.stages.base import Inputs, Stage, StageContext
from seva_exp.stages.pairs import Pairs


@dataclass(frozen=True)
class ReplayedPairs(Pairs):
    """The pairs of a round (``new``), and behind them a ``share`` of those of each ``earlier`` one,
    drawn anew in each round: ``pairs.jsonl`` and ``drops.jsonl``. No sample is in two rounds. An
    earlier pair is as it was, with what the model of its round said."""

    name: ClassVar[str] = "replayed_pairs"
    version: ClassVar[int] = 1
    by_scores: ClassVar[bool] = True
    new: Pairs | None = None
    earlier: Sequence[Pairs] = field(default=())
    share: float = 0.0

    @classmethod
    def of(cls, new: Pairs, earlier: Sequence[Pairs], share: float) -> ReplayedPairs:
        """With the label that ``new`` had."""
        given = (new.samples, new.clean, new.negatives, new.filters, new.newlines, new.seed)
        own = replace(new, suffix=f".new{new.suffix}")
        return cls(*given, new.suffix, new=own, earlier=tuple(earlier), share=share)

    @property
    def _rounds(self) -> tuple[Pairs, ...]:
        assert self.new
        return (self.new, *self.earlier)

    @property
    def most_rejected(self) -> int:
        return max(one.most_rejected for one in self._rounds)

    @property
    def shown(self) -> Mapping[str, AnySource]:
        return {name: view for one in self._rounds for name, view in one.shown.items()}

    @property
    def every_view(self) -> bool:
        return any(one.every_view for one in self._rounds)

    @property
    def inputs(self) -> Mapping[str, Stage]:
        assert self.new
        return {"new": self.new, **{f"earlier.{n}": one for n, one in enumerate(self.earlier, 1)}}

    def spec(self) -> Json:
        return {"share": self.share, "seed": self.seed}

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        assert self.new
        made = self.new.makes(inputs["new"])
        drops = list(read_jsonl(made.drops_file, Drop))
        write_jsonl(self.makes(work).drops_file, drops)
        views: Counter[str] = Counter()
        new = old = 0
        with jsonl_writer(self.makes(work).file) as write:
            for pair in made.pairs():
                new += 1
                views.update(pair.views)
                write(pair)
            for pair in self._replayed(inputs):
                old += 1
                views.update(pair.views)
                write(pair)
        return {
            "sampled": new + old + len(drops),
            "kept": new + old,
            "replayed": old,
            "dropped": dict(Counter(drop.reason for drop in drops)),
            "kept_by_view": dict(sorted(views.items())),
        }

    def _replayed(self, inputs: Inputs) -> Iterator[Pair]:
        """Of each earlier round's n pairs the round(share n) that come first by the run's seed."""
        purpose = f"replay/{len(self.earlier)}"
        for number, stage in enumerate(self.earlier, 1):
            made = stage.makes(inputs[f"earlier.{number}"])
            ids = [pair.sample_id for pair in made.pairs()]
            drawn = nsmallest(
                round(self.share * len(ids)), ids, lambda id: seed_for(self.seed, purpose, id)
            )
            kept = set(drawn)
            yield from (pair for pair in made.pairs() if pair.sample_id in kept)
