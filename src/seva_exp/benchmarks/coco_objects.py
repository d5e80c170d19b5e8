"""COCO's objects in a text as a reader would count them, by CHAIR's synonyms (Rohrbach et al. 2018,
arXiv:1809.02156): plurals by a few rules that are bound to the synonyms' own words, and the
official compounds. How the published script counts: ``coco_published``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

ANIMALS = (
    "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal",
    "cub",
)  # fmt: skip
"""A baby or an adult one is still the animal, no person."""
VEHICLES = ("jet", "train")
"""A passenger jet is a jet, no person."""
NO_OBJECTS = ("home plate", "train track")
"""Compounds in which the second or first word is no object."""
WORD = re.compile(r"[a-z]+(?:[-'’][a-z]+)*")
"""A hyphen or an apostrophe keeps together: ``man-made``, ``o'clock``."""
CLITIC = re.compile(r"['’](?:s|d|ll|re|ve|m)$")
IRREGULAR = {
    "men": "man", "children": "child", "people": "person", "mice": "mouse", "geese": "goose",
    "feet": "foot", "teeth": "tooth", "loaves": "loaf", "leaves": "leaf",
}  # fmt: skip
"""Endings as well: ``gentlemen``, ``grandchildren``."""


@dataclass(frozen=True)
class Objects:
    """``names`` maps every synonym (one or more words) to its object."""

    names: dict[str, str]
    words: frozenset[str] = field(init=False, compare=False)
    longest: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        words = frozenset(word for name in self.names for word in name.split())
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "longest", max(len(name.split()) for name in self.names))

    def mentions(self, text: str) -> list[str]:
        """The object of each mention, in order, repeats included."""
        words = [self.singular(CLITIC.sub("", word)) for word in WORD.findall(text.lower())]
        names = list(self._names(words))
        if "toilet" in names and "seat" in names:
            names = [name for name in names if name != "seat"]
        return [self.names[name] for name in names if name in self.names]

    def _names(self, words: list[str]) -> Iterator[str]:
        """The words, compounds as one."""
        at = 0
        while at < len(words):
            for length in range(min(self.longest, len(words) - at), 0, -1):
                phrase = " ".join(words[at : at + length])
                if length == 1 or phrase in self.names or phrase in COMPOUNDS:
                    yield COMPOUNDS.get(phrase, phrase)
                    at += length
                    break

    def singular(self, word: str) -> str:
        """The word if the synonyms have it so; else the singular that they have; else a likely
        one."""
        if word in self.words:
            return word
        guesses = list(_singulars(word))
        return next((guess for guess in guesses if guess in self.words), guesses[0])


COMPOUNDS = (
    {f"{age} {animal}": animal for age in ("baby", "adult") for animal in ANIMALS}
    | {f"passenger {vehicle}": vehicle for vehicle in VEHICLES}
    | {name: name for name in NO_OBJECTS}
    | {"bow tie": "tie", "toilet seat": "toilet"}
)


def _singulars(word: str) -> Iterator[str]:
    """What the word may be a plural of, the likeliest first; at last the word itself."""
    for plural, one in IRREGULAR.items():
        if word.endswith(plural):
            yield word.removesuffix(plural) + one
    if word.endswith("ies") and len(word) > 4:
        yield word[:-3] + "y"
    if word.endswith("ves"):
        yield word[:-3] + "f"
        yield word[:-3] + "fe"
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        yield word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        yield word[:-1]
    yield word


def read_synonyms(text: str) -> Objects:
    """The official synonyms.txt: a line an object, its name first, commas between."""
    names: dict[str, str] = {}
    for line in text.splitlines():
        words = [word.strip().lower() for word in line.split(",") if word.strip()]
        names.update({word: words[0] for word in words})
    return Objects(names)
