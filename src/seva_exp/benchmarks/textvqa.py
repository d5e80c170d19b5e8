"""TextVQA (Singh et al. 2019, arXiv:1904.08920), validation: reading what is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Literal

from seva_exp.benchmarks.files import BenchmarkFiles, FileRow, Picture, columns
from seva_exp.benchmarks.official import Item, Official, Rule, Scored
from seva_exp.benchmarks.vqa_text import agreement, normalise, normalise_kit
from seva_exp.core.errors import InputError
from seva_exp.core.spec import Json

PEOPLE = 10
"""Answers that each question was given."""
OCR = ("textvqa/llava_textvqa_val_v051_ocr.jsonl", "llava_textvqa_val_v051_ocr.jsonl")
MARK = "Reference OCR token:"


def soft(text: str, target: str, details: Json) -> Scored:
    """EvalAI's normal form, then the leave-one-out agreement with ten people."""
    return _agreeing(normalise, text, details)


def soft_digits(text: str, target: str, details: Json) -> Scored:
    """The agreement with people's answers in VLMEvalKit's normal form, which keeps a full stop
    behind a digit."""
    return _agreeing(normalise_kit, text, details)


def _agreeing(form: Callable[[str], str], text: str, details: Json) -> Scored:
    normalised = form(text)
    score = agreement(normalised, tuple(form(answer) for answer in details["answers"]))
    return Scored(normalised, score, {"asked": 1.0, "correct": score})


class TextvqaBenchmark(Official):
    """A protocol whose prompt has ``{ocr}`` takes the line with the reference OCR tokens from
    LLaVA-1.5's question file; without them scores are lower by far (for one model 46, not 58.2)."""

    layout = (("textvqa/TextVQA_0.5.1_val.json",), ("textvqa/train_images",), OCR)
    tables = ("textvqa/TextVQA_VAL.tsv", "TextVQA_VAL.tsv")
    source = "textvqa.org/dataset; LLaVA-1.5's eval.zip for the OCR tokens"
    rules: ClassVar[Mapping[str, Rule]] = {"soft": soft, "soft_digits": soft_digits}
    placeholders = ("question", "capitalized_question", "ocr")

    kind: Literal["textvqa"] = "textvqa"

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        pictures = source.folder(self.layout[1])
        tokens = self._tokens(source)
        for row in source.in_list(self.layout[0], "data"):
            image = row.text("image_id")
            picture = pictures.picture(row, f"{image}.jpg")
            yield self._item(row, row.text("question_id"), image, "answers", picture, tokens)

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        if "ocr" in self.rules_of_protocol.placeholders():
            raise InputError(
                f"benchmark.textvqa: protocol {self.protocol} needs OCR tokens, which a table has "
                f"not. Take benchmark.textvqa.protocol=vlmevalkit, or put the official files:\n"
                f"{self.goes(source.root)}"
            )
        for row in source.table(self.tables):
            columns(row, ("index", "image", "question", "answer"))
            picture = row.shown
            yield self._item(row, row.text("index"), picture.sha256, "answer", picture, {})

    def _item(
        self,
        row: FileRow,
        id: str,
        group: str,
        field: str,
        picture: Picture,
        tokens: dict[tuple[str, str], str],
    ) -> Item:
        question = row.text("question")
        answers = row.texts(field)
        if len(answers) != PEOPLE:
            row.refuse(f"field '{field}': {len(answers)} answers, {PEOPLE} are needed")
        texts = {"question": question, "capitalized_question": question.capitalize(), "ocr": ""}
        if "ocr" in self.rules_of_protocol.placeholders():
            if (group, question.lower()) not in tokens:
                row.refuse(f"the OCR file ({OCR[0]}) has no tokens for picture {group!r}")
            texts["ocr"] = tokens[group, question.lower()]
        most = max(answers, key=answers.count)
        return Item(row, id, group, "all", texts, most, picture, {"answers": answers})

    def table_row(self, item: Item) -> Json:
        """With all ten answers, as a list written out."""
        return super().table_row(item) | {"answer": str(list(item.details["answers"]))}

    def _tokens(self, source: BenchmarkFiles) -> dict[tuple[str, str], str]:
        """The line with the OCR tokens by picture and question (lower case)."""
        if "ocr" not in self.rules_of_protocol.placeholders():
            return {}
        found = {}
        for row in source.lines(OCR):
            question, *rest = row.text("text").split("\n")
            marked = [line for line in rest if line.startswith(MARK)]
            found[row.text("question_id"), question.lower()] = marked[0] if marked else ""
        return found
