"""APASI's rejected answers: sentences that the model says without looking."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from seva_exp.augment.base import Rewrite
from seva_exp.core.texts import Split


class Apasi(Rewrite):
    """The clean answer with a share of its sentences, never the first, replaced by how the model
    goes on there without the picture (APASI, arXiv:2509.11287).

    Which sentences is drawn from (seed, sample id); each is written behind what the clean answer
    says before it, greedily, up to where a sentence ends. With ``guide`` a replaced sentence begins
    with ``lead``, of an object that the answer does not name, drawn by how often the run's clean
    answers name it together with those that it does name; without one for it, unguided.
    """

    kind: Literal["apasi"] = "apasi"
    rate: float = Field(
        0.2, gt=0, le=1, description="share of the sentences that is replaced, one at least"
    )
    fall: float = Field(
        1.0, gt=0, le=1, description="round n has rate x fall^(n-1): APASI's curriculum; 1: none"
    )
    split: Split = Field(
        "sentences", description="what is replaced: sentences, or clauses (short descriptions)"
    )
    max_new_tokens: int = Field(
        64, ge=1, description="of a new sentence; one that does not end by then is not taken"
    )
    guide: tuple[str, ...] = Field(
        (), description="objects, in lower case, of which one that is likely begins a new sentence"
    )
    lead: str = Field(
        " There is a {object}", description="with guide: how it begins; {object} is filled in"
    )

    @field_validator("lead")
    @classmethod
    def _placeholder(cls, text: str) -> str:
        if text.count("{object}") != 1:
            raise ValueError("{object} must stand in it once")
        return text

    @model_validator(mode="after")
    def _objects_are_words(self) -> Self:
        for word in self.guide:
            if not word.strip() or word != word.strip().lower():
                raise ValueError(f"guide: {word!r} is no object in lower case")
        if len({*self.guide}) != len(self.guide):
            raise ValueError("guide: an object stands in it twice")
        return self

    def in_round(self, number: int) -> Self:
        rate = self.rate * self.fall ** (number - 1)
        return self.model_copy(update={"rate": rate, "fall": 1.0})
