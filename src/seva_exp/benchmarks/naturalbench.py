"""NaturalBench (Li et al. 2024, arXiv:2410.14669): two questions on two pictures, each with the
other answer on the other picture, so that no question can be answered without looking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from seva_exp.benchmarks.base import Metric, Totals, Values, accuracy, subgroup, whole
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, columns
from seva_exp.benchmarks.official import UNPARSED, Item, Official, Rule
from seva_exp.benchmarks.question import Scored
from seva_exp.benchmarks.yes_no import first_named
from seva_exp.core.spec import Json

WORDS = {"yes_no": ("Yes", "No"), "multiple_choice": ("A", "B")}
"""By a question's type: the answer to question 0 on picture 0, and that on picture 1."""
INSTRUCTIONS = {
    "yes_no": "Please answer Yes or No.",
    "multiple_choice": "Please output the letter corresponding to the correct option.",
}
"""What the official questions end in."""
GROUP = 4
"""Rows in a row: question 0 on pictures 0 and 1, then question 1."""
FIRST = (True, False, False, True)
"""Whether the answer of each of them is the first of ``WORDS``."""


def scored(text: str, target: str, details: Json) -> Scored:
    """The official rule (naturalbench_vqa.py: extract_answer, get_scores): of both words, the one
    that comes first, in any case. Neither is wrong."""
    said = first_named(text, WORDS[details["type"]])
    right = float(said == target)
    counts = {"asked": 1.0, "correct": right, "unparsed": float(not said)}
    counts |= subgroup("question", details["question"], right)
    counts |= subgroup("picture", details["picture"], right)
    return Scored(said, right, counts)


def groups_right(sums: Totals) -> Values:
    """G-Acc: groups of which all four answers are right, in percent."""
    return 100 * sums.whole("correct") / sums.groups()


class NaturalbenchBenchmark(Official):
    """Acc, Q-Acc (a question on both pictures), I-Acc (both questions on a picture), G-Acc (all
    four). A group of two questions and two pictures is resampled as one."""

    tables = ("naturalbench/NaturalBenchDataset.tsv", "NaturalBenchDataset.tsv")
    source = "huggingface.co/datasets/BaiqiL/NaturalBench (NaturalBenchDataset.tsv)"
    rules: ClassVar[Mapping[str, Rule]] = {"first_of_both": scored}
    placeholders = ("question", "instruction")
    tells_unparsed = True

    kind: Literal["naturalbench"] = "naturalbench"

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        rows = []
        for row in source.table(self.tables):
            columns(row, ("index", "image", "question", "answer", "type"))
            rows.append((_number(row), row))
        rows.sort(key=lambda pair: pair[0])
        for start in range(0, len(rows), GROUP):
            some = [row for _, row in rows[start : start + GROUP]]
            _check(some)
            for place, row in enumerate(some):
                yield _item(row, f"{start // GROUP:06d}", place)

    def table_row(self, item: Item) -> Json:
        """VLMEvalKit reads the type as well."""
        return {"type": item.type, **super().table_row(item)}

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """The four of all, and G-Acc by type."""
        every = (tuple(types),)
        by_type = types if len(types) > 1 else ()
        return [
            Metric("all", "accuracy", accuracy, every),
            Metric("all", "q_acc", whole("question"), every, unit="question"),
            Metric("all", "i_acc", whole("picture"), every, unit="picture"),
            Metric("all", "g_acc", groups_right, every, unit="group"),
            *(Metric(one, "g_acc", groups_right, ((one,),), unit="group") for one in by_type),
            Metric("all", "unparsed", UNPARSED, every, "lower"),
        ]


def _number(row: FileRow) -> int:
    try:
        return int(row.text("index"))
    except ValueError:
        row.refuse(f"column 'index': a whole number is needed, not {row.text('index')!r}")


def _check(rows: list[FileRow]) -> None:
    """Refuses what is no group as the official score reads it: by the place of its rows."""
    if len(rows) != GROUP:
        rows[-1].refuse(f"the last group has {len(rows)} rows, NaturalBench has {GROUP} each")
    type_ = rows[0].one_of("type", WORDS)
    words = WORDS[type_]
    for place, (row, first) in enumerate(zip(rows, FIRST, strict=True)):
        if row.one_of("type", WORDS) != type_:
            row.refuse(f"the type is not that of its group, {type_!r} ({rows[0].place})")
        if row.text("question") != rows[place // 2 * 2].text("question"):
            row.refuse(f"the question is not that of {rows[place // 2 * 2].place}")
        if row.one_of("answer", words) != words[not first]:
            wanted = ", ".join(words[not one] for one in FIRST)
            row.refuse(f"the answers of a group are {wanted}; here is {row.text('answer')!r}")


def _item(row: FileRow, group: str, place: int) -> Item:
    question, picture, type_ = place // 2, place % 2, row.text("type").strip()
    texts = {"question": row.text("question"), "instruction": INSTRUCTIONS[type_]}
    details = {"type": type_, "question": str(question), "picture": str(picture)}
    answer, shown = row.text("answer").strip(), row.shown
    id = row.text("index")
    return Item(row, id, group, type_, texts, answer, shown, details, shown.sha256)
