"""MMVP (Tong et al. 2024, arXiv:2401.06209): pairs of pictures that CLIP takes for alike, with one
question whose answers differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import ClassVar, Literal

from seva_exp.benchmarks.base import Metric, Totals, Values, accuracy
from seva_exp.benchmarks.choices import RULES, TABLE_COLUMNS, Choices
from seva_exp.benchmarks.commas import csv_rows
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, Picture, columns
from seva_exp.benchmarks.official import UNPARSED, Item, Rule, Scored, right_or_wrong
from seva_exp.core.spec import Json

_OPTIONS = re.compile(r"\s*\(a\)(.*?)\(b\)(.*)", re.IGNORECASE | re.DOTALL)
NAMES = ("Question", "Options", "Correct Answer")
"""The columns of ``Questions.csv`` behind the number of the picture, which its header calls Index
or, in the release, lndex."""
KEYWORDS = ("answer is", "answer is:", "answer:")


def bare_answer(text: str) -> str:
    """What Cambrian-1 compares (eval/mmvp/mmvp_test.py: extract_mcq_answer): in lower case, what
    stands behind the last "answer is" or "answer:", without outer brackets and marks at its end.
    Behind "answer is:" the colon stays, as there."""
    answer = text.lower().strip()
    for keyword in KEYWORDS:
        answer = answer.rpartition(keyword)[2]
    return answer.strip().rstrip(".:,").lstrip("(").rstrip(")")


def letter_or_option(text: str, target: str, details: Json) -> Scored:
    """Cambrian-1's rule: the letter, or the option's text."""
    answer, options = bare_answer(text), details["options"]
    same = [letter for letter in options if answer in (letter.lower(), options[letter].lower())]
    said = target if target in same else same[0] if same else ""
    return right_or_wrong(said, said == target, bool(said))


def pairs_right(sums: Totals) -> Values:
    """Pairs both of whose answers are right, in percent."""
    return 100 * sums.whole("correct") / sums.groups()


class MmvpBenchmark(Choices):
    """A pair counts where both of its answers are right; a pair is resampled as one. It is the rows
    1 and 2, 3 and 4 ... of ``Questions.csv`` by their Index; of a table two that follow each other,
    with one question (VLMEvalKit's ``report_acc_MMVP``)."""

    layout = (
        ("mmvp/Questions.csv", "MMVP/Questions.csv"),
        ("mmvp/MMVP Images", "MMVP/MMVP Images"),
    )
    tables = ("mmvp/MMVP.tsv", "MMVP.tsv")
    source = "huggingface.co/datasets/MMVP/MMVP (Questions.csv, MMVP Images/)"
    rules: ClassVar[Mapping[str, Rule]] = {**RULES, "letter_or_option": letter_or_option}
    placeholders = (*Choices.placeholders, "bracketed_options")

    kind: Literal["mmvp"] = "mmvp"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        pictures = source.folder(self.layout[1])
        rows = csv_rows(*source.text(self.layout[0]), needed=NAMES, first="Index")
        for number, row in _by_number(rows, "Index"):
            found = _OPTIONS.fullmatch(row.text("Options"))
            if not found or not all(map(str.strip, found.groups())):
                row.refuse("column 'Options': '(a) ... (b) ...' is needed")
            options = dict(zip("AB", map(str.strip, found.groups()), strict=True))
            answer = row.text("Correct Answer").strip().strip("()").upper()
            name = f"{row.text('Index')}.jpg"
            values = row.values | {"question": row.text("Question")}
            row = FileRow(row.file, row.place, values)
            picture = pictures.picture(row, name)
            yield self._item(row, number - 1, row.text("Index"), options, answer, picture, name)

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        rows = _by_number(_with_columns(source.table(self.tables)), "index")
        for place, (_, row) in enumerate(rows):
            answer, options = row.text("answer").strip(), self.table_options(row)
            id, shown = row.text("index"), row.shown
            yield self._item(row, place, id, options, answer, shown, shown.sha256)

    def _item(
        self,
        row: FileRow,
        place: int,
        id: str,
        options: dict[str, str],
        answer: str,
        picture: Picture,
        shows: str,
    ) -> Item:
        """The ``place``-th question, from 0."""
        found = self.choice(
            row,
            id=id,
            group=f"{place // 2:04d}",
            type="all",
            hint="",
            options=options,
            answer=answer,
            picture=picture,
        )
        bracketed = " ".join(f"({letter.lower()}) {text}" for letter, text in options.items())
        return replace(found, shows=shows, texts=found.texts | {"bracketed_options": bracketed})

    def verify(self, items: Sequence[Item]) -> None:
        for _, some in groupby(items, key=lambda item: item.group):
            one, *others = some
            if len(others) != 1:
                one.row.refuse(f"the question {one.id} has no partner, MMVP has pairs")
            asked, other = one.texts["question"], others[0]
            if other.row.held and other.texts["question"] != asked:
                other.row.refuse(f"the question is not that of its pair ({one.row.place})")

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """Pairs, single answers, unparsed."""
        every = (tuple(types),)
        return [
            Metric("all", "pair_accuracy", pairs_right, every, unit="group"),
            Metric("all", "accuracy", accuracy, every),
            Metric("all", "unparsed", UNPARSED, every, "lower"),
        ]


def _with_columns(rows: Iterator[FileRow]) -> Iterator[FileRow]:
    for row in rows:
        columns(row, TABLE_COLUMNS)
        yield row


def _by_number(rows: Iterator[FileRow], column: str) -> list[tuple[int, FileRow]]:
    """The rows in the order of their numbers."""
    found = []
    for row in rows:
        if not re.fullmatch("[0-9]{1,9}", row.text(column)):
            row.refuse(f"column {column!r}: a number is needed, not {row.text(column)!r}")
        found.append((int(row.text(column)), row))
    return sorted(found, key=lambda pair: pair[0])
