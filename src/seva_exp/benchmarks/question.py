"""What a benchmark asks, and what a rule or a judge makes of an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from PIL.Image import Image

from seva_exp.core.records import Prediction
from seva_exp.core.spec import Json


@dataclass(frozen=True)
class Question:
    """One question of a benchmark. ``group`` names what is resampled together; ``max_new_tokens``
    bounds the answer; ``load`` gives its picture (None: it has none, and is asked as text);
    ``details`` is what the scoring rule reads beside the target (choices, a unit). ``shows`` names
    the picture, where those of a group are several."""

    id: str
    group: str
    type: str
    prompt: str
    target: str
    max_new_tokens: int
    load: Callable[[], Image] | None
    details: Json = field(default_factory=dict)
    shows: str = ""

    @property
    def picture(self) -> str:
        """Equal for questions on one picture, and of no other; "" where there is none."""
        return (self.shows or self.group) if self.load else ""

    def answered(self, text: str, scored: Scored) -> Prediction:
        """With what the model said, and what that is worth."""
        asked = (self.id, self.group, self.type, self.prompt)
        found = (scored.extracted, self.target, scored.score, scored.counts)
        return Prediction(*asked, text, *found)


@dataclass(frozen=True)
class Scored:
    """An answer's score by a rule or a judge. ``counts`` are what the metrics add up. Without a
    score (and counts) a judge has to say."""

    extracted: str
    score: float | None
    counts: dict[str, float]
