"""POPE (Li et al. 2023, arXiv:2305.10355): is this object in the picture?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from seva_exp.benchmarks.base import Metric, Totals, accuracy, ratio
from seva_exp.benchmarks.official import UNPARSED, Item, Official, Rule, Scored
from seva_exp.benchmarks.shelf import Shelf, columns
from seva_exp.benchmarks.yes_no import exact, first_sentence, one_of_both
from seva_exp.spec import Json

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("random", "popular", "adversarial")


def scored(read: Callable[[str], str], text: str, target: str, details: Json) -> Scored:
    """The counts of which all of POPE's metrics are made. An answer that is neither yes nor no
    misses a yes, and is no false alarm."""
    said = read(text)
    counts = {
        "asked": 1.0,
        "correct": float(said == target),
        "yes": float(said == "yes"),
        "tp": float(said == target == "yes"),
        "fp": float(said == "yes" and target == "no"),
        "fn": float(said != "yes" and target == "yes"),
        "unparsed": float(not said),
    }
    return Scored(said, counts["correct"], counts)


def precision(sums: Totals) -> np.ndarray:
    """Right among the answers yes."""
    return 100 * sums("tp") / (sums("tp") + sums("fp"))


def recall(sums: Totals) -> np.ndarray:
    """Found among what is there."""
    return 100 * sums("tp") / (sums("tp") + sums("fn"))


def f1(sums: Totals) -> np.ndarray:
    """Of the class yes: the harmonic mean of precision and recall."""
    return 100 * 2 * sums("tp") / (2 * sums("tp") + sums("fp") + sums("fn"))


class PopeBenchmark(Official):
    """Three splits of questions on pictures of COCO val2014; a picture's questions are resampled
    together."""

    layout = (
        *(
            (f"pope/coco_pope_{split}.json", f"pope/coco/coco_pope_{split}.json")
            for split in SPLITS
        ),
        ("coco/val2014", "pope/val2014"),
    )
    tables = ("pope/POPE.tsv", "POPE.tsv")
    source = "github.com/RUCAIBox/POPE, output/coco (LLaVA-1.5: commit e3e3926); COCO val2014"
    rules: ClassVar[Mapping[str, Rule]] = {
        "first_sentence": partial(scored, first_sentence),
        "exact": partial(scored, exact),
        "one_of_both": partial(scored, one_of_both),
    }

    kind: Literal["pope"] = "pope"

    def official_items(self, shelf: Shelf) -> Iterator[Item]:
        pictures = shelf.folder(self.layout[-1])
        for split, file in zip(SPLITS, self.layout, strict=False):
            for row in shelf.lines(file):
                image = row.text("image")
                yield Item(
                    row,
                    id=f"{split}-{row.text('question_id')}",
                    group=image,
                    type=split,
                    texts={"question": row.text("text")},
                    target=row.one_of("label", ("yes", "no")),
                    picture=pictures.picture(row, image),
                )

    def table_items(self, shelf: Shelf) -> Iterator[Item]:
        for row in shelf.table(self.tables):
            columns(row, ("index", "image", "question", "answer", "category"))
            for split in row.text("category").split(","):
                if split.strip() not in SPLITS:
                    row.refuse(f"column 'category': {split!r} is none of {', '.join(SPLITS)}")
                yield Item(
                    row,
                    id=f"{split.strip()}-{row.text('index')}",
                    group=row.shown.sha256,
                    type=split.strip(),
                    texts={"question": row.text("question")},
                    target=row.one_of("answer", ("yes", "no", "Yes", "No")).lower(),
                    picture=row.shown,
                )

    def table_row(self, item: Item) -> Json:
        """A row a split: VLMEvalKit tells rows by their index and writes Yes and No."""
        own = {"index": item.id, "answer": item.target.capitalize(), "category": item.type}
        return super().table_row(item) | own

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """The means over the splits that papers report, then each split."""
        splits = [split for split in SPLITS if split in types]
        each = tuple((split,) for split in splits)
        means = [Metric("mean", "accuracy", accuracy, each), Metric("mean", "f1", f1, each)]
        yes = ratio("yes")
        return [
            *means,
            *(
                metric
                for split, part in zip(splits, each, strict=True)
                for metric in (
                    Metric(split, "accuracy", accuracy, (part,)),
                    Metric(split, "precision", precision, (part,)),
                    Metric(split, "recall", recall, (part,)),
                    Metric(split, "f1", f1, (part,)),
                    Metric(split, "yes_rate", yes, (part,), "neutral"),
                )
            ),
            Metric("mean", "unparsed", UNPARSED, each, "lower"),
        ]
