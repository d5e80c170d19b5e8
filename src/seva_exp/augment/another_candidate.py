"""Another answer to the clean question as the rejected one."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from seva_exp.augment.base import Source
from seva_exp.core.spec import Json


class AnotherCandidate(Source):
    """The clean question asked again, and the answer sampled: what the model says less surely.

    SIMA (arXiv:2405.15973) takes the greedy answer and one at temperature 0.8, and lets the model
    say which is the better; here the clean answer is preferred.
    """

    careful: ClassVar[bool] = True
    kind: Literal["another_candidate"] = "another_candidate"
    temperature: float | None = Field(
        0.8, gt=0, description="softmax temperature; null: generation.temperature; SIMA: 0.8"
    )
    number: int = Field(
        1, ge=1, description="which candidate: each number has random numbers of its own"
    )

    @property
    def stream(self) -> str:
        return f"{self.kind}/{self.number}"

    def decoding(self) -> Json:
        return {} if self.temperature is None else {"temperature": self.temperature}
