"""What benchmarks of multiple-choice questions share: options, their letter as the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import ClassVar

from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, Picture, columns
from seva_exp.benchmarks.letters import (
    Options,
    exact,
    first_character,
    letter_or_text,
    listing,
    lone_token,
    near_end,
    prefixed,
    the_answer_is,
)
from seva_exp.benchmarks.official import Item, Official, Rule, Scored, right_or_wrong
from seva_exp.core.spec import Json


def scored(read: Callable[[str, Options], str], text: str, target: str, details: Json) -> Scored:
    """The letter that was read against the right one."""
    letter = read(text, details["options"])
    return right_or_wrong(letter, letter == target, bool(letter))


RULES: dict[str, Rule] = {
    "exact": partial(scored, exact),
    "first_character": partial(scored, first_character),
    "prefixed": partial(scored, prefixed),
    "the_answer_is": partial(scored, the_answer_is),
    "letter_or_text": partial(scored, letter_or_text),
    "lone_token": partial(scored, lone_token),
    "near_end": partial(scored, near_end),
}


def lettered_texts(options: Options) -> dict[str, str]:
    """What a prompt fills in of the options."""
    inline = " ".join(f"({letter}) {text}" for letter, text in options.items())
    return {"options": listing(options), "inline_options": inline}


TABLE_COLUMNS = ("index", "image", "question", "A", "B", "answer")


class Choices(Official):
    """Base of the benchmarks whose answer is a letter."""

    rules: ClassVar[Mapping[str, Rule]] = RULES
    placeholders: ClassVar[tuple[str, ...]] = (
        "question",
        "hint",
        "hint_or_na",
        "options",
        "inline_options",
    )
    table_type: ClassVar[str]
    """The column of a table that holds a question's type."""

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        for row in source.table(self.tables):
            columns(row, TABLE_COLUMNS)
            yield self.choice(
                row,
                id=row.text("index"),
                group=row.shown.sha256,
                type=row.maybe(self.table_type) or "all",
                hint=row.maybe("hint"),
                options=self.table_options(row),
                answer=row.text("answer").strip(),
                picture=row.shown,
            )

    def choice(
        self,
        row: FileRow,
        *,
        id: str,
        group: str,
        type: str,
        hint: str,
        options: dict[str, str],
        answer: str,
        picture: Picture,
    ) -> Item:
        """One question; refuses an answer that is none of the options."""
        if answer not in options:
            row.refuse(f"the answer {answer!r} is none of the choices {', '.join(options)}")
        texts = {
            "question": row.text("question"),
            "hint": hint,
            "hint_or_na": hint or "N/A",
            **lettered_texts(options),
        }
        return Item(row, id, group, type, texts, answer, picture, {"options": options})

    def table_row(self, item: Item) -> Json:
        """With a column a choice."""
        return {"hint": item.texts["hint"], **item.details["options"], **super().table_row(item)}

    def table_options(self, row: FileRow) -> dict[str, str]:
        """The columns A, B, C ... that hold something; the text "None" is an option."""
        found = {letter: str(row.values.get(letter) or "").strip() for letter in "ABCDEFGH"}
        options = {
            letter: text for letter, text in found.items() if text.lower() not in ("", "nan")
        }
        if len(options) < 2:
            row.refuse("fewer than two choices: columns A, B, ... are needed")
        return options
