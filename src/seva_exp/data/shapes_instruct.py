"""The built-in instruction data: drawn scenes with a question and its exact answer each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from seva_exp.data.base import DataSource, Hasher, SampleSet
from seva_exp.data.shapes import draw_qa, draw_scene
from seva_exp.randomness import python_rng
from seva_exp.records import Sample
from seva_exp.spec import Json

SCENE, QUESTION = "data.shapes_instruct.scene", "data.shapes_instruct.question"
"""Purposes of the random streams: so no scene is one of ``shapes`` or of the benchmark."""


class ShapesInstructData(DataSource):
    """Scenes of the unbiased world, each with one question (types as in ``shapes``) and, as the
    response, its exact answer: what the embedded model's SFT data is to STIC's stage 2.

    A sample depends on the seed and its number only: a larger set begins with the smaller one.
    """

    kind: Literal["shapes_instruct"] = "shapes_instruct"
    samples: int = Field(
        300, ge=1, le=1_000_000, description="number of scenes to draw, each with one question"
    )

    @property
    def responds(self) -> bool:
        return True

    @property
    def seeded(self) -> bool:
        return True

    def check(self, where: str = "data") -> None:
        """Nothing outside can be wrong."""

    def identity(self, sha256: Hasher, where: str = "data", seed: int | None = None) -> Json:
        return self.to_json()

    def image_root(self, root: Path) -> Path:
        return root / "images"

    def build(self, seed: int, root: Path, sha256: Hasher, where: str = "data") -> SampleSet:
        folder = self.image_root(root)
        folder.mkdir(parents=True, exist_ok=True)
        ids = [f"shapes-instruct-{number:06d}" for number in range(self.samples)]
        return SampleSet([_sample(seed, id, folder, sha256) for id in ids], [])


def _sample(seed: int, id: str, folder: Path, sha256: Hasher) -> Sample:
    scene, image = draw_scene(seed, SCENE, id, folder, sha256)
    qa = draw_qa(scene, python_rng(seed, QUESTION, id))
    return Sample(id, image, qa.question, qa.answer)
