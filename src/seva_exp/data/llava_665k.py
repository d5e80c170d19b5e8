"""SeVa's questions: drawn from the OCR-VQA and TextVQA rows of LLaVA-1.5's SFT data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from seva_exp.core.records import Drop, ImageRef, Sample
from seva_exp.core.spec import Json
from seva_exp.data.base import NOT_DRAWN, Hasher, some
from seva_exp.data.conversation import turns_of
from seva_exp.data.draw import DrawnOrder, collect, draw
from seva_exp.data.kept import Kept
from seva_exp.data.rows import PictureFolder, Refuse, RowFile, image_of, row_name
from seva_exp.inputs.fields import BadRow, encodable, object_of, only
from seva_exp.inputs.json_rows import elements
from seva_exp.inputs.user_paths import existing_file

OCR, TEXT = "ocr_vqa", "textvqa"
"""The first folder of a picture's path tells the subset."""
SUFFIX = "Answer the question using a single word or phrase."
"""Ends OCR-VQA's questions there. Without it answers are sentences (SeVa's make_ocrvqa_data.py)."""
PICTURES, QUESTIONS = "data.llava_665k.pictures", "data.llava_665k.questions"
"""Purposes of the draws; each subset and each picture has its own."""
FEWER_PICTURES = "fewer pictures than asked for"
FEWER_QUESTIONS = "fewer questions than asked for"
ASKED_TWICE = "duplicate question"


@dataclass
class PictureQuestions:
    """The questions about a picture, in the file's order; ``row`` is the first that names it."""

    row: int
    questions: list[str] = field(default_factory=list)


@dataclass
class Found:
    """The file's content: pictures by subset and path; all else as drops."""

    subsets: dict[str, dict[str, PictureQuestions]]
    drops: list[Drop] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    """Rows of other subsets, by the first folder of the picture's path."""


class Llava665kData(RowFile):
    """Questions about pictures of ``llava_v1_5_mix665k.json``, without its answers.

    SeVa's set: 4,000 OCR-VQA pictures with 2 questions each, and 8,000 of TextVQA with 1, which
    in this file are requests for a caption that hold OCR tokens. What is drawn depends on the
    seed; a picture or question has a rank of its own, so a missing one moves no other. Of a
    picture's questions the order is the file's. A sample's id is the picture's path and the
    question's number there: ``ocr_vqa/images/x.jpg#3``.
    """

    not_broken: ClassVar[frozenset[str]] = RowFile.not_broken | {
        FEWER_PICTURES,
        FEWER_QUESTIONS,
        ASKED_TWICE,
    }
    probe: ClassVar[str] = "data.ocr_images=25 data.text_images=50"
    kind: Literal["llava_665k"] = "llava_665k"
    path: str | None = Field(
        None, min_length=1, description="llava_v1_5_mix665k.json, or rows of it as a JSON list"
    )
    ocr_images: int = Field(4000, ge=0, description="number of OCR-VQA pictures to draw")
    ocr_questions: int = Field(2, ge=1, description="questions about each, drawn from its own")
    text_images: int = Field(
        8000, ge=0, description="number of TextVQA pictures to draw, with one request each"
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.ocr_images + self.text_images == 0:
            raise ValueError("ocr_images and text_images are 0, so there is nothing to draw.")
        return self

    @property
    def seeded(self) -> bool:
        return True

    def identity(self, sha256: Hasher, where: str = "data", seed: int | None = None) -> Json:
        if self.path is None:
            return self.fields()
        existing_file(f"{where}.path", self.path)
        found = self._read(where, lambda number, error: error.drop(row_name(number)))
        tried = {p for name in found.subsets for p in self._draw(found, name, seed).tried}
        return self._identity(sha256, where, tried)

    def estimate(self, where: str = "data") -> int | None:
        return self.ocr_images * self.ocr_questions + self.text_images

    def read(
        self,
        seed: int,
        root: Path,
        sha256: Hasher,
        where: str = "data",
        kept: Kept | None = None,
    ) -> Iterator[Sample | Drop]:
        """What is drawn depends on all of the file, so all of its questions are held."""
        existing_file(f"{where}.path", self.required_path(where))

        def refuse(number: int, error: BadRow) -> Drop:
            return self._refuse(where, number, error)

        found, keep = self._read(where, refuse), kept or Kept()
        pictures = PictureFolder(Path(self._root()), sha256)

        def made() -> Iterator[Sample | Drop]:
            yield from found.drops
            for name, subset in found.subsets.items():
                images, undrawn = self._images(name, found, seed, pictures, refuse, keep)
                yield from undrawn
                for path in subset:
                    if path in images:
                        yield from self._ask(seed, name, images[path], subset[path])

        yield from some(made(), f"{where}.path", self.path, "row", "rows")
        yield from _others(found.others)

    def _items(self, where: str) -> Iterator[tuple[int, object]]:
        yield from elements(self._file(), f"{where}.path")

    def _wanted(self, subset: str) -> int:
        return {OCR: self.ocr_images, TEXT: self.text_images}[subset]

    def _draw(self, found: Found, subset: str, seed: int | None) -> DrawnOrder:
        names, wanted = list(found.subsets[subset]), self._wanted(subset)
        return draw(names, wanted, seed, f"{PICTURES}.{subset}", self.on_error == "skip")

    def _read(self, where: str, refuse: Refuse) -> Found:
        """Goes through the file once; of rows of other subsets only their number is kept."""
        found = Found({name: {} for name in (OCR, TEXT) if self._wanted(name)})
        root = self._root()
        for number, item in self._items(where):
            try:
                subset = _subset(item)
                if subset not in found.subsets:
                    found.others[subset] += 1
                    continue
                path, questions = self._look_at(number, item, root)
            except BadRow as error:
                found.drops.append(refuse(number, error))
                continue
            own = found.subsets[subset].setdefault(path, PictureQuestions(number))
            for question in questions:
                if question in own.questions:
                    drop = Drop(row_name(number), ASKED_TWICE, encodable(repr(question)))
                    found.drops.append(drop)
                else:
                    own.questions.append(question)
        return found

    def _look_at(self, number: int, item: object, root: str) -> tuple[str, list[str]]:
        """The picture's path and the human's turns; none of rows that are of another subset."""
        subset = _subset(item)
        if subset not in (OCR, TEXT):
            return "", []
        values = object_of(item)
        path = image_of(values, "image", root)
        if not path.startswith(f"{subset}/"):
            raise BadRow("outside the subset's folder", repr(path), "image", of_image=True)
        turns = turns_of(values)
        texts = turns.questions()
        if subset == OCR:
            texts = [self._question(text, turns.field) for text in texts]
        return path, texts

    @staticmethod
    def _question(text: str, where: str) -> str:
        """An OCR-VQA question without the suffix that asks for a word."""
        text = text.removesuffix(SUFFIX).strip()
        if not text:
            raise BadRow("empty", "nothing is asked but for brevity", where)
        return text

    def _images(
        self,
        name: str,
        found: Found,
        seed: int,
        pictures: PictureFolder,
        refuse: Refuse,
        keep: Kept,
    ) -> tuple[dict[str, ImageRef], list[Drop]]:
        """A subset's pictures that are drawn, by path, and what is not, in the file's order."""
        subset, wanted = found.subsets[name], self._wanted(name)

        def ref(path: str) -> ImageRef | Drop:
            try:
                return pictures.ref(path, "image")
            except BadRow as error:
                return refuse(subset[path].row, error)

        drawn = self._draw(found, name, seed)
        images, undrawn = collect(drawn, lambda path: keep(lambda: ref(path)))
        drops = [undrawn[path] for path in subset if path in undrawn]
        if len(images) < wanted:
            drops.append(Drop(f"{name}/", FEWER_PICTURES, f"{len(images)} of {wanted}"))
        return images, drops

    def _ask(
        self, seed: int, subset: str, image: ImageRef, own: PictureQuestions
    ) -> Iterator[Sample | Drop]:
        """The questions of a picture that are drawn, then those that are not."""
        wanted = self.ocr_questions if subset == OCR else 1
        # Unlike pictures, questions cannot turn out to be unusable: so there are no spares.
        drawn = draw(own.questions, wanted, seed, f"{QUESTIONS}.{image.path}", spares=False)
        ids = {text: f"{image.path}#{place}" for place, text in enumerate(own.questions, 1)}
        yield from (Sample(ids[text], image, text) for text in ids if text in drawn.tried)
        yield from (Drop(ids[text], NOT_DRAWN) for text in ids if text in drawn.rest)
        if len(drawn.tried) < wanted:
            yield Drop(image.path, FEWER_QUESTIONS, f"{len(drawn.tried)} of {wanted}")


def _subset(item: object) -> str:
    """The first folder of the row's picture; "" without a picture."""
    values = object_of(item)
    image = values.get("image") or ""
    if isinstance(image, list):
        image = only(image, "image")
    if not isinstance(image, str):
        raise BadRow("wrong type", f"a {type(image).__name__}, a text is needed", "image")
    return image.removeprefix("./").partition("/")[0]


def _others(counts: Counter[str]) -> list[Drop]:
    """Rows of other subsets, counted: there are half a million of them."""
    return [
        Drop(f"{encodable(name)}/" if name else "rows without a picture", NOT_DRAWN, f"{n} rows")
        for name, n in sorted(counts.items())
    ]
