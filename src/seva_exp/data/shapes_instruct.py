"""The built-in instruction data: drawn scenes with a question and its exact answer each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from seva_exp.data.shapes import ShapesData


class ShapesInstructData(ShapesData):
    """Scenes as in ``shapes``, none of them its or the benchmark's, whose exact answers are kept as
    responses: what the embedded model's SFT data is to STIC's stage 2."""

    stream: ClassVar[str] = "data.shapes_instruct"
    prefix: ClassVar[str] = "shapes-instruct"
    kind: Literal["shapes_instruct"] = "shapes_instruct"  # type: ignore[assignment]
    samples: int = Field(
        300, ge=1, le=1_000_000, description="number of scenes to draw, each with one question"
    )

    @property
    def responds(self) -> bool:
        return True
