"""MathVista (Lu et al. 2023, arXiv:2310.02255), testmini: mathematics with pictures.

The official extraction asks GPT wherever its rules fail. Here a judge is asked, where there is one;
what nothing extracts is wrong, and reported as ``unparsed``. So is an empty answer, which the
official script takes for the choice nearest to an empty text: without a judge the score is no
strict lower bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from seva_exp.benchmarks.base import Metric, Question, Scored
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, Picture, columns
from seva_exp.benchmarks.judging import OWN, Judging, Messages
from seva_exp.benchmarks.letters import letter_or_text, lettered
from seva_exp.benchmarks.official import Item, Official, Rule, accuracies, right_or_wrong
from seva_exp.core.records import Prediction
from seva_exp.core.spec import Json

OWN_PROMPT = """\
Below are a question about a picture and what somebody answered. Extract the answer; do not solve \
the question, and correct nothing.

Question: {question}
Answered: {answer}

Reply with {form} and nothing else. Where no answer to the question is given, reply NONE."""
FORMS = {
    "text": "the answer",
    "integer": "a whole number in digits",
    "float": "a number in digits, with its decimals",
    "list": "a list as Python writes it",
}
ANSWER_TYPES = ("text", "integer", "float", "list")
QUESTION_TYPES = ("multi_choice", "free_form")
_QUOTED = re.compile(r'The answer is "(.*)"\.')


def official(text: str, target: str, details: Json) -> Scored:
    """Extract by rules, normalise as calculate_score.py does, compare as texts."""
    found = extract(text, details["choices"], details["answer_type"])
    if found is None:
        return right_or_wrong("", False, parsed=False)
    answer = normalise(found, details["choices"], details["answer_type"], details["precision"])
    return right_or_wrong(answer or "", answer == target)


def extract(text: str, choices: Sequence[str], answer_type: str) -> str | None:
    """The answer that rules find (extract_answer.py): a choice or a number that is the whole text,
    ``The answer is "..."``; and of a multiple choice the letter that is named. None: no rule fits.
    """
    answer = text.strip()
    if answer in choices:
        return answer
    if read := {"integer": int, "float": float}.get(answer_type):
        try:
            return str(read(answer))
        except ValueError:
            pass
    if found := _QUOTED.search(answer):
        return found[1]
    if choices and (letter := letter_or_text(answer, lettered(list(choices)))):
        return f"({letter})"
    return None


def normalise(
    found: str, choices: Sequence[str], answer_type: str, precision: int | None
) -> str | None:
    """The extracted answer in the target's form: a choice (by letter, else the nearest by edit
    distance), a whole number, a number of ``precision`` decimals."""
    if choices:
        letters = re.findall(r"\(([a-zA-Z])\)", found)
        by_letter = lettered(list(choices))
        letter = letters[0].upper() if letters else found.strip()
        return by_letter.get(letter) or nearest(letter, choices)
    try:
        if answer_type == "integer":
            return str(int(float(found)))
        if answer_type == "float":
            return str(round(float(found), precision if precision is not None else 2))
    except (ValueError, OverflowError):
        return None
    return found


def messages(question: Question, prediction: Prediction) -> Messages | None:
    """The question of ``OWN_PROMPT`` about an answer that no rule reads; None: one does, or nothing
    was said."""
    if not prediction.counts["unparsed"] or not prediction.text.strip():
        return None
    choices = question.details["choices"]
    letters = "".join(f"\n({letter}) {text}" for letter, text in lettered(list(choices)).items())
    form = "the letter of the choice" if choices else FORMS[question.details["answer_type"]]
    text = f"{question.details['question']}{letters}"
    prompt = OWN_PROMPT.format(question=text, answer=prediction.text, form=form)
    return (("user", prompt),)


def read(reply: str, question: Question, prediction: Prediction) -> Scored | None:
    """The reply as a verdict: NONE, a choice's letter or text (not the nearest: that would be a
    guess), a number."""
    answer, details = reply.strip().rstrip("."), question.details
    if answer.upper() == "NONE":
        return right_or_wrong("", False, parsed=False)
    if choices := details["choices"]:
        letter = letter_or_text(answer, lettered(list(choices)))
        found = lettered(list(choices)).get(letter)
    else:
        found = normalise(answer, choices, details["answer_type"], details["precision"])
    return right_or_wrong(found, found == question.target) if found else None


def nearest(text: str, choices: Sequence[str]) -> str:
    """The choice of the least edit distance, the first of equal ones."""
    from rapidfuzz.distance import Levenshtein

    return min(choices, key=lambda choice: Levenshtein.distance(text, choice))


class MathvistaBenchmark(Official):
    """Accuracy over all problems, and by task."""

    layout = (("mathvista/testmini.json", "mathvista/data/testmini.json"), ("mathvista/images",))
    tables = ("mathvista/MathVista_MINI.tsv", "MathVista_MINI.tsv")
    source = "github.com/lupantech/MathVista (data/testmini.json, query.json), images.zip"
    rules: ClassVar[Mapping[str, Rule]] = {"official": official}
    placeholders = ("query", "question")
    judgings: ClassVar = {
        OWN: lambda self, source: Judging(OWN, 0.0, 64, {"prompt": OWN_PROMPT}, messages, read)
    }

    kind: Literal["mathvista"] = "mathvista"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        folder = self.layout[1][0].rpartition("/")[0]
        queries = self._queries(source)
        for pid, row in source.by_key(self.layout[0]):
            image = row.text("image")
            pictures = source.folder([folder])
            if queries and pid not in queries:
                row.refuse("query.json has no query of this entry")
            query = queries[pid] if queries else row.text("query")
            task = row.child("metadata").text("task")
            texts = {"query": query, "question": row.text("question")}
            yield self._item(row, pid, texts, task, image, pictures.picture(row, image))

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for row in source.table(self.tables):
            columns(row, ("index", "image", "question", "answer", "question_type", "answer_type"))
            task, image = row.maybe("task") or "all", row.shown
            texts = dict.fromkeys(self.placeholders, row.text("question"))
            yield self._item(row, row.text("index"), texts, task, image.sha256, image)

    def _item(
        self, row: FileRow, id: str, texts: dict[str, str], task: str, group: str, picture: Picture
    ) -> Item:
        answer = row.text("answer")
        choices: tuple[str, ...] = ()
        if row.one_of("question_type", QUESTION_TYPES) == "multi_choice":
            choices = row.texts("choices")
            if answer not in choices:
                row.refuse(f"the answer {answer!r} is none of the choices {', '.join(choices)}")
        details = {
            "question": texts["question"],
            "choices": choices,
            "answer_type": row.one_of("answer_type", ANSWER_TYPES),
            "precision": _decimals(row, answer),
        }
        return Item(row, id, group, task, texts, answer, picture, details)

    def table_row(self, item: Item) -> Json:
        """With what VLMEvalKit's extraction and its tables by task and skill read."""
        row = super().table_row(item)
        if item.row.held is not None:
            return row
        choices, metadata = list(item.details["choices"]), item.row.child("metadata").values
        letters = [letter for letter, text in lettered(choices).items() if text == item.target]
        return row | {
            "question": item.texts["query"],
            "question_type": item.row.text("question_type"),
            "answer_type": item.details["answer_type"],
            "choices": str(choices),
            "answer_option": "".join(letters[:1]),
            "task": item.type,
            "skills": str(metadata.get("skills", [])),
        }

    def _queries(self, source: BenchmarkFiles) -> dict[str, str]:
        """``query.json``, where there is one; else the rows hold their queries."""
        names = [name.replace("testmini.json", "query.json") for name in self.layout[0]]
        if not source.find(names):
            return {}
        file, content = source.json(names)
        if not isinstance(content, dict) or not all(isinstance(x, str) for x in content.values()):
            FileRow(file, "the file", {}).refuse("an object of texts by problem is needed")
        return content

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """All, by task, and what no rule could read."""
        return accuracies(types, unparsed=True)


def _decimals(row: FileRow, answer: str) -> int | None:
    """How many decimals the answer has: ``precision``, or as many as it is written with."""
    precision: Any = row.values.get("precision")
    if row.maybe("precision"):
        try:
            return int(float(precision))
        except (TypeError, ValueError, OverflowError):
            row.refuse(f"field 'precision': {precision!r} is no number")
    return len(answer.partition(".")[2]) if "." in answer else None
