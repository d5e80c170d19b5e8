"""ChartQA (Masry et al. 2022, arXiv:2203.10244), test: questions on charts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from seva_exp.benchmarks.files import BenchmarkFiles, columns
from seva_exp.benchmarks.official import Item, Official, Rule, Scored, right_or_wrong
from seva_exp.core.spec import Json

TOLERANCE = 0.05
TYPES = ("human", "augmented")


def relaxed(text: str, target: str, details: Json) -> Scored:
    """Relaxed accuracy: numbers ("12 %" is 0.12) may be 5 % off, what is no number must be equal
    but for case. A target of 0 is compared as text, and so is "$1,200": neither is a number
    there."""
    answer = text.strip()
    found, wanted = number(answer), number(target)
    if found is not None and wanted:
        return right_or_wrong(answer, abs(found - wanted) / abs(wanted) <= TOLERANCE)
    return right_or_wrong(answer, answer.lower() == target.lower())


def number(text: str) -> float | None:
    """The number that a text is; a percentage as its hundredth."""
    percent = text.endswith("%")
    try:
        value = float(text.rstrip("%")) / (100 if percent else 1)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class ChartqaBenchmark(Official):
    """Questions by people (human) and made by a model (augmented)."""

    layout = (
        *((f"chartqa/test/test_{type_}.json",) for type_ in TYPES),
        ("chartqa/test/png",),
    )
    tables = ("chartqa/ChartQA_TEST.tsv", "ChartQA_TEST.tsv")
    source = "github.com/vis-nlp/ChartQA, ChartQA Dataset/test"
    rules: ClassVar[Mapping[str, Rule]] = {"relaxed": relaxed}

    kind: Literal["chartqa"] = "chartqa"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        pictures = source.folder(self.layout[-1])
        for type_, file in zip(TYPES, self.layout, strict=False):
            for number_, row in enumerate(source.list(file), 1):
                image = row.text("imgname")
                yield Item(
                    row,
                    id=f"{type_}-{number_}",
                    group=image,
                    type=type_,
                    texts={"question": row.text("query")},
                    target=row.text("label"),
                    picture=pictures.picture(row, image),
                )

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for row in source.table(self.tables):
            columns(row, ("index", "image", "question", "answer", "split"))
            (target,) = row.texts("answer")[:1] or row.refuse("column 'answer': is empty")
            yield Item(
                row,
                id=row.text("index"),
                group=row.shown.sha256,
                type=row.one_of("split", [f"test_{x}" for x in TYPES]).removeprefix("test_"),
                texts={"question": row.text("question")},
                target=target,
                picture=row.shown,
            )

    def table_row(self, item: Item) -> Json:
        """VLMEvalKit tells people's questions from made ones by their split."""
        return {"split": f"test_{item.type}", **super().table_row(item)}
