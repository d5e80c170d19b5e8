"""HallusionBench (Guan et al. 2024, arXiv:2310.14566): yes-or-no questions on figures, on the same
figures changed, and without any figure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from seva_exp.benchmarks.base import (
    Hasher,
    Metric,
    Totals,
    Values,
    accuracy,
    subgroup,
    whole,
)
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, Picture, columns
from seva_exp.benchmarks.judging import OWN, Judging, Messages
from seva_exp.benchmarks.official import UNPARSED, Item, Official, Rule
from seva_exp.benchmarks.question import Question, Scored
from seva_exp.benchmarks.yes_no import exact, one_of_both
from seva_exp.core.records import Prediction
from seva_exp.core.spec import Json

FOLDERS = ("hallusionbench", "HallusionBench")
UNZIPPED = "hallusion_bench/"
"""The folder of the official zip, with which some versions' file names begin."""
CATEGORIES = ("VD", "VS")
"""Visual dependent; visual supplement, of which figure 0 is no figure at all."""
CHANGED = "2"
"""The ``visual_input`` of figures that were changed; 1: as found; 0: none."""
LEVELS = ("easy", "hard")
"""Questions without a changed figure, and those on one."""
CORRECT, INCORRECT, UNCLEAR = "correct", "incorrect", "unclear"
OWN_PROMPT = """\
You grade an answer to a yes-or-no question.

Question: {question}
What is true: {truth}
Given answer: {answer}

Reply with one word. "incorrect": the given answer contradicts what is true. "correct": it agrees \
with it. "unclear": it commits itself to neither."""


def verdict(extracted: str, correct: bool, details: Json, parsed: bool = True) -> Scored:
    """The counts of which aAcc, fAcc and qAcc are made; easy and hard as in the official script
    (utils.py: get_eval_pair_easy, get_eval_pair_hard)."""
    right, figure, question = float(correct), details["figure_id"], details["question_id"]
    counts = {"asked": 1.0, "correct": right, "unparsed": float(not parsed)}
    counts |= subgroup(LEVELS[details["visual_input"] == CHANGED], question, right)
    counts |= subgroup("question", question, right)
    if not details["no_figure"]:
        counts |= subgroup("figure", figure, right)
    return Scored(extracted, right, counts)


def scored(read: Callable[[str], str], text: str, target: str, details: Json) -> Scored:
    """Right, wrong, or neither yes nor no, which is wrong."""
    answer = read(text)
    return verdict(answer, answer == target, details, bool(answer))


def messages(question: Question, prediction: Prediction) -> Messages | None:
    """The question of ``OWN_PROMPT`` about an answer that the rule does not read; None: it does, or
    nothing was said."""
    if not prediction.counts["unparsed"] or not prediction.text.strip():
        return None
    known = question.details
    values = {"question": known["question"], "truth": known["truth"], "answer": prediction.text}
    return (("user", OWN_PROMPT.format(**values)),)


def read(reply: str, question: Question, prediction: Prediction) -> Scored | None:
    """The reply as a verdict, as the official script reads it (utils.py: evaluate_by_chatgpt), but
    that one of none of the three words is none. Where there is no figure, not to know is right
    (assign_correctness)."""
    said = reply.lower()
    found = next((word for word in (INCORRECT, CORRECT, UNCLEAR) if word in said), None)
    if found is None:
        return None
    unsure_is_right = question.details["no_figure"] and found == UNCLEAR
    return verdict(found, found == CORRECT or unsure_is_right, question.details)


def mean_of_three(sums: Totals) -> Values:
    """The mean of aAcc, fAcc and qAcc, by which VLMEvalKit's leaderboard ranks."""
    return (accuracy(sums) + whole("figure")(sums) + whole("question")(sums)) / 3


class HallusionbenchBenchmark(Official):
    """aAcc: right answers; fAcc: figures all of whose questions are right; qAcc: questions that are
    right on each of their figures, and without one. A set of figures with its questions is
    resampled as one."""

    layout = (
        tuple(f"{folder}/HallusionBench.json" for folder in FOLDERS),
        tuple(f"{folder}/hallusion_bench" for folder in FOLDERS),
    )
    tables = ("hallusionbench/HallusionBench.tsv", "HallusionBench.tsv")
    source = "github.com/tianyi-lab/HallusionBench (HallusionBench.json, hallusion_bench.zip)"
    rules: ClassVar[Mapping[str, Rule]] = {
        "one_of_both": partial(scored, one_of_both),
        "exact": partial(scored, exact),
    }
    tells_unparsed = True
    judgings: ClassVar = {
        OWN: lambda self, source: Judging(OWN, 0.0, 8, {"prompt": OWN_PROMPT}, messages, read)
    }

    kind: Literal["hallusionbench"] = "hallusionbench"

    def identity(self, sha256: Hasher, root: Path | None) -> Json:
        return super().identity(sha256, root) | {"levels": "visual_input"}

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        pictures = source.folder(self.layout[1])
        for row in source.list(self.layout[0]):
            names = ("category", "subcategory", "visual_input", "set_id", "figure_id")
            place = [row.text(name) for name in (*names, "question_id")]
            answer = "yes" if row.one_of("gt_answer", ("0", "1")) == "1" else "no"
            truth, picture = row.text("gt_answer_details"), None
            if place[2] != "0":
                name = row.picture("filename").removeprefix("./").removeprefix(UNZIPPED)
                picture = pictures.picture(row, name)
            yield from self._item(row, place, answer, truth, picture)

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for row in source.table(self.tables, without_picture=True):
            columns(row, ("index", "image", "question", "answer"))
            place = row.text("index").split("_")
            if len(place) != 6:
                row.refuse(
                    "column 'index': category, subcategory, visual_input, set, figure and question "
                    f"are needed, with _ between them, not {row.text('index')!r}"
                )
            answer = row.one_of("answer", ("Yes", "No", "yes", "no"))
            truth = row.maybe("gt_answer_details") or answer
            picture = row.shown if place[2] != "0" else None
            yield from self._item(row, place, answer.lower(), truth, picture)

    def _item(
        self, row: FileRow, place: list[str], answer: str, truth: str, picture: Picture | None
    ) -> Iterator[Item]:
        """One question; none where the protocol leaves out those without a picture."""
        category, subcategory, visual_input, set_id, figure_id, question_id = place
        if category not in CATEGORIES:
            row.refuse(f"the category {category!r} is none of {', '.join(CATEGORIES)}")
        for name, number in (("set_id", set_id), ("figure_id", figure_id)):
            if not re.fullmatch("[0-9]+", number):
                row.refuse(f"{name}: a number is needed, not {number!r}")
        if visual_input not in ("0", "1", "2"):
            row.refuse(f"visual_input: {visual_input!r} is none of 0, 1, 2")
        no_figure = category == "VS" and figure_id == "0"
        if no_figure != (visual_input == "0"):
            row.refuse(
                "visual_input is 0 where category is VS and figure_id is 0, and nowhere else"
            )
        if picture is None and self.rules_of_protocol.pictures_only:
            return
        question = row.text("question")
        details = {
            "question": question,
            "truth": truth,
            "visual_input": visual_input,
            "figure_id": figure_id,
            "question_id": question_id,
            "no_figure": no_figure,
        }
        type_ = f"{category}_{subcategory}"
        group, texts = f"{type_}_{set_id}", {"question": question}
        id, shows = "_".join(place), f"{type_}_{set_id}_{figure_id}"
        yield Item(row, id, group, type_, texts, answer, picture, details, shows)

    def table_row(self, item: Item) -> Json:
        """VLMEvalKit writes Yes and No, and has two categories."""
        own = {"answer": item.target.capitalize(), "category": item.type.partition("_")[0]}
        return super().table_row(item) | own | {"l2-category": item.type}

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """aAcc, fAcc, qAcc of all and of both categories; aAcc by type. What the official script
        calls easy and hard aAcc: questions that are right on all figures as found and without one,
        and on all changed figures."""
        every = tuple(types)
        parts = [(c, tuple(t for t in types if t.startswith(f"{c}_"))) for c in CATEGORIES]
        found = [*_three("all", every), Metric("all", "average", mean_of_three, (every,))]
        for name, part in parts:
            found += _three(name, part) if part and part != every else []
        for level in LEVELS:
            found.append(Metric(level, "aAcc", whole(level), (every,), unit=level))
        found += [Metric(one, "aAcc", accuracy, ((one,),)) for one in types if len(types) > 1]
        return [*found, Metric("all", "unparsed", UNPARSED, (every,), "lower")]


def _three(name: str, part: tuple[str, ...]) -> list[Metric]:
    return [
        Metric(name, "aAcc", accuracy, (part,)),
        Metric(name, "fAcc", whole("figure"), (part,), unit="figure"),
        Metric(name, "qAcc", whole("question"), (part,), unit="question"),
    ]
