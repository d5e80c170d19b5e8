"""How one model reads given answers: log p of each word with the picture, with the mean picture in
its place, as the run's negative view shows it, and with each cell of it hidden.

All goes through the forward pass of training (``training/forward.py``): a picture and its question
stand once in a packed sequence, the answers behind them as branches. Of a picture with a hidden
cell the language model alone is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
from seva_exp.grounding.token_maps import TOKEN_MAPS, rank_gaussian
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
Scored = dict[str, list[list[float]]]
"""By a row's id: of each of its answers the log-probability of every token."""
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
    grid: tuple[int, int] | None = None
    """Rows and columns of the picture's image tokens, where it is mapped."""

    def cells(self, blocks: int) -> Cells:
        """Those of its maps; none where it has none."""
        return cells_of(*self.grid, blocks) if self.grid else Cells((0, 0), ())

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
                rows += [row for one in asked for row in _hidden(how, cache, one)]
            found = passes.scored(rows)
            return [_row(how, one, found) | passes.no_maps(one) for one in asked]

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

    def no_maps(self, asked: Asked) -> Json:
        """Why methods made no map of a shown picture."""
        wanted = self._how.how.maps if asked.piece.shown and self._how.how.mapped else ()
        if wanted and asked.grid is None:
            kind = self._how.vlm.model.config.model_type
            why = f"image tokens of {kind} are no grid over the picture (tiles)"
            return {"no_maps": dict.fromkeys(wanted, why)}
        if "occlusion" in wanted and not self.hides and self._forward:
            return {"no_maps": {"occlusion": self._forward.description}}
        return {}

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

    def scored(self, rows: Sequence[Preference]) -> Scored:
        """By a row's id: of each of its answers the log-probability of every token."""
        found: Scored = {}
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
    asked = Asked(piece, images, grid=_grid(how, images[CLEAN]) if piece.shown else None)
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


def _hidden(how: Reading, cache: HidingCache, asked: Asked) -> Iterator[Preference]:
    for number, tokens in enumerate(asked.cells(how.how.blocks).tokens):
        cache.hide(asked.name(hidden(number)), asked.name(CLEAN), tokens)
        yield from _rows_of(asked, hidden(number))


def _learn_mean(how: Reading, cache: HidingCache) -> None:
    if not cache.mean:
        cache.learn_mean(how.vlm.encode_image(load()) for load in how.baseline)


def _grid(how: Reading, image: EncodedImage) -> tuple[int, int] | None:
    """None where nothing is mapped, or the picture's tokens are no grid."""
    if not how.how.mapped:
        return None
    tokens = image.placeholders.count(how.vlm.image_token_id)
    return family_of(how.vlm.model.config).grid(image, tokens)


def _row(how: Reading, asked: Asked, found: Scored) -> Json:
    """What was found of a piece, in the order of its answers."""
    rows: dict[str, Json] = {}
    for number, (prompt, answers) in enumerate(asked.answers.items()):
        for k, answer in enumerate(answers):

            def words(look: str, answer: Answer = answer, at: tuple[int, int] = (number, k)) -> Any:
                tokens = found[f"{asked.name(look)}#{at[0]}"][at[1]]
                return [sum(tokens[i] for i in span.tokens) for span in answer.spans]

            clean = words(CLEAN)
            maps = _token_maps(how, asked, prompt, answer)
            cells = asked.cells(how.how.blocks)
            if f"{asked.name(hidden(0))}#{number}" in found:
                lost = [_less(clean, words(hidden(c))) for c in range(len(cells.tokens))]
                maps["occlusion"] = _map(cells, zip(*lost, strict=True))
            rows[answer.said.by] = {
                "by": answer.said.by,
                "words": [[span.start, span.end] for span in answer.spans],
                "logp": clean,
                "g": _less(clean, words(MEAN)),
                "g_view": _less(clean, words(VIEW)) if VIEW in asked.images else None,
                "maps": maps,
            }
    in_order = [rows[said.by] for said in asked.piece.said if said.by in rows]
    return {"answers": in_order, "left_out": asked.left_out}


def _token_maps(how: Reading, asked: Asked, prompt: str, answer: Answer) -> Json:
    """The maps that one forward pass gives: of a word the mean over its tokens, of a cell the mean
    over its image tokens."""
    cells = asked.cells(how.how.blocks)
    found: Json = {}
    for method in how.how.maps:
        if not asked.grid or method not in TOKEN_MAPS:
            continue
        encoded = how.vlm.encode(asked.images[CLEAN], prompt)
        tokens = TOKEN_MAPS[method](how.vlm, encoded, answer.ids)
        words = [tokens[list(span.tokens)].mean(dim=0) for span in answer.spans]
        if method == "activation":
            words = [rank_gaussian(word.reshape(asked.grid)).flatten() for word in words]
        by_cell = ([word[list(own)].mean().item() for own in cells.tokens] for word in words)
        found[method] = _map(cells, by_cell)
    return found


def _map(cells: Cells, words: Iterable[Iterable[float]]) -> Json:
    return {
        "grid": list(cells.grid),
        "values": [[round(value, 6) for value in word] for word in words],
    }


def _less(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [round(a - b, 6) for a, b in zip(one, other, strict=True)]
