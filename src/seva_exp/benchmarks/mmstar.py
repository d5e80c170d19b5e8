"""MMStar (Chen et al. 2024, arXiv:2403.20330): questions that cannot be answered without their
picture, 250 in each of six categories."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

from seva_exp.benchmarks.base import Metric, accuracy
from seva_exp.benchmarks.choices import RULES, Choices, scored
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, columns
from seva_exp.benchmarks.letters import leading_letter
from seva_exp.benchmarks.official import UNPARSED, Item, Rule

_OPTIONS = re.compile(r"\n?\s*Options:\s*(?=A[:.])", re.IGNORECASE)
_OPTION = re.compile(r"(?:^|,\s*|\n\s*)([A-H])[:.]\s*")
BETWEEN = "/"


class MmstarBenchmark(Choices):
    """Accuracy of all, by category, and by what it consists of."""

    tables = ("mmstar/MMStar.tsv", "MMStar.tsv")
    source = "opencompass.openxlab.space/utils/VLMEval, or huggingface.co/datasets/Lin-Chen/MMStar"
    rules: ClassVar[Mapping[str, Rule]] = {
        **RULES,
        "leading_letter": partial(scored, leading_letter),
    }

    kind: Literal["mmstar"] = "mmstar"

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for row in source.table(self.tables):
            columns(row, ("index", "image", "question", "answer", "category"))
            parts = [row.text("category"), row.maybe("l2_category") or row.maybe("l2-category")]
            row, options = self._apart(row)
            yield self.choice(
                row,
                id=row.text("index"),
                group=row.shown.sha256,
                type=BETWEEN.join(filter(None, parts)),
                hint=row.maybe("hint"),
                options=options,
                answer=row.text("answer").strip(),
                picture=row.shown,
            )

    def _apart(self, row: FileRow) -> tuple[FileRow, dict[str, str]]:
        """The row with the bare question, and its options: columns, or the end of the question."""
        if row.maybe("A"):
            return row, self.table_options(row)
        question, *rest = _OPTIONS.split(row.text("question"))
        pieces = _OPTION.split(rest[-1]) if rest else []
        options = dict(zip(pieces[1::2], map(str.strip, pieces[2::2]), strict=True))
        if len(options) < 2 or not all(options.values()):
            row.refuse("fewer than two choices: columns A, B, ... are needed, or 'Options: A: ...'")
        values = row.values | {"question": question}
        return FileRow(row.file, row.place, values, row.held), options

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """All, then each category with its parts."""
        every = tuple(types)
        found = [Metric("all", "accuracy", accuracy, (every,))]
        for name in dict.fromkeys(type_.partition(BETWEEN)[0] for type_ in types):
            part = tuple(t for t in types if t.partition(BETWEEN)[0] == name)
            found.append(Metric(name, "accuracy", accuracy, (part,)))
            found += [Metric(t, "accuracy", accuracy, ((t,),)) for t in part if t != name]
        return [*found, Metric("all", "unparsed", UNPARSED, (every,), "lower")]
