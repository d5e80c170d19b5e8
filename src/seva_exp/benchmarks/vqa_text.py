"""The VQA evaluation's normalisation of short answers, as the EvalAI server of TextVQA applies it,
written from its description (visualqa.org/evaluation) and its known habits.

Lower case; commas, question marks gone; "'s" stands apart; other punctuation gone where it touches
a blank, else a blank; full stops gone but before a digit; number words to digits; articles gone;
missing apostrophes put into contractions.
"""

from __future__ import annotations

import re

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_COMMA = re.compile(r"\d,\d")
LOOSE_STOP = re.compile(r"\.(?!\d)")
ARTICLES = frozenset(("a", "an", "the"))
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_NEGATED = (
    "are", "ca", "could", "did", "does", "do", "had", "has", "have", "is", "might", "must", "need",
    "ought", "sha", "should", "was", "were", "wo", "would", "ai",
)  # fmt: skip
_PEOPLE = ("somebody", "someone", "something")
_ENDINGS = {
    "d": ("he", "how", "it", "there", "they", "where", "who", "you", *_PEOPLE),
    "ll": ("how", "it", "they", "what", "who", "why", "you", "yall", *_PEOPLE),
    "s": ("he", "how", "that", "there", "what", "when", "where", "who", "why", *_PEOPLE),
    "re": ("there", "they", "what", "why", "you"),
    "ve": (
        "could", "i", "might", "must", "not", "should", "they", "we", "what", "where", "who",
        "would", "you",
    ),
    "m": ("i",),
}  # fmt: skip
"""Endings whose apostrophe is put back, and the words that they follow. Words that without it are
others (its, were, well, ill, shed, wed) stay as they are."""
CONTRACTIONS = (
    {f"{stem}nt": f"{stem}n't" for stem in _NEGATED}
    | {f"{stem}{end}": f"{stem}'{end}" for end, stems in _ENDINGS.items() for stem in stems}
    | {"maam": "ma'am", "oclock": "o'clock", "twas": "'twas", "yall": "y'all"}
)


def normalise(text: str) -> str:
    """The form in which an answer is compared."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.replace("\n", " ").replace("\t", " ").strip()
    words = (NUMBERS.get(word, word) for word in unpunctuated(text).split())
    kept = (word for word in words if word not in ARTICLES)
    return " ".join(CONTRACTIONS.get(word, word) for word in kept)


def unpunctuated(text: str) -> str:
    """A mark goes where it touches a blank somewhere in the text (or a comma stands between
    digits), else it becomes a blank; full stops go but before a digit."""
    found = text
    for mark in PUNCTUATION:
        loose = f"{mark} " in text or f" {mark}" in text or DIGIT_COMMA.search(text)
        found = found.replace(mark, "" if loose else " ")
    return LOOSE_STOP.sub("", found)


def agreement(answer: str, given: tuple[str, ...]) -> float:
    """TextVQA's soft score of a normalised ``answer`` against the people's ones: each person is
    left out in turn, and min(1, n / 3) of the others who said the same is averaged."""
    same = [one == answer for one in given]
    scores = [min(1.0, (sum(same) - said) / 3) for said in same]
    return sum(scores) / len(scores)
