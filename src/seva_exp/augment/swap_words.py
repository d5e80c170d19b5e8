"""The clean answer with words changed for others of the same class."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from pydantic import Field, field_validator

from seva_exp.augment.base import AnswerEdit

WORDS: dict[str, tuple[str, ...]] = {
    "color": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray"),
    "light": ("black", "white"),
    "number": ("zero", "one", "two", "three", "four", "five", "six"),
    "shape": ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "moon"),
    "side": ("left", "right"),
    "height": ("above", "below"),
    "edge": ("top", "bottom"),
    "adult": ("man", "woman"),
    "child": ("boy", "girl"),
    "animal": ("cat", "dog", "horse", "cow", "bird", "elephant", "bear", "zebra", "giraffe"),
    "vehicle": ("car", "bus", "truck", "train", "bicycle", "motorcycle", "boat", "airplane"),
    "furniture": ("chair", "table", "bed", "couch", "bench", "desk"),
    "food": ("apple", "banana", "sandwich", "pizza", "cake", "carrot"),
    "tableware": ("cup", "bottle", "bowl", "plate", "glass", "fork", "spoon"),
}


class SwapWords(AnswerEdit):
    """Colors, numbers, objects and places in the clean answer become others of their class: as
    well written as the chosen answer, and wrong about the picture.

    A rule in place of the language model that puts mistakes into an answer in POVID
    (arXiv:2402.11411, stage 1). A word becomes the same other one throughout an answer, singular
    or plural, in the case it had, and a or an before it is set right. An answer without such a word
    stays as it is; the filter ``equal`` removes it.
    """

    kind: Literal["swap_words"] = "swap_words"
    share: float = Field(
        0.5, gt=0, le=1, description="of an answer's different words that are changed, one at least"
    )
    words: dict[str, tuple[str, ...]] = Field(
        WORDS, min_length=1, description="classes by name: two words or more each, in lower case"
    )

    @field_validator("words")
    @classmethod
    def _classes_apart(cls, words: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        seen: dict[str, str] = {}
        for name, members in words.items():
            if len(members) < 2:
                raise ValueError(f"{name}: a class needs two words or more")
            for word in members:
                if not word.strip() or word != word.lower():
                    raise ValueError(f"{name}: {word!r} is no word in lower case")
                if word in seen:
                    raise ValueError(f"{name}: {word!r} is in {seen[word]} already")
                seen[word] = name
        return words

    @cached_property
    def _others(self) -> dict[str, tuple[str, ...]]:
        """The other words of each one's class."""
        return {
            word: tuple(other for other in members if other != word)
            for members in self.words.values()
            for word in members
        }

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """A word of a class, singular or plural, with an article before it: groups article,
        blanks, singular or plural."""
        one, many = ("|".join(map(re.escape, words)) for words in (self._others, self._plurals))
        return re.compile(rf"(?:\b(an?)(\s+))?\b(?:({one})|({many}))\b", re.IGNORECASE)

    @cached_property
    def _plurals(self) -> dict[str, str]:
        return {plural(word): word for word in self._others}

    def __call__(self, x: str, rng: random.Random) -> str:
        found = dict.fromkeys(self._word(match) for match in self._pattern.finditer(x))
        if not found:
            return x
        drawn = [word for word in found if rng.random() < self.share] or [rng.choice([*found])]
        changes = {word: rng.choice(self._others[word]) for word in drawn}
        return self._pattern.sub(lambda match: self._changed(match, changes), x)

    def _word(self, match: re.Match[str]) -> str:
        """The singular, in lower case."""
        return match[3].lower() if match[3] else self._plurals[match[4].lower()]

    def _changed(self, match: re.Match[str], changes: Mapping[str, str]) -> str:
        word = self._word(match)
        if word not in changes:
            return match[0]
        new, old = changes[word], match[3] or match[4]
        written = in_case_of(old, new if match[3] else plural(new))
        if not match[1]:
            return written
        return in_case_of(match[1], "an" if new[0] in "aeiou" else "a") + match[2] + written


def plural(word: str) -> str:
    """ "bus" -> "buses"."""
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def in_case_of(old: str, new: str) -> str:
    """``new`` in capitals, with a capital or without, as ``old`` is."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new.capitalize() if old[0].isupper() else new
