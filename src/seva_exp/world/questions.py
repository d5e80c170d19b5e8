"""Questions about a scene with exact answers; each function draws one with `rng`.

A function gives None where the scene has no unambiguous question of its type.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

from seva_exp.world.language import NUMBERS, plural, with_article
from seva_exp.world.scene import COLORS, FAVOURITE_COLOR, KINDS, PARTNER, SIDE, Scene, Thing

EXISTENCE_MODES = ("random", "popular", "adversarial")
"""How an absent thing is picked, after POPE (arXiv:2305.10355)."""
POPULAR_KINDS = ("circle", "square", "star", "moon")
RELATION_GAP = SIDE / 8
"""Least difference in x of two things that are asked about, in canvas units."""


class QA(NamedTuple):
    """One question, its exact answer and its type."""

    question: str
    answer: str
    type: str


def _absent_kinds(scene: Scene, mode: str) -> list[str]:
    """Kinds that are not in the scene; those that suit `mode`, if there are any."""
    kinds = [o.kind for o in scene.things]
    absent = [k for k in KINDS if k not in kinds]
    suited = {
        "random": absent,
        "popular": [k for k in POPULAR_KINDS if k not in kinds],
        "adversarial": [PARTNER[k] for k in dict.fromkeys(kinds) if PARTNER[k] not in kinds],
    }[mode]
    return suited or absent


def _absent_pairs(scene: Scene, mode: str) -> list[tuple[str, str]]:
    """(color, kind) pairs that are not in the scene, by `mode` as above."""
    pairs = [(o.color, o.kind) for o in scene.things]
    kinds = list(dict.fromkeys(o.kind for o in scene.things))
    absent = [(c, k) for k in KINDS for c in COLORS if (c, k) not in pairs]
    near = dict.fromkeys([*kinds, *(PARTNER[k] for k in kinds)])
    candidates = {"random": (), "popular": KINDS, "adversarial": near}[mode]
    suited = [(FAVOURITE_COLOR[k], k) for k in candidates]
    return [pair for pair in suited if pair not in pairs] or absent


def existence(scene: Scene, rng: random.Random, want: bool, mode: str = "random") -> QA:
    """A yes/no question on a kind or a colored kind; `want` is the answer.

    `mode` picks the absent thing of a "No" question: any (random), one of the biased world's
    everyday things (popular), or one that it puts beside what is there (adversarial).
    """
    if mode not in EXISTENCE_MODES:
        raise ValueError(f"mode: {mode!r} is none of {', '.join(EXISTENCE_MODES)}")
    colored = rng.random() < 0.5
    if want:
        thing = rng.choice(scene.things)
        color, kind = thing.color, thing.kind
    elif colored:
        color, kind = rng.choice(_absent_pairs(scene, mode))
    else:
        color, kind = "", rng.choice(_absent_kinds(scene, mode))
    name = with_article(f"{color} {kind}" if colored else kind)
    return QA(f"Is there {name} in the image?", "Yes" if want else "No", "existence")


def _unique_kinds(scene: Scene) -> list[Thing]:
    """The things whose kind occurs once."""
    kinds = [o.kind for o in scene.things]
    return [o for o in scene.things if kinds.count(o.kind) == 1]


def color(scene: Scene, rng: random.Random) -> QA | None:
    """The color of a thing that is named by its kind."""
    things = _unique_kinds(scene)
    if not things:
        return None
    thing = rng.choice(things)
    return QA(f"What color is the {thing.kind}?", thing.color, "color")


def kind(scene: Scene, rng: random.Random) -> QA | None:
    """The kind of a thing that is named by its color."""
    colors = [o.color for o in scene.things]
    things = [o for o in scene.things if colors.count(o.color) == 1]
    if not things:
        return None
    thing = rng.choice(things)
    return QA(f"What shape is the {thing.color} object?", thing.kind, "kind")


def count(scene: Scene, rng: random.Random) -> QA | None:
    """The number of all things, or of those of one kind (absent in about 1 of 5 cases)."""
    if rng.random() < 0.5:
        return QA("How many objects are there?", NUMBERS[len(scene.things)], "count")
    present = rng.random() < 0.75
    name = rng.choice(scene.things).kind if present else rng.choice(KINDS)
    n = sum(o.kind == name for o in scene.things)
    return QA(f"How many {plural(name)} are there?", NUMBERS[n], "count")


def position(scene: Scene, rng: random.Random) -> QA | None:
    """The quadrant of a thing."""
    things = _unique_kinds(scene)
    if not things:
        return None
    thing = rng.choice(things)
    return QA(f"Where is the {thing.kind}?", thing.position, "position")


def side(scene: Scene, rng: random.Random) -> QA | None:
    """Half a position, the left or the right: it is only trained on, no benchmark asks for it."""
    things = _unique_kinds(scene)
    if not things:
        return None
    thing = rng.choice(things)
    return QA(f"On what side is the {thing.kind}?", thing.position.split()[1], "side")


def relation(scene: Scene, rng: random.Random) -> QA | None:
    """Whether one thing is to the left or right of another; the answer is as often yes as no."""
    things = _unique_kinds(scene)
    if len(things) < 2:
        return None
    a, b = rng.sample(things, 2)
    if abs(a.x - b.x) < RELATION_GAP:
        return None
    side = rng.choice(("left", "right"))
    holds = (a.x < b.x) == (side == "left")
    question = f"Is the {a.kind} to the {side} of the {b.kind}?"
    return QA(question, "Yes" if holds else "No", "relation")


def text(scene: Scene, rng: random.Random) -> QA | None:
    """What the text card says, in lower case."""
    if scene.text is None:
        return None
    question = rng.choice(
        ("What is written in the image?", "What does the text say?", "Read the text.")
    )
    return QA(question, scene.text.lower(), "text")


QUESTIONS: dict[str, Callable[[Scene, random.Random], QA | None]] = {
    "color": color,
    "kind": kind,
    "count": count,
    "position": position,
    "relation": relation,
    "text": text,
}
"""The question types of the world's visual question answering benchmark."""
