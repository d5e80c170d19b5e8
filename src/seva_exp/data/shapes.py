"""The built-in data: drawn scenes of the synthetic world, with a mix of questions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from seva_exp.core.randomness import python_rng
from seva_exp.core.records import Drop, ImageRef, Sample
from seva_exp.core.spec import Json
from seva_exp.data.base import DataSource, Hasher
from seva_exp.data.kept import Kept
from seva_exp.world import (
    BIASED,
    QA,
    QUESTIONS,
    UNBIASED,
    Scene,
    describe,
    draw,
    existence,
    sample_scene,
)
from seva_exp.world.language import PLAIN_PROMPTS
from seva_exp.world.questions import EXISTENCE_MODES

Asker = Callable[[Scene, random.Random], QA | None]

WEIGHTS = {
    "existence": 2,
    "color": 1,
    "kind": 1,
    "count": 1,
    "position": 1,
    "relation": 1,
    "text": 1,
    "describe": 2,
}
"""How often each type of question is tried, relative to the others."""


class ShapesData(DataSource):
    """Drawn scenes, each with one question whose answer is not kept.

    A sample depends on the seed and its number only: a larger set begins with the smaller one.
    """

    stream: ClassVar[str] = "data.shapes"
    """Of the random choices; the benchmark's held-out scenes have another."""
    prefix: ClassVar[str] = "shapes"
    """Of the samples' ids."""
    kind: Literal["shapes"] = "shapes"
    samples: int = Field(600, ge=1, le=1_000_000, description="number of scenes to draw")
    scenes: Literal["unbiased", "biased"] = "unbiased"
    """``biased``: of the world that the embedded model was trained on first."""

    @property
    def seeded(self) -> bool:
        return True

    def check(self, where: str = "data") -> None:
        """Nothing outside can be wrong."""

    def identity(self, sha256: Hasher, where: str = "data", seed: int | None = None) -> Json:
        fields = self.to_json()
        if self.scenes == "unbiased":
            del fields["scenes"]
        return fields

    def estimate(self, where: str = "data") -> int | None:
        return self.samples

    def image_root(self, root: Path) -> Path:
        return root / "images"

    def read(
        self,
        seed: int,
        root: Path,
        sha256: Hasher,
        where: str = "data",
        kept: Kept | None = None,
    ) -> Iterator[Sample | Drop]:
        folder = self.image_root(root)
        folder.mkdir(parents=True, exist_ok=True)
        keep = kept or Kept()
        for number in range(self.samples):
            id = f"{self.prefix}-{number:06d}"
            yield keep(partial(self._sample, seed, id, folder, sha256))

    @property
    def knows_truth(self) -> bool:
        return True

    def truth(self, seed: int, id: str) -> str:
        return describe(self._scene(seed, id))

    def _scene(self, seed: int, id: str) -> Scene:
        prior = UNBIASED if self.scenes == "unbiased" else BIASED
        return sample_scene(python_rng(seed, f"{self.stream}.scene", id), prior)

    def _sample(self, seed: int, id: str, folder: Path, sha256: Hasher) -> Sample:
        """A scene, its picture as ``folder``/ID.png, and a question."""
        scene = self._scene(seed, id)
        file = folder / f"{id}.png"
        draw(scene).save(file)
        qa = draw_qa(scene, python_rng(seed, f"{self.stream}.question", id))
        response = qa.answer if self.responds else ""
        return Sample(id, ImageRef(file.name, sha256(file)), qa.question, response)


def draw_qa(scene: Scene, rng: random.Random) -> QA:
    """A question that applies to ``scene``, and its exact answer: types are tried by weight until
    one does."""
    askers = _askers()
    while True:
        (kind,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        qa = askers[kind](scene, rng)
        if qa is not None:
            return qa


def _askers() -> dict[str, Asker]:
    def exists(scene: Scene, rng: random.Random) -> QA:
        return existence(scene, rng, rng.random() < 0.5, rng.choice(EXISTENCE_MODES))

    def asks_to_describe(scene: Scene, rng: random.Random) -> QA:
        return QA(rng.choice(PLAIN_PROMPTS), describe(scene), "description")

    return {**QUESTIONS, "existence": exists, "describe": asks_to_describe}
