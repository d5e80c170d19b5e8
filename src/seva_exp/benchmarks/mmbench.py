"""MMBench (Liu et al. 2023, arXiv:2307.06281), dev, English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from seva_exp.benchmarks.base import Metric, Totals, Values, accuracy
from seva_exp.benchmarks.choices import TABLE_COLUMNS, Choices
from seva_exp.benchmarks.files import BenchmarkFiles, columns
from seva_exp.benchmarks.official import UNPARSED, Item

ROTATION = 1_000_000
"""Rows whose ``index`` differs by multiples of this are rotations of one question's options."""


def circular(sums: Totals) -> Values:
    """Questions of which every rotation was answered right."""
    return 100 * sums.whole("correct") / sums.groups()


class _Mmbench(Choices):
    """The official file is a table. A group is a question with its rotations."""

    source = "opencompass.openxlab.space/utils/VLMEval, or MMBench's own release"

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for row in source.table(self.tables):
            columns(row, TABLE_COLUMNS)
            index = row.text("index")
            number = int(index) if re.fullmatch(r"[0-9]{1,18}", index) else None
            yield self.choice(
                row,
                id=index,
                group=index if number is None else f"{number % ROTATION:06d}",
                type=row.maybe("l2-category") or row.maybe("category") or "all",
                hint=row.maybe("hint"),
                options=self.table_options(row),
                answer=row.text("answer").strip(),
                picture=row.shown,
            )

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """Questions (circular) or rows that are right: all, and by category (level 2)."""
        every = tuple(types)
        formula = circular if self.rules_of_protocol.circular else accuracy
        unit: Literal["group", "answer"] = "group" if self.rules_of_protocol.circular else "answer"
        parts = [("all", every), *((type_, (type_,)) for type_ in types if len(types) > 1)]
        return [
            *(Metric(name, "accuracy", formula, (part,), unit=unit) for name, part in parts),
            Metric("all", "unparsed", UNPARSED, (every,), "lower"),
        ]


class MmbenchEnBenchmark(_Mmbench):
    """MMBench dev in English."""

    tables = (
        "mmbench_en/mmbench_dev_20230712.tsv", "mmbench/mmbench_dev_20230712.tsv",
        "mmbench_en/MMBench_DEV_EN.tsv", "MMBench_DEV_EN.tsv",
    )  # fmt: skip
    kind: Literal["mmbench_en"] = "mmbench_en"


class MmbenchCnBenchmark(_Mmbench):
    """MMBench dev in Chinese."""

    tables = (
        "mmbench_cn/mmbench_dev_cn_20231003.tsv", "mmbench/mmbench_dev_cn_20231003.tsv",
        "mmbench_cn/MMBench_DEV_CN.tsv", "MMBench_DEV_CN.tsv",
    )  # fmt: skip
    kind: Literal["mmbench_cn"] = "mmbench_cn"
