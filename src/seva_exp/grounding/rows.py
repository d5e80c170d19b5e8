"""What the stage ``explain`` leaves of a sample: a line of JSON each. No heavy import."""

from __future__ import annotations

from typing import Literal

from seva_exp.core.spec import Spec
from seva_exp.grounding.spec import Method

Status = Literal["fixed", "broken", "unchanged"]
"""What became of an answer by its benchmark's score; one that no judge has scored is unchanged."""
By = Literal["base", "aligned", "both"]


class Grounding(Spec):
    """How one model reads a word, in nats, summed over its tokens: ``logp`` = log p(word | picture,
    question, words before); ``g`` = that less log p(word | mean picture, ...); ``g_view``: less log
    p(word | the picture as the run's negative view shows it, ...), None where there is no such
    view."""

    logp: float
    g: float
    g_view: float | None = None


class Word(Spec):
    """A word, or a mark of punctuation, of an answer: ``text`` is ``answer.text[start:end]``."""

    text: str
    start: int
    end: int
    base: Grounding
    aligned: Grounding

    @property
    def is_word(self) -> bool:
        """Whether it has a letter or digit."""
        return any(one.isalnum() for one in self.text)


class WordMap(Spec):
    """Where on the picture the word number ``word`` of its answer rests. ``grid`` is (rows,
    columns); ``base`` and ``aligned`` have a value per cell, row by row. Of ``occlusion``: nats of
    log p that the word loses where the cell is hidden (below 0: hiding it helps). Of the others a
    number from 0 up without a unit, to be compared inside one map alone."""

    word: int
    method: Method
    grid: tuple[int, int]
    base: tuple[float, ...]
    aligned: tuple[float, ...]


class ExplainedAnswer(Spec):
    """One answer, which both models looked at behind the same ``prompt``; ``by``: who gave it;
    ``score`` is its benchmark's (None: not judged)."""

    by: By
    prompt: str
    text: str
    score: float | None
    words: tuple[Word, ...]
    maps: tuple[WordMap, ...] = ()


class Agreeing(Spec):
    """Of the ``asked`` answers of one model to one question (its own one, and one under each weak
    view) ``equal`` equal its own (itself among them); ``agreement``: the mean likeness of two of
    them, 0 to 1, as the score ``agreement`` has it; ``entropy`` (nats) of their classes."""

    asked: int
    equal: int
    agreement: float
    entropy: float


class Agreements(Spec):
    """Of both models."""

    base: Agreeing
    aligned: Agreeing


class ExplainedSample(Spec):
    """One question of a benchmark with its answers: one, if base and aligned said the same, else
    the base's and the aligned model's."""

    id: str
    type: str
    """The benchmark's kind of question."""
    question: str
    target: str
    status: Status
    answers: tuple[ExplainedAnswer, ...]
    agreement: Agreements | None = None


class ShownPictures(Spec):
    """Files, in the folder of ``pictures.json``, of what the models saw: ``clean``, and as the
    run's negative view shows it (``worse``; empty: there is none)."""

    id: str
    clean: str
    worse: str = ""
