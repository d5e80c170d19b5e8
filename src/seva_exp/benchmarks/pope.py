"""POPE (Li et al. 2023, arXiv:2305.10355): is this object in the picture?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

from seva_exp.benchmarks.base import Metric, Totals, Values, accuracy, ratio
from seva_exp.benchmarks.files import BenchmarkFiles, columns
from seva_exp.benchmarks.guards import Guards
from seva_exp.benchmarks.official import UNPARSED, Item, Official, Rule, Scored
from seva_exp.benchmarks.yes_no import exact, first_sentence, one_of_both
from seva_exp.core.spec import Json

SPLITS = ("random", "popular", "adversarial")


def scored(
    read: Callable[[str], str],
    text: str,
    target: str,
    details: Json,
    *,
    unread_is_no: bool = True,
) -> Scored:
    """The counts of which all of POPE's metrics are made. An answer that is neither yes nor no is
    wrong and no false alarm; it misses a yes where ``unread_is_no``, else recall leaves it out."""
    answer = read(text)
    denied = answer != "yes" if unread_is_no else answer == "no"
    counts = {
        "asked": 1.0,
        "correct": float(answer == target),
        "yes": float(answer == "yes"),
        "tp": float(answer == target == "yes"),
        "fp": float(answer == "yes" and target == "no"),
        "fn": float(denied and target == "yes"),
        "unparsed": float(not answer),
    }
    return Scored(answer, counts["correct"], counts)


def precision(sums: Totals) -> Values:
    """Right among the answers yes."""
    return 100 * sums("tp") / (sums("tp") + sums("fp"))


def recall(sums: Totals) -> Values:
    """Found among what is there."""
    return 100 * sums("tp") / (sums("tp") + sums("fn"))


def f1(sums: Totals) -> Values:
    """Of the class yes: the harmonic mean of precision and recall."""
    return 100 * 2 * sums("tp") / (2 * sums("tp") + sums("fp") + sums("fn"))


class _Pope(Official):
    """Three splits of questions; a picture's questions are resampled together. ``layout`` ends with
    the pictures."""

    rules: ClassVar[Mapping[str, Rule]] = {
        "first_sentence": partial(scored, first_sentence),
        "exact": partial(scored, exact, unread_is_no=False),
        "one_of_both": partial(scored, one_of_both),
    }
    guards: ClassVar[Guards] = {
        "precision": ("recall", "unparsed"),
        "recall": ("precision", "unparsed"),
    }

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        pictures = source.folder(self.layout[-1])
        for split, file in zip(SPLITS, self.layout, strict=False):
            for row in source.rows(file):
                image = row.picture("image")
                yield Item(
                    row,
                    id=f"{split}-{row.text('question_id')}",
                    group=image,
                    type=split,
                    texts={"question": row.text("text")},
                    target=row.one_of("label", ("yes", "no")),
                    picture=pictures.picture(row, image),
                )

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for row in source.table(self.tables):
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
        """All splits together, then each: ``mean`` is the mean over the splits that papers report,
        ``all`` (a ``pooled`` protocol) takes their answers as one set."""
        splits = [split for split in SPLITS if split in types]
        each: tuple[tuple[str, ...], ...] = tuple((split,) for split in splits)
        name = "all" if self.rules_of_protocol.pooled else "mean"
        parts = (tuple(splits),) if self.rules_of_protocol.pooled else each
        found = rates(name, parts)
        if not self.rules_of_protocol.pooled:
            found = [rate for rate in found if rate.name in ("accuracy", "f1")]
        for split, part in zip(splits, each, strict=True):
            found += rates(split, (part,))
        return [*found, Metric(name, "unparsed", UNPARSED, parts, "lower")]


def _files(name: str) -> tuple[tuple[str, ...], ...]:
    """Where the three files of questions on another data set lie: under the official names (a
    JSON list each), or under VCD's (an object a line)."""
    return tuple(
        tuple(
            f"{folder}{name}_pope_{word}{split}.json"
            for folder in ("pope/", f"pope/{name}/", f"pope/seem/{name}/")
            for word in ("seem_", "")
        )
        for split in SPLITS
    )


class PopeBenchmark(_Pope):
    """POPE on the annotated objects of COCO val2014."""

    layout = (
        *(
            (f"pope/coco_pope_{split}.json", f"pope/coco/coco_pope_{split}.json")
            for split in SPLITS
        ),
        ("coco/val2014", "pope/val2014"),
    )
    tables = ("pope/POPE.tsv", "POPE.tsv")
    source = "github.com/RUCAIBox/POPE, output/coco (LLaVA-1.5: commit e3e3926); COCO val2014"

    kind: Literal["pope"] = "pope"


class PopeAokvqaBenchmark(_Pope):
    """POPE on A-OKVQA's pictures (of COCO val2014), objects by the segmentation model SEEM."""

    layout = (*_files("aokvqa"), ("coco/val2014", "pope/val2014"))
    source = "github.com/RUCAIBox/POPE, output/seem/aokvqa; COCO val2014"

    kind: Literal["pope_aokvqa"] = "pope_aokvqa"


class PopeGqaBenchmark(_Pope):
    """POPE on GQA's pictures, objects by the segmentation model SEEM."""

    layout = (*_files("gqa"), ("gqa/images", "pope/gqa/images"))
    source = "github.com/RUCAIBox/POPE, output/seem/gqa; GQA's pictures (images.zip)"

    kind: Literal["pope_gqa"] = "pope_gqa"


def rates(split: str, parts: tuple[tuple[str, ...], ...]) -> list[Metric]:
    """Accuracy, precision, recall, F1 and the share of yes. Precision, recall and F1 are 0 where
    their denominator is (nothing is answered yes, or nothing is there)."""
    return [
        Metric(split, "accuracy", accuracy, parts),
        *(
            Metric(split, name, formula, parts, empty=0.0)
            for name, formula in (("precision", precision), ("recall", recall), ("f1", f1))
        ),
        Metric(split, "yes_rate", ratio("yes"), parts, "neutral"),
    ]
