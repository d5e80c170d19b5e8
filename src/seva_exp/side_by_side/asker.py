"""A finished run's base and aligned model, asked the same about the same pictures. The base is
loaded once; the adapter is put beside its weights and taken off again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image

from seva_exp.core.errors import InputError
from seva_exp.core.interfaces import TOO_LONG, Reply, Request
from seva_exp.core.machine import Machine
from seva_exp.core.printable import ends
from seva_exp.core.records import ALIGNED, BASE
from seva_exp.core.runtime import settle
from seva_exp.inputs.images import UnusableImage, open_image
from seva_exp.inputs.user_paths import existing_file
from seva_exp.models.processor import load_processor
from seva_exp.runs.reader import FinishedRun
from seva_exp.runs.trained import read_trained
from seva_exp.stages.loaded import LoadedModel

LONGEST = 512
"""Tokens of an answer, where the run's config gives no number."""
Turns = tuple[tuple[str, str], ...]
"""Questions with their answers, oldest first."""


@dataclass(frozen=True)
class BothAnswers:
    """What both models say of one picture. ``stops``: how each ended, of ``base`` and ``aligned``:
    ``eos``, ``length`` or ``too_long`` (the model's context has no room for the question)."""

    picture: str
    base: str
    aligned: str
    stops: tuple[str, str]

    @property
    def same(self) -> bool:
        """Whether both say the same."""
        return self.base == self.aligned


@dataclass(frozen=True)
class Asked:
    """One question with both models' answers, one of each picture."""

    run: str
    question: str
    answers: tuple[BothAnswers, ...]

    @property
    def base(self) -> str:
        """The base model's answer. Raises ValueError where there are several pictures."""
        (one,) = self.answers
        return one.base

    @property
    def aligned(self) -> str:
        """The aligned model's answer. Raises ValueError where there are several pictures."""
        (one,) = self.answers
        return one.aligned


@dataclass(frozen=True)
class Shown:
    """A picture with the name that a person gave."""

    name: str
    image: Image


def open_pictures(names: Sequence[str | Path]) -> tuple[Shown, ...]:
    """Raises InputError, which names the file, for what is no picture."""
    found = []
    for name in map(str, names):
        path = existing_file("picture", name)
        try:
            found.append(Shown(name, open_image(path)))
        except UnusableImage as error:
            raise InputError(f"picture: {ends(name)!r}: {error}. Give another picture.") from None
    return tuple(found)


class Asker:
    """Asks a run's two models, and can be asked again without loading anything. Raises InputError
    for a run that trained nothing, or is not what it was, before weights are read."""

    def __init__(
        self,
        run: str | Path,
        machine: Machine | None = None,
        *,
        max_new_tokens: int | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        settle()
        self.run: FinishedRun = read_trained(str(run))
        self._machine = machine or Machine()
        self._warn = warn
        self._loaded = LoadedModel(keeps_base=True)
        self._most = max_new_tokens or _most(self.run)
        self.run.model().prepare()

    @property
    def name(self) -> str:
        """The run's."""
        return self.run.report.name

    def ask(
        self,
        pictures: Sequence[Shown],
        question: str,
        before: Mapping[str, Sequence[Turns]] | None = None,
    ) -> Asked:
        """Both models' answers; greedy, as benchmarks are. ``before``: what each model (``base``,
        ``aligned``) was asked about each picture before, and said. Raises InputError for no
        question, StageError where a model cannot be loaded."""
        if not question.strip():
            raise InputError("question: is empty.")
        replies = {
            which: self._replies(which, pictures, question, (before or {}).get(which))
            for which in (BASE, ALIGNED)
        }
        both = zip(pictures, replies[BASE], replies[ALIGNED], strict=True)
        return Asked(
            self.name,
            question,
            tuple(
                BothAnswers(one.name, base.text, aligned.text, (base.stop, aligned.stop))
                for one, base, aligned in both
            ),
        )

    def _replies(
        self, which: str, pictures: Sequence[Shown], question: str, before: Sequence[Turns] | None
    ) -> list[Reply]:
        adapter = self.run.adapter if which == ALIGNED else None
        vlm = self._loaded.get(self.run.model(), self._machine, adapter, self._warn)
        if before is None or not any(before):
            return self._answered(vlm, pictures, question)
        from seva_exp.side_by_side.talk import Talk

        talks = zip(pictures, before, strict=True)
        return [self._answered(Talk(vlm, turns), [one], question)[0] for one, turns in talks]

    def _answered(self, vlm: Any, pictures: Sequence[Shown], question: str) -> list[Reply]:
        from seva_exp.decoding.engine import Engine

        found: dict[str, Reply] = {}
        requests = [
            Request(str(number), str(number), partial(_image, one), question, self._most)
            for number, one in enumerate(pictures)
        ]
        for replies in Engine(vlm, self._machine.batch_size, warn=self._warn).run(requests):
            found |= {one.id: one for one in replies}
        return [found[one.id] for one in requests]


def _image(shown: Shown) -> Image:
    return shown.image.copy()


def _most(run: FinishedRun) -> int:
    found = (run.config.get("generation") or {}).get("max_new_tokens")
    return found if isinstance(found, int) else LONGEST


def can_talk(asker: Asker) -> None:
    """Raises InputError for a model whose prompts have no turns."""
    if not load_processor(asker.run.model()).chat_template:
        raise InputError("--chat: this model has no chat template, so it takes single questions.")


def ask(
    run: str | Path,
    pictures: str | Path | Sequence[str | Path],
    question: str,
    *,
    machine: Machine | None = None,
    max_new_tokens: int | None = None,
) -> Asked:
    """What a finished run's base and aligned model say of pictures: ``seva_exp.ask("runs/latest",
    "cat.jpg", "What is this?").aligned``. Greedy, up to the run's ``generation.max_new_tokens``.
    Loads the model at each call: ``Asker`` keeps it. Raises InputError before weights are read."""
    names = [pictures] if isinstance(pictures, str | Path) else list(pictures)
    shown = open_pictures(names)
    if not shown:
        raise InputError("pictures: none is given.")
    return Asker(run, machine, max_new_tokens=max_new_tokens).ask(shown, question)


def left_out(stop: str) -> str:
    """What must be said of an answer that ended so; empty where it is whole."""
    return {
        "length": "cut at max_new_tokens",
        TOO_LONG: "the model's context is full",
    }.get(stop, "")
