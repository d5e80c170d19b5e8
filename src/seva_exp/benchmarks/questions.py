"""A benchmark of one's own: a table of questions about pictures, with known answers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from seva_exp.benchmarks import choices, gqa, mmvet, pope, textvqa
from seva_exp.benchmarks.base import Hasher, Metric
from seva_exp.benchmarks.choices import lettered_texts
from seva_exp.benchmarks.commas import TAB, csv_rows
from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, Folder
from seva_exp.benchmarks.guards import Guards
from seva_exp.benchmarks.judging import OWN, Judging, Messages
from seva_exp.benchmarks.letters import lettered
from seva_exp.benchmarks.official import (
    ByProtocol,
    Item,
    Loaded,
    Rule,
    Scored,
    accuracies,
    check_items,
    judged,
    once_read,
    right_or_wrong,
)
from seva_exp.benchmarks.protocols import Protocol, check_protocol
from seva_exp.benchmarks.question import Question
from seva_exp.benchmarks.vqa_text import normalise
from seva_exp.core.errors import InputError
from seva_exp.core.records import Prediction
from seva_exp.core.spec import Json, digest
from seva_exp.inputs.user_paths import existing_file, existing_folder

Kind = Literal["yes_no", "letter", "short_answer", "judged"]
SOFT = "vqa_soft"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ENDINGS = (".csv", TAB, ".jsonl", ".json")
BLANKS = ("{question}", "{target}", "{answer}")
"""What the text of a judge's question has to fill in."""
_NOT_OF_THE_ANSWERS = ("path", "image_folder", "judge_prompt", "prompt", "rule", "max_new_tokens")
"""Fields that stand in a key by what they lead to: the contents of files, the protocol."""


def same(form: Callable[[str], str], text: str, target: str, details: Json) -> Scored:
    """Right where the answer is, in a normal form, one of those that are accepted."""
    said = form(text)
    return right_or_wrong(said, said in {form(answer) for answer in details["answers"]})


def _unpunctuated(text: str) -> str:
    return gqa.ignoring_punctuation(text, "", {}).extracted


def _stripped(text: str) -> str:
    return gqa.stripped(text, "", {}).extracted


RULES: Mapping[Kind, Mapping[str, Rule]] = {
    "yes_no": pope.PopeBenchmark.rules,
    "letter": choices.RULES,
    "short_answer": {
        "vqa": partial(same, normalise),
        "gqa": partial(same, gqa.without_stop),
        "ignoring_punctuation": partial(same, _unpunctuated),
        "stripped": partial(same, _stripped),
        SOFT: textvqa.soft,
    },
    "judged": {"judged": judged},
}
"""By the type of the questions what ``rule`` can be: those of POPE, of multiple choice, of VQA and
GQA, or a judge."""
SECTIONS = tuple(f"questions_{one}" for one in RULES)
"""The parts of a protocol's file that are about such questions."""


class QuestionsBenchmark(ByProtocol):
    """A table of questions of one's own (CSV, TSV, JSON lines or a JSON list), a question a row:
    yes or no, a letter, a short answer, or an answer that a judge reads.

    Questions of one picture are resampled together, or those that share ``group_field``.
    """

    placeholders = choices.Choices.placeholders
    guards: ClassVar[Guards] = pope.PopeBenchmark.guards

    kind: Literal["questions"] = "questions"
    path: str | None = Field(
        None,
        min_length=1,
        description="the table (.csv, .tsv, .jsonl, .json); ~ and relative paths are understood",
    )
    type: Kind = Field("yes_no", description="how its answers are scored")
    image_folder: str | None = Field(
        None,
        min_length=1,
        description="the folder that the pictures' paths are relative to; null: the table's own",
    )
    image_field: str | None = Field(
        "image", min_length=1, description="column of the picture's path; null: asked as text"
    )
    question_field: str = Field("question", min_length=1, description="column of the question")
    answer_field: str = Field(
        "answer",
        min_length=1,
        description="column of the right answer: yes or no; an option's letter or text; one "
        "accepted answer or a list of them; the answer that a judge is told",
    )
    options_field: str = Field(
        "options",
        min_length=1,
        description="column of the options, a list, for type=letter; without it columns A, B, ...",
    )
    category_field: str | None = Field(
        None, min_length=1, description="column by which scores are told apart too; null: none"
    )
    group_field: str | None = Field(
        None, min_length=1, description="column of what is resampled together; null: the picture"
    )
    id_field: str | None = Field(
        None, min_length=1, description="column of a question's unique id; null: the row's number"
    )
    prompt: str | None = Field(
        None,
        min_length=1,
        description="what is sent, {question} and {options} filled in; null: the protocol's",
    )
    rule: str | None = Field(
        None, description="how an answer is read, by the type's rules; null: the protocol's"
    )
    max_new_tokens: int | None = Field(
        None, ge=1, description="longest answer in tokens; null: the protocol's"
    )
    judge_prompt: str | None = Field(
        None,
        min_length=1,
        description="text file of what a judge is asked, with {question}, {target} and {answer}, "
        "to be replied to with a number from 0 to 1; null: this package's words",
    )

    @property
    def needs_judge(self) -> bool:  # type: ignore[override]  # here the config tells, not the class
        return self.type == "judged"

    @property
    def scoring(self) -> Mapping[str, Rule]:
        return RULES[self.type]

    @property
    def section(self) -> str:
        return f"questions_{self.type}"

    @cached_property
    def _protocol(self) -> tuple[str, Protocol]:
        name, found = super()._protocol
        own = {key: getattr(self, key) for key in ("prompt", "rule", "max_new_tokens")}
        changes = {key: value for key, value in own.items() if value is not None}
        if not changes:
            return name, found
        if self.prompt:  # a command line keeps a written-out line break as two characters
            changes["prompt"] = self.prompt.replace("\\n", "\n")
        changed = found.model_copy(update=changes)
        known = (self.scoring, self.placeholders, self.judgings)
        check_protocol(changed, self.section, *known, "benchmark.questions")
        same_as = changed == found
        return (name if same_as else f"{name}.{digest(changed.identity())[:8]}"), changed

    @property
    def protocol_judged(self) -> str:
        if not self.judge_prompt:
            return self.protocol_name
        return f"{self.protocol_name}+prompt.{digest(self._judge_prompt())[:8]}"

    def lacking(self, root: Path | None) -> str | None:
        if self.path is None:
            return (
                "benchmark.questions.path: must be set (benchmark.questions.path=FILE): a table of "
                "questions, .csv, .tsv, .jsonl or .json (docs/benchmarks.md)."
            )
        return None

    def identity(self, sha256: Hasher, root: Path | None) -> Json:
        fields = {k: v for k, v in self.to_json().items() if k not in _NOT_OF_THE_ANSWERS}
        fields["protocol"] = self.rules_of_protocol.identity()
        if self.path is None:
            return fields
        loaded = self.load(root)
        files = [sha256(path) for path in loaded.files]
        return fields | {"files": files, "pictures": loaded.pictures_digest(sha256)}

    def load(self, root: Path | None) -> Loaded:
        """All items, read once until a file or a folder's listing changes; ``root`` is not looked
        at."""
        if self.path is None:
            raise InputError(str(self.lacking(root)))
        file = Path(os.path.abspath(existing_file("benchmark.questions.path", self.path)))
        if file.suffix.lower() not in ENDINGS:
            raise InputError(
                f"benchmark.questions.path: {self.path!r}: a file whose name ends in "
                f"{', '.join(ENDINGS)} is needed."
            )
        folder = file.parent
        if self.image_folder is not None:
            where = "benchmark.questions.image_folder"
            folder = Path(os.path.abspath(existing_folder(where, self.image_folder)))
        key = [self.to_json(), self.rules_of_protocol.identity(), str(file)]
        return once_read(key, folder, lambda source: self._load(source, file))

    def _load(self, source: BenchmarkFiles, file: Path) -> Loaded:
        pictures = source.folder((".",)) if self.image_field else None
        rows = enumerate(self._rows(source, file), 1)
        items = [self._item(row, number, pictures) for number, row in rows]
        if not items:
            raise InputError(f"benchmark.questions.path: there is no question in {file}.")
        check_items(items)
        return Loaded(items, list(source.files))

    def _rows(self, source: BenchmarkFiles, file: Path) -> Iterator[FileRow]:
        if file.suffix.lower() in (".jsonl", ".json"):
            return source.rows((str(file),))
        return csv_rows(*source.text((str(file),)), needed=self._columns)

    @property
    def _columns(self) -> list[str]:
        """Those that every row must have."""
        maybe = (self.image_field, self.category_field, self.group_field, self.id_field)
        return [self.question_field, self.answer_field, *(one for one in maybe if one)]

    def _item(self, row: FileRow, number: int, pictures: Folder | None) -> Item:
        """One question, refused with its row where something is wrong with it."""
        question = row.text(self.question_field)
        texts = dict.fromkeys(self.placeholders, "") | {"question": question, "hint_or_na": "N/A"}
        target, details, more = self._answer(row, question)
        picture, shows = None, ""
        if pictures and self.image_field:
            picture = pictures.picture(row, row.picture(self.image_field))
            shows = picture.name
        id = row.text(self.id_field) if self.id_field else str(number)
        group = row.text(self.group_field) if self.group_field else shows or id
        type = row.text(self.category_field).strip() if self.category_field else "all"
        if self.category_field and type == "all":
            row.refuse(f"field '{self.category_field}': 'all' is what the whole table is called")
        return Item(row, id, group, type, texts | more, target, picture, details, shows)

    def _answer(self, row: FileRow, question: str) -> tuple[str, Json, dict[str, str]]:
        """The target, what the rule reads beside it, and what a prompt may fill in."""
        if self.type == "yes_no":
            said = row.text(self.answer_field).strip().lower()
            if said not in ("yes", "no"):
                row.refuse(f"field '{self.answer_field}': {said!r} is none of yes, no")
            return said, {}, {}
        if self.type == "letter":
            options = self._options(row)
            target = self._letter(row, options)
            return target, {"options": options}, lettered_texts(options)
        if self.type == "judged":
            return row.text(self.answer_field), {"question": question}, {}
        answers = self._accepted(row)
        return max(answers, key=answers.count), {"answers": list(answers)}, {}

    def _options(self, row: FileRow) -> dict[str, str]:
        """The texts by letter."""
        if self.options_field in row.values:
            texts = row.texts(self.options_field)
        else:
            cells = {letter: row.maybe(letter) for letter in LETTERS}
            last = max((at for at, text in enumerate(cells.values()) if text), default=-1)
            texts = tuple(cells.values())[: last + 1]
        if not 2 <= len(texts) <= len(LETTERS) or not all(text.strip() for text in texts):
            row.refuse(
                f"field '{self.options_field}': from two to {len(LETTERS)} options are needed, "
                "none of them empty: a list, or columns A, B, ..."
            )
        return lettered([text.strip() for text in texts])

    def _letter(self, row: FileRow, options: dict[str, str]) -> str:
        """The letter of the right option, which is given by its letter or its text."""
        answer = row.text(self.answer_field).strip()
        found = {letter for letter, text in options.items() if answer in (letter, text)}
        if len(found) != 1:
            what = "several" if found else "none"
            row.refuse(f"the answer {answer!r} is {what} of the choices {', '.join(options)}")
        return found.pop()

    def _accepted(self, row: FileRow) -> tuple[str, ...]:
        """The answers that count as right."""
        value = row.value(self.answer_field)
        listed = isinstance(value, list) or (isinstance(value, str) and value[:1] == "[")
        name = self.answer_field
        answers = row.texts(name) if listed else (row.text(name),)
        if not answers or not all(answer.strip() for answer in answers):
            row.refuse(f"field '{self.answer_field}': an answer is needed, and none may be empty")
        people = textvqa.PEOPLE
        if self.rules_of_protocol.rule == SOFT and len(answers) != people:
            row.refuse(
                f"field '{self.answer_field}': {len(answers)} answers, rule {SOFT} needs {people}"
            )
        return answers

    def _own(self, source: BenchmarkFiles) -> Judging:
        """As MM-Vet's answers are judged in words of this package."""
        material = {"prompt": mmvet.OWN_PROMPT}
        return Judging(OWN, 0.0, 8, material, mmvet.own_messages, mmvet.read)

    judgings: ClassVar = {OWN: _own}

    def judging(self, root: Path | None, own: bool = False) -> Judging | None:
        if not self.judged:
            return None
        if not self.judge_prompt:
            return self._own(BenchmarkFiles(Path()))
        template = self._judge_prompt()
        return Judging(
            "prompt", 0.0, 8, {"prompt": template}, partial(_messages, template), mmvet.read
        )

    def _judge_prompt(self) -> str:
        where = "benchmark.questions.judge_prompt"
        file = existing_file(where, str(self.judge_prompt))
        _, text = BenchmarkFiles(file.parent).text((file.name,))
        for blank in BLANKS:
            if blank not in text:
                raise InputError(f"{where}: {str(file)!r}: {blank} is missing.")
        return text

    @property
    def table_name(self) -> str:
        return Path(self.path).stem if self.path else self.kind

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """Accuracy (of yes or no also precision, recall, F1 and the share of yes; of judged answers
        the mean score), of all and by category; what no rule could read."""
        every = (tuple(types),)
        parts = [("all", every), *((t, ((t,),)) for t in types if len(types) > 1)]
        if self.type == "judged":
            return [Metric(name, "score", mmvet.score, part) for name, part in parts]
        if self.type == "yes_no":
            found = [one for name, part in parts for one in pope.rates(name, part)]
            return [*found, Metric("all", "unparsed", pope.UNPARSED, every, "lower")]
        return accuracies(types, unparsed=self.type == "letter")


def _messages(template: str, question: Question, prediction: Prediction) -> Messages:
    """The user's text, filled in once: braces in what is filled in stay."""
    values = (question.details["question"], question.target, prediction.text)
    filled = dict(zip(BLANKS, values, strict=True))
    pattern = "|".join(map(re.escape, BLANKS))
    return (("user", re.sub(pattern, lambda at: filled[at[0]], template)),)
