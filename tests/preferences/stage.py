"""The answers stage's work, as one process does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seva_exp.core.interfaces import Placement
from seva_exp.core.progress import Meter
from seva_exp.core.records import Answer, Sample, read_jsonl, write_jsonl
from seva_exp.core.spec import Json
from seva_exp.inputs.views import View
from seva_exp.models import TinyModel
from seva_exp.preferences.answers import Asker, answer_shards, summarize, write_previews
from seva_exp.preferences.shards import Shards


class Unseen:
    """A meter that nobody looks at."""

    def update(self, n: int) -> None: ...


def answer_all(
    world: tuple[Sequence[Sample], Path],
    work: Path,
    load_model: Callable[[], Any],
    view: View,
    generation: Any,
    place: Placement,
    samples: Sequence[Sample] | None = None,
    previews: int = 3,
    meter: Meter | None = None,
) -> tuple[list[Answer], Json]:
    """The answers and the summary; of ``samples`` only, where they are given."""
    everyone, root = world
    work.mkdir(exist_ok=True)
    write_jsonl(work / "samples.jsonl", everyone)
    chosen = everyone if samples is None else samples
    shards = Shards(work / "samples.jsonl", lambda sample: sample in chosen, work)
    place = replace(place, work=work)
    asker = Asker(TinyModel(), load_model, lambda: iter(everyone), root, view, generation, place)
    tokens = answer_shards(shards, shards.begin(), asker, meter or Unseen())
    write_previews(asker, shards.samples(), previews)
    shards.merge(work / "answers.jsonl")
    answers = list(read_jsonl(work / "answers.jsonl", Answer))
    assert [answer.sample_id for answer in answers] == [sample.id for sample in chosen]
    return answers, summarize(work / "answers.jsonl", tokens, 1.0)
