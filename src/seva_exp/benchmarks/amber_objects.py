"""AMBER's generative part (Wang et al. 2023, arXiv:2311.07397): which objects a description names,
and what of them is there, made up, or what people are prone to imagine.

Objects are the words of the official ``relation.json``. Which words of a text are such nouns is the
reader's business: ``nouns`` finds them by rules bound to that vocabulary, ``amber_official`` by the
official tools. What is counted of them is the official rule (``inference.py`` of
github.com/junyangwang0410/AMBER), oddities included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from seva_exp.benchmarks.coco_objects import CLITIC, WORD, Objects
from seva_exp.benchmarks.mentions import mention_counts

Similar = Callable[[str, str], bool]
"""Whether two words mean about the same."""
NOUN_FOLLOWS = frozenset(
    (
        "a", "an", "the", "this", "that", "these", "those", "his", "her", "its", "their", "my",
        "your", "our", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
        "ten", "several", "some", "many", "few", "both", "another", "each", "every", "no", "any",
        "other", "of", "with", "in", "on", "by",
    )
)  # fmt: skip
"""Behind one of these an ambiguous word is a noun."""
AMBIGUOUS = frozenset(
    (
        "can", "leave", "watch", "paddle", "ski", "skate", "support", "sound", "drink", "note",
        "pack", "file", "lock", "tie", "ring", "switch", "spray", "drain", "plug", "tap", "sail",
    )
)  # fmt: skip
"""Objects of the vocabulary that a description has more often as verbs ("can be seen"): they count
only where ``_is_noun`` says so."""
NEVER = frozenset({"hot"})
"""In the vocabulary (of a hot dog's list), and no noun."""


@dataclass(frozen=True)
class AmberLists:
    """``relation.json`` (a word -> words that stand for it as well) and ``safe_words.txt`` (words
    that are neither right nor wrong)."""

    related: Mapping[str, Sequence[str]]
    safe: frozenset[str]

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """All words that count as objects."""
        return frozenset(self.related) | {word for words in self.related.values() for word in words}

    @cached_property
    def _objects(self) -> Objects:
        return Objects({word.lower(): word for word in sorted(self.vocabulary)})

    def nouns(self, text: str) -> list[str]:
        """The objects that a text names, in order, repeats included, by rules: a word of the
        vocabulary in singular or plural, in any case; the ``AMBIGUOUS`` where they cannot be
        verbs."""
        words = [CLITIC.sub("", word) for word in WORD.findall(text.lower())]
        names = [self._objects.names.get(self._objects.singular(word)) for word in words]
        return [
            name
            for at, name in enumerate(names)
            if name and name not in NEVER and (name not in AMBIGUOUS or _is_noun(at, words, names))
        ]

    def stand_ins(self, objects: Sequence[str]) -> Iterator[tuple[str, int]]:
        """(word, place of its object), in the order in which the official rule looks: the related
        words of all objects, then the objects themselves."""
        for place, name in enumerate(objects):
            yield from ((word, place) for word in self.related[name])
        yield from ((name, place) for place, name in enumerate(objects))


def described_counts(
    nouns: Sequence[str],
    there: Sequence[str],
    imagined: Sequence[str],
    lists: AmberLists,
    text: str,
    similar: Similar | None = None,
) -> dict[str, float]:
    """The counts of one description: nouns that are objects (``mentions``), those that are neither
    there nor safe (``wrong``), annotated objects that are named (``found`` of ``present``), and
    those that people would imagine (``cog`` of ``imagined``).

    A noun covers one object: the first whose related word it is, else the first of its name. With
    ``similar`` one that is not there in words also covers the first that it is similar to, and is
    then not made up.
    """
    known = [noun for noun in nouns if noun in lists.vocabulary]
    right, wrong_ones = list(lists.stand_ins(there)), list(lists.stand_ins(imagined))
    found: set[int] = set()
    cog: set[int] = set()
    wrong = 0
    for noun in known:
        if noun in lists.safe:
            continue
        if (place := _first(right, noun.__eq__)) is not None:
            found.add(place)
            continue
        near = _alike(similar, noun) if similar else None
        for test in (noun.__eq__, near):
            if test and (place := _first(wrong_ones, test)) is not None:
                cog.add(place)
        if near and (place := _first(right, near)) is not None:
            found.add(place)
        else:
            wrong += 1
    return mention_counts(known, (), text) | {
        "wrong": float(wrong),
        "any_wrong": float(wrong > 0),
        "found": float(len(found)),
        "present": float(len(there)),
        "cog": float(len(cog)),
        "imagined": float(len(imagined)),
    }


def _is_noun(at: int, words: Sequence[str], names: Sequence[str | None]) -> bool:
    """Whether the ambiguous word stands where a noun does: behind a determiner, a number, a
    preposition, an -ing form; or as "a gold ring", behind an article and a word that is no object
    ("a man can" is none)."""
    before = words[at - 1] if at else ""
    if before in NOUN_FOLLOWS or before.endswith("ing"):
        return True
    one_between = at >= 2 and words[at - 2] in ("a", "an") and names[at - 1] is None
    return one_between and words[at] == names[at] != "can"


def _alike(similar: Similar, noun: str) -> Callable[[str], bool]:
    return lambda word: similar(noun, word)


def _first(words: Sequence[tuple[str, int]], test: Callable[[str], bool]) -> int | None:
    """The place that belongs to the first word that passes."""
    return next((place for word, place in words if test(word)), None)
