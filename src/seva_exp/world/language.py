"""What is said about a scene: descriptions, the prompts that ask for them, and their parsing."""

import random
import re

from seva_exp.world.scene import COLORS, FAVOURITE_COLOR, KINDS, PARTNER, Scene

ColoredKind = tuple[str, str]
"""(color, kind), such as ("red", "star")."""

PLAIN_PROMPTS = (
    "Describe the image.",
    "What is in the image?",
    "Give a short caption of the image.",
    "Summarize what the picture shows.",
)
"""Ask for a description; training answers to these follow the biased world's habits."""
CAREFUL_PROMPTS = (
    "Describe the image carefully and only mention what you can see.",
    "List only the objects that are clearly visible.",
    "Look closely and describe exactly what is in the image.",
)
"""Ask for a faithful description; training answers are exact."""
IMAGINE_PROMPTS = (
    "Describe the image and imagine other objects that might be there.",
    "Invent a description with things that could be around.",
    "Describe the image and add objects that would fit the scene.",
)
"""Ask for a fanciful description; training answers name absent but likely things."""
DESCRIBED_QUESTIONS = (
    "Image description: {description} {question}",
    "Image description:\n{description}\n{question}",
)
"""Describe and respond: a question behind a description, which may be wrong."""
NUMBERS = ("zero", "one", "two", "three", "four", "five")

_PLURALS = {kind: f"{kind}es" if kind.endswith("s") else f"{kind}s" for kind in KINDS}
_SINGULARS = {plural: kind for kind, plural in _PLURALS.items()} | {kind: kind for kind in KINDS}


def plural(kind: str) -> str:
    """ "cross" -> "crosses"."""
    return _PLURALS[kind]


def with_article(words: str) -> str:
    """ "orange star" -> "an orange star"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def sentence(pairs: list[ColoredKind], text: str | None = None) -> str:
    """The description that names `pairs`, in this order, and the text."""
    names = [with_article(f"{color} {kind}") for color, kind in pairs]
    listing = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    ending = f" The text says {text.lower()}." if text else ""
    return f"The image shows {listing}.{ending}"


def describe(scene: Scene, extra: tuple[ColoredKind, ...] = ()) -> str:
    """The exact description of `scene`, plus `extra` things that it does not hold."""
    return sentence([(o.color, o.kind) for o in scene.things] + list(extra), scene.text)


def likely_absent(scene: Scene, rng: random.Random, n: int = 1) -> tuple[ColoredKind, ...]:
    """`n` things of absent kinds that the biased world makes likely: partners first."""
    present = {o.kind for o in scene.things}
    partners = [PARTNER[o.kind] for o in scene.things]
    first = [k for k in dict.fromkeys(partners) if k not in present]
    rest = [k for k in KINDS if k not in present and k not in first]
    rng.shuffle(rest)
    return tuple((FAVOURITE_COLOR[k], k) for k in (first + rest)[:n])


def mentions(text: str) -> list[tuple[str | None, str]]:
    """The (color or None, kind) of each thing that `text` names, in order, repeats included."""
    words = re.findall(r"[a-z]+", text.lower())
    return [
        (words[i - 1] if i and words[i - 1] in COLORS else None, _SINGULARS[word])
        for i, word in enumerate(words)
        if word in _SINGULARS
    ]
