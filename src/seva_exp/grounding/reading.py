"""How one model reads given answers: log p of each word with the picture, with the mean picture in
its place, as the run's negative view shows it, and with each cell of it hidden.

All goes through the forward pass of training (``training/forward.py``): a picture and its question
stand once in a packed sequence, the answers behind them as branches. Of a picture with a hidden
cell the language model alone is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from PIL.Image import Image, Resampling

from seva_exp.core.errors import UnusableText
from seva_exp.core.interfaces import EncodedImage, Placement, VisionLanguageModel
from seva_exp.core.spec import Json
from seva_exp.grounding.cells import Cells, cells_of
from seva_exp.grounding.pictures import HidingCache, mean_picture
from seva_exp.grounding.pieces import Piece, Said
from seva_exp.grounding.spec import Explain
from seva_exp.grounding.words import Span, spans_of
from seva_exp.inputs.views import View
from seva_exp.models.context import context_of
from seva_exp.models.families import family_of
from seva_exp.training.collate import Preference
from seva_exp.training.forward import (
    Forward,
    PackedForward,
    answers_of,
    forward_for,
    passed,
)
from seva_exp.training.reference import scoring

CLEAN, MEAN, VIEW = "clean", "mean", "view"
Read = Callable[[Sequence[Piece]], list[Json]]
"""A row for each piece: ``{"answers": [...], "left_out": [...]}``."""


@dataclass(frozen=True)
class Reading:
    """What is read with: the model as it is loaded; ``baseline``: pictures whose mean stands for
    none; ``view``: the run's negative view (None: none that such a picture can be shown in)."""

    vlm: VisionLanguageModel
    how: Explain
    placement: Placement
    baseline: Sequence[Callable[[], Image]]
    view: View | None = None
    keep: Callable[[Piece, Image, Image | None], None] = lambda piece, clean, worse: None
    """Takes what the model sees of a shown piece's picture: clean, and in ``view``."""


@dataclass(frozen=True)
class Answer:
    """An answer as ids, and its words."""

    said: Said
    ids: tuple[int, ...]
    spans: tuple[Span, ...]


@dataclass
class Asked:
    """A piece with its pictures, by how they are looked at, and its answers by their prompt."""

    piece: Piece
    images: dict[str, EncodedImage]
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    cells: Cells | None = None

    def name(self, look: str) -> str:
        """Of a picture, as it is looked at."""
        return f"{self.piece.id}/{look}"


def hidden(cell: int) -> str:
    """How a picture with a hidden cell is looked at."""
    return f"hidden/{cell}"


@contextmanager
def reading(how: Reading) -> Iterator[Read]:
    """A function that reads pieces; the model is then as it was. Maps of occlusion are made where
    the packed sequence is taken, and the picture's tokens are a grid."""
    cache = HidingCache(how.vlm)
    mean = mean_picture(load() for load in how.baseline)
    with scoring(how.vlm, None) as model, closing(_Passes(how, model, cache)) as passes:

        def read(pieces: Sequence[Piece]) -> list[Json]:
            cache.forget()
            asked = [_prepared(how, piece, mean) for piece in pieces]
            rows = [row for one in asked for row in _looks(cache, one)]
            passes.open(rows)
            if passes.hides:
                _learn_mean(how, cache)
                for one in asked:
                    one.cells = _cells(how, one)
                    rows += _hidden(cache, one)
            found = passes.scored(rows)
            return [_row(one, found) for one in asked]

        yield read


class _Passes:
    """The forward pass that the model allows: on the packed sequence, or on plain rows, on which no
    part of a picture can be hidden."""

    def __init__(self, how: Reading, model: Any, cache: HidingCache) -> None:
        self._how, self._model, self._cache = how, model, cache
        self._forward: Forward | None = None

    @property
    def hides(self) -> bool:
        """Whether parts of pictures can be hidden, and are wanted to be."""
        wanted = self._how.how.mapped and "occlusion" in self._how.how.maps
        return wanted and isinstance(self._forward, PackedForward)

    def open(self, first: Sequence[Preference]) -> None:
        """Chosen once, on the first rows (packed and plain ones are compared on them)."""
        if self._forward or not first:
            return
        how = self._how
        few = first[: how.placement.train_batch_size]
        chosen = forward_for(how.vlm, self._model, few, "auto", how.placement)
        if isinstance(chosen, PackedForward):
            chosen.close()
            chosen = PackedForward(how.vlm, self._cache)
        self._forward = chosen

    def scored(self, rows: Sequence[Preference]) -> dict[str, list[list[float]]]:
        """By a row's id: of each of its answers the log-probability of every token."""
        found: dict[str, list[list[float]]] = {}
        size = self._how.placement.train_batch_size
        for at in range(0, len(rows), size):
            some = rows[at : at + size]
            tokens = self._tokens(some)
            for row in some:
                found[row.id] = [next(tokens)]
            for row in some:
                found[row.id] += [next(tokens) for _ in row.rejected]
        return found

    def _tokens(self, rows: Sequence[Preference]) -> Iterator[list[float]]:
        """All chosen answers, then all others."""
        assert self._forward
        batch = self._forward.collator(rows)([{"row": i} for i in range(len(rows))])
        how = self._how
        dtype = how.vlm.model.dtype
        inputs, out = passed(self._forward, self._model, batch, how.placement, dtype)
        where = answers_of(inputs).cpu()
        values = out["log_probs"].float().cpu()
        return iter([value[mask].tolist() for value, mask in zip(values, where, strict=True)])

    def close(self) -> None:
        """Leave the model as it was."""
        if self._forward:
            self._forward.close()
        self._forward = None


def _prepared(how: Reading, piece: Piece, mean: Image) -> Asked:
    vlm, load = how.vlm, piece.question.load
    assert load, "pieces have a picture"
    picture = load()
    images = {
        CLEAN: vlm.encode_image(picture),
        MEAN: vlm.encode_image(mean.resize(picture.size, Resampling.BICUBIC)),
    }
    if how.view:
        shown = vlm.encode_image(how.view.image(picture, piece.id))
        images[VIEW] = how.view.pixels(vlm, shown, piece.id)
    if piece.shown:
        worse = vlm.to_picture(images[VIEW]) if how.view else None
        how.keep(piece, vlm.to_picture(images[CLEAN]), worse)
    asked = Asked(piece, images)
    for said in piece.said:
        try:
            answer, prompt = _answer(vlm, said), vlm.encode(images[CLEAN], said.prompt)
        except UnusableText as error:
            asked.left_out.append(f"{piece.id}: {error.reason}")
            continue
        room = context_of(vlm)
        if room is not None and len(prompt.ids) + len(answer.ids) > room:
            asked.left_out.append(f"{piece.id}: too_long")
        elif answer.spans:
            asked.answers.setdefault(said.prompt, []).append(answer)
    return asked


def _answer(vlm: VisionLanguageModel, said: Said) -> Answer:
    ids = vlm.answer_ids(said.prompt, said.text)
    return Answer(said, ids, tuple(spans_of(said.text, ids[:-1], vlm.decode)))


def _rows_of(asked: Asked, look: str) -> Iterator[Preference]:
    """A row per prompt, all its answers behind it."""
    name = asked.name(look)
    for number, (prompt, answers) in enumerate(asked.answers.items()):
        assert asked.piece.question.load
        yield Preference(
            id=f"{name}#{number}",
            prompt=prompt,
            load=asked.piece.question.load,
            chosen=answers[0].ids,
            rejected=tuple(answer.ids for answer in answers[1:]),
            picture_id=name,
            shown=partial(asked.images.__getitem__, look if look in asked.images else CLEAN),
        )


def _looks(cache: HidingCache, asked: Asked) -> Iterator[Preference]:
    for look, image in asked.images.items():
        cache.show(asked.name(look), image)
        yield from _rows_of(asked, look)


def _hidden(cache: HidingCache, asked: Asked) -> Iterator[Preference]:
    for number, tokens in enumerate(asked.cells.tokens if asked.cells else ()):
        cache.hide(asked.name(hidden(number)), asked.name(CLEAN), tokens)
        yield from _rows_of(asked, hidden(number))


def _learn_mean(how: Reading, cache: HidingCache) -> None:
    if not cache.mean:
        cache.learn_mean(how.vlm.encode_image(load()) for load in how.baseline)


def _cells(how: Reading, asked: Asked) -> Cells | None:
    """None where nothing is mapped, or the picture's tokens are no grid."""
    if not asked.piece.shown:
        return None
    image = asked.images[CLEAN]
    tokens = image.placeholders.count(how.vlm.image_token_id)
    grid = family_of(how.vlm.model.config).grid(image, tokens)
    return cells_of(*grid, how.how.blocks) if grid else None


def _row(asked: Asked, found: dict[str, list[list[float]]]) -> Json:
    """What was found of a piece, in the order of its answers."""
    rows: dict[str, Json] = {}
    for number, answers in enumerate(asked.answers.values()):

        def words(look: str, k: int, answer: Answer, number: int = number) -> list[float]:
            tokens = found[f"{asked.name(look)}#{number}"][k]
            return [sum(tokens[i] for i in span.tokens) for span in answer.spans]

        for k, answer in enumerate(answers):
            clean = words(CLEAN, k, answer)
            rows[answer.said.by] = {
                "by": answer.said.by,
                "words": [[span.start, span.end] for span in answer.spans],
                "logp": clean,
                "g": _less(clean, words(MEAN, k, answer)),
                "g_view": _less(clean, words(VIEW, k, answer)) if VIEW in asked.images else None,
                "maps": {},
            }
            if asked.cells:
                cells = range(len(asked.cells.tokens))
                lost = [_less(clean, words(hidden(c), k, answer)) for c in cells]
                rows[answer.said.by]["maps"]["occlusion"] = {
                    "grid": list(asked.cells.grid),
                    "values": [list(of_word) for of_word in zip(*lost, strict=True)],
                }
    answers_in_order = [rows[said.by] for said in asked.piece.said if said.by in rows]
    return {"answers": answers_in_order, "left_out": asked.left_out}


def _less(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [round(a - b, 6) for a, b in zip(one, other, strict=True)]
