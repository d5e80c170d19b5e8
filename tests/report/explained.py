"""What the stage ``explain`` leaves, written without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

from seva_exp.core.records import Delta, Score
from seva_exp.grounding.rows import (
    Agreeing,
    Agreements,
    By,
    ExplainedAnswer,
    ExplainedSample,
    Grounding,
    Status,
    Word,
    WordMap,
)
from seva_exp.grounding.words import words_of
from seva_exp.runs.events import Explained, Outcome

RIGHT_EDGE = [0.0, 0.0, 0.5, 0.0, 0.0, 1.0]
"""A map of 2 x 3 cells: the word rests on the right column."""


def an_answer(text: str, gs: Sequence[float], by: By = "both", prompt: str = "") -> ExplainedAnswer:
    """An answer whose words have these g under base (the last one repeats), a tenth more under the
    aligned model; the first word has a map."""
    words = []
    for number, span in enumerate(words_of(text)):
        g = gs[min(number, len(gs) - 1)]
        base = Grounding(logp=-0.5, g=g, g_view=g / 2)
        aligned = Grounding(logp=-0.25, g=round(g * 1.1, 6), g_view=g / 2)
        words.append(
            Word(text=span.text, start=span.start, end=span.end, base=base, aligned=aligned)
        )
    values = tuple(RIGHT_EDGE)
    turned = tuple(-one for one in RIGHT_EDGE)
    one = WordMap(word=0, method="occlusion", grid=(2, 3), base=values, aligned=turned)
    maps = (one,) if words else ()
    return ExplainedAnswer(
        by=by, prompt=prompt, text=text, score=1.0, words=tuple(words), maps=maps
    )


def a_sample(
    id: str, *answers: ExplainedAnswer, status: Status = "fixed", says: str = "What is it?"
) -> ExplainedSample:
    """Its base agrees with itself once in five, its aligned model always."""
    base = Agreeing(asked=5, equal=1, agreement=0.2, entropy=1.6)
    aligned = Agreeing(asked=5, equal=5, agreement=1.0, entropy=0.0)
    return ExplainedSample(
        id=id,
        type=says if says != "What is it?" else "kind",
        question=says,
        target=says,
        status=status,
        answers=answers,
        agreement=Agreements(base=base, aligned=aligned),
    )


def explained(
    folder: Path, samples: Sequence[ExplainedSample], benchmark: str = "shapes", view: str = "noise"
) -> Explained:
    """The artifact of these samples."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, sample in enumerate(samples):
        names = f"{number}.png", f"{number}_worse.png"
        for name, colour in zip(names, ("red", "gray"), strict=True):
            Image.new("RGB", (72, 48), colour).save(pictures / name)
        rows.append({"id": sample.id, "clean": names[0], "worse": names[1]})
    (pictures / "pictures.json").write_text(json.dumps(rows))
    lines = "".join(json.dumps(one.to_json()) + "\n" for one in samples)
    (folder / "words.jsonl").write_text(lines)
    scores = [
        Score(model, benchmark, "words", metric, value, value - 1, value + 1, 9, "words-v1")
        for metric, value in (("on_picture", 40.0), ("g", 1.5))
        for model in ("base", "aligned")
    ]
    scores = [replace(one, better="neutral") for one in scores]
    deltas = [
        Delta(benchmark, "words", metric, 0.004, 0.001, 0.01, 0.01, "neutral")
        for metric in ("on_picture", "g")
    ]
    for name, records in (("scores", scores), ("deltas", deltas)):
        (folder / f"{name}.jsonl").write_text(
            "".join(json.dumps(asdict(one)) + "\n" for one in records)
        )
    return Explained(benchmark, folder, 1.0, view)


def with_words(outcome: Outcome, *found: Explained) -> Outcome:
    """The same run, explained."""
    return replace(outcome, explained=found)
