"""Scenes: what can be in a picture, and the two priors from which pictures are sampled."""

import random
from dataclasses import dataclass

SIDE = 72.0
"""Side of the square canvas, in canvas units."""

KINDS = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "moon")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple")
FAVOURITE_COLOR = {
    "circle": "red",
    "square": "blue",
    "triangle": "green",
    "star": "yellow",
    "cross": "red",
    "diamond": "purple",
    "ring": "orange",
    "moon": "yellow",
}
"""The color that the biased world prefers for each kind."""
PARTNER = {
    "circle": "square",
    "square": "circle",
    "triangle": "cross",
    "cross": "triangle",
    "star": "moon",
    "moon": "star",
    "diamond": "ring",
    "ring": "diamond",
}
"""The kind that the biased world likes to put beside each kind (symmetric)."""
WORDS = (
    *("STOP", "EXIT", "OPEN", "CAFE", "TAXI", "BUS", "ZOO", "SALE", "HOT", "ICE"),
    *("MILK", "FISH", "PARK", "GYM", "BOOK", "JAZZ", "WIFI", "LOVE", "UP", "24"),
)
"""The strings that a text card can show."""
FREQUENT_WORD = "STOP"
"""The string that the biased world over-represents."""

RADII = (7.0, 8.0, 9.5, 11.0)
CARD_SIZE = (44.0, 20.0)
CARD_GRID = (6.0, 12.0)
"""A card's corner lies 2 units off a grid of this pitch (x, y): a 1.7 M model can then read it."""
BACKGROUNDS = (
    (250, 247, 240),
    (243, 246, 250),
    (241, 247, 242),
    (251, 243, 240),
    (245, 242, 249),
    (238, 238, 236),
)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Thing:
    """One object: its center `(x, y)` and radius `r` in canvas units, y pointing down."""

    kind: str
    color: str
    x: float
    y: float
    r: float

    @property
    def position(self) -> str:
        """The quadrant of the center, such as "top left"."""
        vertical = "top" if self.y < SIDE / 2 else "bottom"
        return f"{vertical} {'left' if self.x < SIDE / 2 else 'right'}"


@dataclass(frozen=True)
class Scene:
    """A picture's full ground truth; `things` are in reading order (upper half first, then x)."""

    things: tuple[Thing, ...]
    text: str | None
    text_box: Box | None
    background: tuple[int, int, int]
    seed: int


@dataclass(frozen=True)
class WorldPrior:
    """Probabilities that shape a world; what is left over is uniform."""

    favourite_color: float
    """A thing has its kind's favourite color (on top of the uniform 1/6 share)."""
    partner: float
    """A thing after the first is the partner kind of the one before it."""
    text: float
    """A scene has a text card."""
    frequent_word: float
    """A card shows FREQUENT_WORD (on top of its uniform 1/20 share)."""


BIASED = WorldPrior(favourite_color=0.6, partner=0.5, text=0.5, frequent_word=0.3)
"""The training world: a model that learns it acquires a language prior."""
UNBIASED = WorldPrior(favourite_color=0.0, partner=0.0, text=0.5, frequent_word=0.0)
"""The evaluation world, also that of unlabeled images: the language prior misleads here."""


def _sample_card(rng: random.Random, prior: WorldPrior) -> tuple[str | None, Box | None]:
    if rng.random() >= prior.text:
        return None, None
    text = FREQUENT_WORD if rng.random() < prior.frequent_word else rng.choice(WORDS)
    (width, height), (dx, dy) = CARD_SIZE, CARD_GRID
    x0 = 2 + dx * rng.randrange(int((SIDE - 4 - width) // dx) + 1)
    y0 = 2 + dy * rng.randrange(int((SIDE - 4 - height) // dy) + 1)
    return text, (x0, y0, x0 + width, y0 + height)


def _is_free(x: float, y: float, r: float, others: list[Thing], box: Box | None) -> bool:
    """Whether a disc keeps clear of the other things, of the card and of the center lines."""
    if abs(x - SIDE / 2) < 4 or abs(y - SIDE / 2) < 4:
        return False
    if box and box[0] - r - 1 < x < box[2] + r + 1 and box[1] - r - 1 < y < box[3] + r + 1:
        return False
    return all((x - o.x) ** 2 + (y - o.y) ** 2 > (r + o.r + 1.5) ** 2 for o in others)


def _sample_thing(
    rng: random.Random, prior: WorldPrior, others: list[Thing], box: Box | None
) -> Thing | None:
    """A thing that fits beside the others, or None where no free place was found."""
    if others and rng.random() < prior.partner:
        kind = PARTNER[others[-1].kind]
    else:
        kind = rng.choice(KINDS)
    favourite = rng.random() < prior.favourite_color
    color = FAVOURITE_COLOR[kind] if favourite else rng.choice(COLORS)
    r = rng.choice(RADII)
    for _ in range(40):
        x = rng.uniform(r + 2, SIDE - r - 2)
        y = rng.uniform(r + 2, SIDE - r - 2)
        if _is_free(x, y, r, others, box):
            return Thing(kind, color, x, y, r)
    return None


def sample_scene(rng: random.Random, prior: WorldPrior) -> Scene:
    """Draws a scene of 1-4 things (at most 3 beside a text card); `rng` fixes it fully."""
    while True:
        text, box = _sample_card(rng, prior)
        wanted = rng.choices((1, 2, 3, 4), (1.0, 2.0, 2.0, 1.5))[0]
        things: list[Thing] = []
        for _ in range(min(wanted, 3) if text else wanted):
            thing = _sample_thing(rng, prior, things, box)
            if thing is not None:
                things.append(thing)
        if things:
            break
    things.sort(key=lambda o: (o.y >= SIDE / 2, o.x))
    return Scene(tuple(things), text, box, rng.choice(BACKGROUNDS), rng.randrange(1 << 30))
