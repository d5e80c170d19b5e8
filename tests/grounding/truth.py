"""The embedded world knows where each thing of a picture is: are the maps of the words that name
them right?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import torch

from seva_exp.benchmarks.question import Question
from seva_exp.benchmarks.shapes import PROMPT, ShapesBenchmark
from seva_exp.core.interfaces import Placement, VisionLanguageModel
from seva_exp.core.progress import progress
from seva_exp.core.randomness import python_rng
from seva_exp.core.records import Prediction
from seva_exp.grounding.cells import Cells
from seva_exp.grounding.pieces import Piece
from seva_exp.grounding.reading import Asked, Reading, reading
from seva_exp.grounding.spec import Explain, Method
from seva_exp.world import draw
from seva_exp.world.language import describe, likely_absent, sentence
from seva_exp.world.scene import COLORS, KINDS, SIDE, Scene, Thing

BENCHMARK = ShapesBenchmark(images=4000, seed=9100)
"""Pictures that no run measures."""
CELL = SIDE / 6
"""Side of an image token, in the picture's units."""


@dataclass(frozen=True)
class Named:
    """A word of a description that names ``thing`` (None: a thing that is made up), of picture
    ``number``: how much it rests on the picture, and its map."""

    number: int
    scene: Scene
    word: str
    thing: Thing | None
    g: float
    logp: float
    cells: tuple[float, ...] = ()
    place: int = 0
    """Which word of the description it is."""

    @property
    def is_function(self) -> bool:
        """Whether it is neither a kind nor a colour."""
        return self.word not in (*KINDS, *COLORS)


def scenes(count: int, first: int = 0) -> list[Scene]:
    return [BENCHMARK.scene(number)[0] for number in range(first, first + count)]


def described(number: int, scene: Scene, text: str, shown: Scene | None = None) -> Piece:
    """A description of ``scene``, whatever the picture shows."""
    load = partial(draw, shown or scene)
    question = Question(f"{number:06d}", f"{number:06d}", "describe", PROMPT, "", 48, load)
    said = Prediction(question.id, question.group, "describe", PROMPT, text, "", "", None)
    return Piece(question, said, said, shown=True)


def placement() -> Placement:
    return Placement("cpu", 64, 16, False, partial(progress, "off"), Path())


def read(
    vlm: VisionLanguageModel, pieces: Sequence[Piece], maps: tuple[Method, ...] = ()
) -> list[dict]:
    """A row for each piece, by this model."""
    baseline = [partial(draw, scene) for scene in scenes(32, 3000)]
    how = Reading(vlm, Explain(maps=maps), placement(), baseline)
    with reading(how) as rows:
        return [row for at in range(0, len(pieces), 16) for row in rows(pieces[at : at + 16])]


def named(
    vlm: VisionLanguageModel,
    some: Sequence[Scene],
    method: Method | None = None,
    *,
    invented: bool = False,
    shown: Sequence[Scene] | None = None,
) -> list[Named]:
    """The words of the true description of each scene (with ``invented`` of one that also names a
    likely thing that is absent), as they are read on its picture, or on that of ``shown``."""
    absent = [
        likely_absent(scene, python_rng(0, "absent", str(i)))[0] for i, scene in enumerate(some)
    ]
    texts = [
        sentence([(o.color, o.kind) for o in scene.things] + [extra], scene.text)
        if invented
        else describe(scene)
        for scene, extra in zip(some, absent, strict=True)
    ]
    pictures = shown or some
    pieces = [
        described(i, scene, text, picture)
        for i, (scene, text, picture) in enumerate(zip(some, texts, pictures, strict=True))
    ]
    rows = read(vlm, pieces, (method,) if method else ())
    return [
        word
        for i, (scene, row) in enumerate(zip(some, rows, strict=True))
        for word in _words(i, scene, texts[i], row["answers"][0], method)
    ]


def _words(
    number: int, scene: Scene, text: str, answer: dict, method: Method | None
) -> Iterator[Named]:
    """In the order of the description, which names the things in theirs."""
    things: list[Thing | None] = [*scene.things, None]
    at = 0
    for i, (start, end) in enumerate(answer["words"]):
        word = text[start:end].lower()
        if not word.isalnum():
            continue
        mine = things[min(at, len(things) - 1)] if word in (*KINDS, *COLORS) else None
        cells = tuple(answer["maps"][method]["values"][i]) if method else ()
        yield Named(number, scene, word, mine, answer["g"][i], answer["logp"][i], cells, i)
        at += word in KINDS


def centre(cell: int) -> tuple[float, float]:
    row, column = divmod(cell, 6)
    return (column + 0.5) * CELL, (row + 0.5) * CELL


def on(thing: Thing, cell: int) -> bool:
    """Whether a cell's centre is on the thing's disc, widened by half a cell."""
    x, y = centre(cell)
    return (x - thing.x) ** 2 + (y - thing.y) ** 2 <= (thing.r + CELL / 2) ** 2


def in_box(thing: Thing, cell: int) -> float:
    """The share of a cell that lies in the thing's box."""
    x, y = centre(cell)
    half = CELL / 2
    wide = min(x + half, thing.x + thing.r) - max(x - half, thing.x - thing.r)
    high = min(y + half, thing.y + thing.r) - max(y - half, thing.y - thing.r)
    return max(0.0, wide) * max(0.0, high) / CELL**2


def pointing(words: Sequence[Named]) -> tuple[float, float]:
    """Share of maps whose largest cell is on the thing; and of all cells."""
    hits = [on(w.thing, max(range(36), key=w.cells.__getitem__)) for w in words if w.thing]
    chance = [fmean(on(w.thing, cell) for cell in range(36)) for w in words if w.thing]
    return fmean(hits), fmean(chance)


def energy(words: Sequence[Named]) -> tuple[float, float]:
    """Share of a map's positive part that lies in the thing's box; and the box's of the picture."""
    shares, chance = [], []
    for word in words:
        if word.thing is None:
            continue
        parts = [max(0.0, value) for value in word.cells]
        inside = sum(part * in_box(word.thing, cell) for cell, part in enumerate(parts))
        shares.append(inside / sum(parts) if any(parts) else 0.0)
        chance.append(sum(in_box(word.thing, cell) for cell in range(36)) / 36)
    return fmean(shares), fmean(chance)


def auroc(high: Sequence[float], low: Sequence[float]) -> float:
    """How often one of ``high`` is above one of ``low``; ties half."""
    pairs = [(a > b) + (a == b) / 2 for a in high for b in low]
    return fmean(pairs)


def things_of(words: Sequence[Named]) -> list[Named]:
    """The kind and colour words of real things."""
    return [word for word in words if word.thing]


def without(scene: Scene, thing: Thing) -> Scene:
    """The scene drawn again without one thing."""
    return replace(scene, things=tuple(one for one in scene.things if one is not thing))


def made_up(words: Sequence[Named]) -> list[Named]:
    """Those of things that are not there."""
    return [word for word in words if word.thing is None and not word.is_function]


def of_another_thing(words: Sequence[Named]) -> list[Named]:
    """Each word's thing with the map of a word of the same class for another thing of the scene."""
    return _with_maps_of(words, lambda w, o: o.number == w.number and o.thing is not w.thing)


def of_another_scene(words: Sequence[Named]) -> list[Named]:
    """Each word's thing with the map of a word of the same class in the scene after the next."""
    return _with_maps_of(words, lambda w, o: o.number == w.number + 2)


def _with_maps_of(words: Sequence[Named], other: Callable[[Named, Named], bool]) -> list[Named]:
    found = []
    for word in words:
        same = (one for one in words if (one.word in KINDS) == (word.word in KINDS))
        others = [one for one in same if other(word, one)]
        found += [replace(word, cells=others[0].cells)] if others else []
    return found


def shuffled(words: Sequence[Named]) -> list[Named]:
    """Each map with its cells in another order."""
    found = []
    for number, word in enumerate(words):
        order = python_rng(0, "shuffled", str(number)).sample(range(36), 36)
        found.append(replace(word, cells=tuple(word.cells[i] for i in order)))
    return found


STEPS = (1, 2, 4, 6, 9, 12)
"""Cells that are hidden together."""


def deletion(vlm: VisionLanguageModel, words: Sequence[Named], by_map: bool) -> float:
    """Nats of log p that a word loses on the mean over ``STEPS``, with so many cells hidden: those
    of its largest values, or any."""
    pieces, sets = [], {}
    for number, word in enumerate(words):
        order = sorted(range(36), key=lambda cell, word=word: -word.cells[cell])
        if not by_map:
            order = python_rng(0, "deletion", str(number)).sample(range(36), 36)
        pieces.append(described(number, word.scene, describe(word.scene)))
        sets[pieces[-1].id] = Cells((1, len(STEPS)), tuple(tuple(order[:k]) for k in STEPS))
    with patch.object(Asked, "cells", lambda asked, blocks: sets[asked.piece.id]):
        rows = read(vlm, pieces, ("occlusion",))
    return fmean(
        fmean(row["answers"][0]["maps"]["occlusion"]["values"][word.place])
        for word, row in zip(words, rows, strict=True)
    )


def counterfactual(
    vlm: VisionLanguageModel, some: Sequence[Scene]
) -> tuple[list[Named], list[Named]]:
    """The kind words of each scene's last thing, read on its picture, and on that of the scene
    drawn again without this thing; scenes of one thing are left out."""
    kept = [scene for scene in some if len(scene.things) > 1]
    again = [without(scene, scene.things[-1]) for scene in kept]
    both = named(vlm, kept, "occlusion"), named(vlm, kept, "occlusion", shown=again)
    one, other = (
        [w for w in words if w.thing is w.scene.things[-1] and w.word in KINDS] for words in both
    )
    return one, other


def peak(words: Sequence[Named]) -> float:
    """Nats: the mean over maps of what the largest cell on the thing is worth."""
    return fmean(
        max((w.cells[cell] for cell in range(36) if on(w.thing, cell)), default=0.0)
        for w in words
        if w.thing
    )


def randomize(vlm: VisionLanguageModel, seed: int = 0) -> None:
    """Put random numbers in the place of all trained matrices of ``vlm``."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in vlm.model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.02)
