"""Scenes of the embedded world with questions on them; files to write."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from itertools import count
from pathlib import Path

from seva_exp.core.randomness import python_rng
from seva_exp.world import QA, QUESTIONS, UNBIASED, Scene, draw, sample_scene
from seva_exp.world.scene import COLORS, KINDS

POSITIONS = ("top left", "top right", "bottom left", "bottom right")
OPTIONS = {"color": COLORS, "kind": KINDS, "position": POSITIONS}
"""What the wrong options of a multiple-choice question are drawn from."""


@dataclass(frozen=True)
class ScenePicture:
    """One picture: its number, its scene and the generator of its questions."""

    number: int
    scene: Scene

    def rng(self, purpose: str) -> random.Random:
        """A generator for one use of the picture."""
        return python_rng(0, f"benchmark-samples.{purpose}", str(self.number))

    def ask(self, type_: str) -> QA | None:
        """A question of the world's visual ones, where the scene has one."""
        return QUESTIONS[type_](self.scene, self.rng(type_))

    def choice(self, type_: str) -> tuple[QA, list[str]] | None:
        """A question with four options in some order."""
        rng, qa = self.rng(f"choice-{type_}"), self.ask(type_)
        if qa is None:
            return None
        others = [one for one in OPTIONS[type_] if one != qa.answer]
        options = [qa.answer, *rng.sample(others, 3)]
        rng.shuffle(options)
        return qa, options

    @cached_property
    def jpeg(self) -> bytes:
        """The picture as a file."""
        file = BytesIO()
        draw(self.scene).save(file, "JPEG", quality=95, subsampling=0)
        return file.getvalue()

    @property
    def base64(self) -> str:
        """The picture as a table holds it."""
        return base64.b64encode(self.jpeg).decode()

    def write(self, file: Path) -> None:
        """Write the picture."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.jpeg)


def cases(n: int, with_text: bool = False) -> list[ScenePicture]:
    """``n`` pictures, each with a text card or all as they come."""
    found: list[ScenePicture] = []
    for number in count():
        scene = sample_scene(python_rng(0, "benchmark-samples", str(number)), UNBIASED)
        if scene.text or not with_text:
            found.append(ScenePicture(number, scene))
        if len(found) == n:
            return found
    raise AssertionError("never ends")


def write_json(file: Path, value: object) -> None:
    """A JSON file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_lines(file: Path, rows: list[dict]) -> None:
    """A file of one JSON object a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text("".join(lines), encoding="utf-8")


def write_table(file: Path, rows: list[dict]) -> None:
    """A table as pandas writes it."""
    import csv

    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
