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
LOOSE_STOP_OF_WORDS = re.compile(r"(?<!\d)\.(?!\d)")
"""VLMEvalKit's: a full stop behind a digit stays as well."""
STOPS = 32
"""How many full stops go at most: the scripts pass a flag of this value where a count stands."""
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
_PEOPLE = ("someone", "something")
_WOULD = ("he", "it", "there", "they", "who", "you", *_PEOPLE)
_ENDINGS = {
    "d": ("how", "where", *_WOULD),
    "ll": ("how", "it", "they", "what", "who", "why", "you", "somebody", *_PEOPLE),
    "s": (
        "he", "how", "that", "there", "what", "when", "where", "who", "why", "somebody", "someone",
    ),
    "re": ("there", "they", "what", "why", "you"),
    "ve": (
        "could", "might", "must", "not", "should", "they", "we", "what", "where", "who", "would",
        "you",
    ),
}  # fmt: skip
"""Endings whose apostrophe is put back, and the words that they follow. Words that without it are
others (its, were, well, ill, shed, wed) stay as they are, and so do "im", "ive": the official list
has them with a capital, which no answer has any more."""
_ENDINGS_HAVE = {
    "n't": ("could", "had", "might", "should", "would"),
    "'d": ("she", "we", "somebody", *_WOULD),
}
"""Endings before "'ve", and the words that they follow: either apostrophe may be missing."""
CONTRACTIONS = (
    {f"{stem}nt": f"{stem}n't" for stem in _NEGATED}
    | {f"{stem}{end}": f"{stem}'{end}" for end, stems in _ENDINGS.items() for stem in stems}
    | {
        f"{stem}{short}": f"{stem}{end}'ve"
        for end, stems in _ENDINGS_HAVE.items()
        for stem in stems
        for short in (end.replace("'", "") + "'ve", end + "ve")
    }
    | {"maam": "ma'am", "oclock": "o'clock", "twas": "'twas", "somebody'd": "somebodyd"}
    | {"yall": "y'all", "yall'll": "y'all'll", "y'allll": "y'all'll"}
    | dict.fromkeys(("yall'd've", "y'alld've", "y'all'dve"), "y'all'd've")
)


def normalise(text: str) -> str:
    """The form in which an answer is compared: EvalAI's, as LLaVA-1.5 and lmms-eval have it."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return _worded(unpunctuated(_one_line(text), LOOSE_STOP))


def normalise_kit(text: str) -> str:
    """The same as VLMEvalKit has it (vqa_eval.py: process_answer): commas and question marks are
    marks like others, "'s" stays where it is, and so does a full stop behind a digit."""
    return _worded(unpunctuated(_one_line(text), LOOSE_STOP_OF_WORDS))


def unpunctuated(text: str, stop: re.Pattern[str]) -> str:
    """A mark goes where it touches a blank somewhere in the text (or a comma stands between
    digits), else it becomes a blank; of the full stops those that are a ``stop`` go."""
    found = text
    for mark in PUNCTUATION:
        loose = f"{mark} " in text or f" {mark}" in text or DIGIT_COMMA.search(text)
        found = found.replace(mark, "" if loose else " ")
    return stop.sub("", found, count=STOPS)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _worded(text: str) -> str:
    """Number words as digits, without articles, with the apostrophes of contractions."""
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    kept = (word for word in words if word not in ARTICLES)
    return " ".join(CONTRACTIONS.get(word, word) for word in kept)


def agreement(answer: str, targets: tuple[str, ...]) -> float:
    """TextVQA's soft score of a normalised ``answer`` against the people's ones: each person is
    left out in turn, and min(1, n / 3) of the others who said the same is averaged."""
    same = [one == answer for one in targets]
    scores = [min(1.0, (sum(same) - own) / 3) for own in same]
    return sum(scores) / len(scores)
