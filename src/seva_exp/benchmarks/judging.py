"""How a judge is asked: the model that reads answers where no rule can, and what a benchmark gives
it to read.

A judge's reply is read strictly: what cannot be read is asked again, and at last counted as
unjudged; never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from PIL.Image import Image
from pydantic import Field

from seva_exp.benchmarks.question import Question, Scored
from seva_exp.core.machine import JudgeServer
from seva_exp.core.records import Prediction
from seva_exp.core.spec import Json, digest
from seva_exp.served.pictures import about_picture
from seva_exp.served.spec import ServedModel

Messages = tuple[tuple[str, str], ...]
"""(role, text) of each turn."""
Ask = Callable[[Question, Prediction], Messages | None]
"""What a judge is asked about an answer; None: nothing, the rules' score stands."""
Read = Callable[[str, Question, Prediction], Scored | None]
"""What a reply says; None: it cannot be read."""
OWN = "own"
"""The way of asking whose prompt is written here; its name stands with the scores."""
HOTTER, HOTTEST = 0.5, 2.0
"""What is added to the temperature when a reply cannot be read (MM-Vet's rule), and the most."""
TRIES = 4
"""How often a question is asked until a reply can be read."""


@dataclass(frozen=True)
class Judging:
    """A benchmark's way of asking a judge. ``material`` is all that its questions are made of
    beside the benchmark's own question and the answer; ``temperature`` and ``max_tokens`` are the
    official ones."""

    way: str
    temperature: float
    max_tokens: int
    material: Json
    ask: Ask
    read: Read


class Judge(ServedModel):
    """The model that judges. Where it answers is ``machine.judge``."""

    group: ClassVar[str] = "judge"
    name_field: ClassVar[str] = "model"
    model: str | None = Field(None, min_length=1)
    """The name under which the server knows it; none: asked from the server, which then has to
    serve exactly one. It stands in the protocol's name with every score."""
    temperature: float | None = Field(None, ge=0, le=HOTTEST)
    """0: the likeliest reply; none: each benchmark's official one."""
    max_tokens: int | None = Field(None, ge=1)
    """Longest reply in tokens; none: each benchmark's official one."""
    own_prompts: bool = False
    """Ask in words of this package also where the protocol takes the official prompt from a file;
    which of them it was stands in the protocol's name with every score."""
    repeats: int = Field(1, ge=1)
    """How often each question is judged: scores are means, with their standard deviation over the
    repeats (MM-Vet's paper: 5)."""

    def label(self, judging: Judging | None) -> str:
        """The suffix of a protocol's name: way of asking, judge, and where they are not the
        official ones temperature (t0.5) and longest reply (m64)."""
        words = [OWN] if judging and judging.way == OWN else []
        words.append(self.model or "judge")
        if self.temperature not in (None, judging and judging.temperature):
            words.append(f"t{self.temperature:g}")
        if self.max_tokens not in (None, judging and judging.max_tokens):
            words.append(f"m{self.max_tokens}")
        return f"+{'.'.join(words)}"

    def identity(self, judging: Judging | None) -> Json:
        """All that decides the verdicts; without ``judging`` (files are lacking) not yet all of
        it."""
        if judging is None:
            return self.to_json()
        return {
            "model": self.model,
            "temperature": self.temperature_of(judging),
            "max_tokens": self.max_tokens_of(judging),
            "repeats": self.repeats,
            "way": judging.way,
            "material": digest(judging.material),
        }

    def temperature_of(self, judging: Judging) -> float:
        """The temperature at which a question is asked first."""
        return judging.temperature if self.temperature is None else self.temperature

    def max_tokens_of(self, judging: Judging) -> int:
        """The longest reply."""
        return self.max_tokens or judging.max_tokens

    def query(
        self,
        judging: Judging,
        messages: Messages,
        repeat: int,
        attempt: int,
        picture: Shown | None = None,
    ) -> Query:
        """The judge's prompt of the ``attempt``-th try (from 0)."""
        assert self.model
        first = self.temperature_of(judging)
        hotter = min(max(first, HOTTEST), first + HOTTER * attempt)
        most = self.max_tokens_of(judging)
        return Query(self.model, messages, hotter, most, repeat, picture)

    def prepare(self, server: JudgeServer, judging: Judging, picture: Shown | None = None) -> None:
        """Make sure that the judge can be asked (about a picture, where one is given), before any
        work starts. Raises InputError."""
        from seva_exp.served.endpoint import check

        asked = (("user", "Is one more than zero? Yes or no?"),)
        question = self.query(judging, asked, 0, 0, picture)
        what = "a question about a picture" if picture else "a question"
        check(server, question.body(1), f"judge.model={self.model}", what)


@dataclass(frozen=True)
class Shown:
    """The picture that a judge is shown: the hash of its file, and how it is loaded."""

    sha256: str
    load: Callable[[], Image] = field(compare=False)


@dataclass(frozen=True)
class Query:
    """One question to a judge, about a ``picture`` or none; ``repeat`` tells apart what is asked
    several times alike."""

    model: str
    messages: Messages
    temperature: float
    max_tokens: int
    repeat: int
    picture: Shown | None = None

    @property
    def key(self) -> str:
        """Equal for equal questions, of whichever benchmark and run."""
        return digest([*self.to_json().values()])

    def to_json(self) -> Json:
        """All that the reply depends on."""
        names = ("model", "messages", "temperature", "max_tokens", "repeat")
        shown = {"picture": self.picture.sha256} if self.picture else {}
        return {name: getattr(self, name) for name in names} | shown

    def body(self, max_tokens: int | None = None) -> bytes:
        """The request's JSON."""
        values = {
            "model": self.model,
            "messages": [self._message(role, text) for role, text in self.messages],
            "max_tokens": max_tokens or self.max_tokens,
            "temperature": self.temperature,
        }
        return json.dumps(values).encode()

    def _message(self, role: str, text: str) -> Json:
        """A turn; the picture goes before the text of the user's."""
        if role != "user" or self.picture is None:
            return {"role": role, "content": text}
        return {"role": role, "content": about_picture(self.picture.load(), text)}
