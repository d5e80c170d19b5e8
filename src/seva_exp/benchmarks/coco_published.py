"""COCO's objects in a text, counted as the published CHAIR script counts them, so that numbers can
stand beside published ones (Rohrbach et al. 2018, arXiv:1809.02156; github.com/LisaAnne/
Hallucination, utils/chair.py, with nltk 3.10's word_tokenize and pattern 3.6's singularize).

Its habits: a hyphen or an apostrophe stays within a word (``man-made``, ``o'clock`` are no
objects); two words at most make a compound; every word loses a final s, so that ``bus``, ``tie`` in
the plural and others are never counted; names behind two blanks in the file (``motor bike``,
``cheesecake``), and one with a capital (``iPhone``), are never found. ``coco_objects`` counts what
a reader would.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from seva_exp.benchmarks.coco_objects import COMPOUNDS

APART = re.compile(r"[«»“”„‘’`\";@#$%&?!*()\[\]{}<>\u2012-\u2015]|\.{2,}|--|''")
"""What is a word of its own wherever it stands."""
BEFORE_NO_DIGIT = re.compile(r"[:,](?:(\D)|$)")
_BEHIND = r"[?!)\]}({\[\"';:@*»”’]"
FULL_STOP = re.compile(
    r"(?<=[^.\s])\.(?:"
    rf"(?=\s+\S)|(?={_BEHIND})(?!\S*[.?!](?:{_BEHIND}|\s+\S))"  # not the last of a run of marks
    r"|(?=[)\]}>\"'»”’\s]*$))"
)
"""The end of a sentence, by what follows. (Abbreviations keep theirs; no object is one.)"""
OPENING = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)")
CLITICS = (re.compile(r"(?<=[^'\s])('[smd]?)(?=\s|$)"),
           re.compile(r"(?<=[^'\s])('ll|'re|'ve|n't)(?=\s|$)"))  # fmt: skip
KEPT = ("scissors",)
"""Ends in s, and is not shortened."""
KEPT_PLURAL = "doggies"
"""Stays as it is, alone or behind other letters."""
SINGULARS = tuple(
    (re.compile(plural), singular)
    for plural, singular in (
        (r"children$", "child"), (r"men$", "man"), (r"people$", "person"), (r"geese$", "goose"),
        (r"kine$", "cow"), (r"oxen$", "ox"), (r"^oxen", "ox"), (r"(?<=.)ae$", "a"),
        (r"oes$", "o"), (r"buses$", "bus"), (r"(?<=[ml])ice$", "ouse"),
        (r"(?<=x)es$", ""), (r"(?<=ch|ss|sh)es$", ""),
        (r"(?<=[^aeiouy])ies$", "y"), (r"(?<=qu)ies$", "y"),
        (r"(?<=[aeo])lves$", "lf"), (r"(?<=[nlw]i)ves$", "fe"), (r"(?<=[aeo])ves$", "ve"),
        (r"(?<=[st]i)ves$", "ve"), (r"(?<=[^f])ves$", "fe"), (r"s$", ""),
    )
)  # fmt: skip
"""Endings and what stands for them, the first that fits. Of the original's rules these are the ones
by which a word can become, or cease to be, a name of the official file."""


def tokens(text: str) -> list[str]:
    """The words of a lower-cased text, and marks as words (which part compounds)."""
    found = FULL_STOP.sub(" . ", text.lower())
    found = APART.sub(" , ", found)
    found = BEFORE_NO_DIGIT.sub(lambda at: f" , {at[1] or ''}", found)
    found = OPENING.sub("' ", found)
    for clitic in CLITICS:
        found = clitic.sub(r" \1", found)
    return found.split()


@lru_cache(maxsize=1 << 16)
def singular(word: str) -> str:
    """The singular of ``word``, as the published script forms it."""
    if word in KEPT or word.endswith(KEPT_PLURAL):
        return word
    for plural, ending in SINGULARS:
        if plural.search(word):
            return plural.sub(ending, word)
    return word


@dataclass(frozen=True)
class PublishedObjects:
    """``names`` maps every synonym, as it stands between comma-and-blank, to its object."""

    names: dict[str, str]

    @classmethod
    def read(cls, text: str) -> PublishedObjects:
        """The official synonyms.txt: a line an object, its name first."""
        names: dict[str, str] = {}
        for line in filter(None, map(str.strip, text.splitlines())):
            words = line.split(", ")
            names.update(dict.fromkeys(words, words[0]))
        return cls(names)

    @cached_property
    def _compounds(self) -> dict[str, str]:
        """Words that are looked up as one, and what they are looked up as."""
        names = {name.strip(): name.strip() for name in self.names}
        return names | COMPOUNDS | {"wine glas": "wine glass"}

    def mentions(self, text: str) -> list[str]:
        """The object of each mention, in order, repeats included."""
        words = [singular(word) for word in tokens(text)]
        found, at = [], 0
        while at < len(words):
            pair = " ".join(words[at : at + 2])
            found.append(self._compounds.get(pair, words[at]))
            at += 2 if pair in self._compounds else 1
        if "toilet" in found and "seat" in found:
            found = [word for word in found if word != "seat"]
        return [self.names[word] for word in found if word in self.names]
