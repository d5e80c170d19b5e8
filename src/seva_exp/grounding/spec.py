"""What is explained of a run, and how. No heavy import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from seva_exp.augment import ImageAugmentation
from seva_exp.core.spec import Json, Spec
from seva_exp.decoding import HfGeneration
from seva_exp.preferences.ambiguity import Ambiguity

Method = Literal["occlusion", "activation", "relative_attention"]
"""How a map is made. ``occlusion``: the log-probability that a word loses when a part of the
picture is hidden from the language model. ``activation``: TAM (arXiv:2506.23270), the word's logit
read at the picture's own tokens, less what earlier words explain. ``relative_attention``
(arXiv:2502.17422): attention for this question over attention for a generic one; no cause."""
METHODS: tuple[Method, ...] = ("occlusion", "activation", "relative_attention")
CELLS = 64
"""Image tokens up to which each of them is a cell of its own."""


class Explain(Spec):
    """What each word rests on, of some answers to every benchmark, under the base and the final
    model: g = log p(word | picture) - log p(word | mean picture) in nats, and for a few words a
    map. Both models look at the same answers."""

    fixed: int = Field(4, ge=0, description="answers that are shown of those that became better")
    broken: int = Field(4, ge=0, description="of those that became worse")
    unchanged: int = Field(4, ge=0, description="of those that are as good as before")
    measured: int = Field(
        64, ge=0, description="questions, drawn by their ids alone, that the metrics rest on"
    )
    words: int = Field(3, ge=0, description="words of an answer, those of largest |g|, with a map")
    maps: tuple[Method, ...] = ("occlusion",)
    """How maps are made; the first is the page's."""
    blocks: int = Field(
        6, ge=1, description="cells along a side of a map where there are more than 64 image tokens"
    )
    rests: float = Field(1.0, gt=0, description="nats of g from which a word rests on the picture")
    pictures: int = Field(
        32, ge=1, description="pictures of the benchmark whose mean stands for no picture"
    )
    agreement: Ambiguity | None = None
    """Weak views under which both models are asked again (the group ``ambiguity``); none: not."""

    @field_validator("maps")
    @classmethod
    def _each_once(cls, maps: tuple[Method, ...]) -> tuple[Method, ...]:
        if len(set(maps)) < len(maps):
            raise ValueError("a method stands there twice")
        return maps

    @field_validator("agreement")
    @classmethod
    def _asks_about_one_picture(cls, ambiguity: Ambiguity | None) -> Ambiguity | None:
        for name, view in (ambiguity.views if ambiguity else {}).items():
            where = f"agreement.views.{name}: kind={view.kind}"
            others = isinstance(view, ImageAugmentation) and view.partners
            if view.learned or others:
                raise ValueError(
                    f"{where} takes other pictures of the data, or one that the model finds, and a "
                    "benchmark's picture has none beside it. Take another view"
                )
            if view.careful and not HfGeneration().changed(view.decoding()).seeded:
                raise ValueError(
                    f"{where} samples another answer; at temperature 0 there is one. Set its "
                    "temperature above 0"
                )
        return ambiguity

    @model_validator(mode="after")
    def _something(self) -> Explain:
        if not (self.shown or self.measured):
            raise ValueError("nothing is explained: fixed, broken, unchanged and measured are 0.")
        return self

    @property
    def shown(self) -> int:
        """The most answers that are shown of a benchmark."""
        return self.fixed + self.broken + self.unchanged

    @property
    def mapped(self) -> bool:
        """Whether any map is made."""
        return bool(self.shown and self.words and self.maps)

    def identity(self) -> Json:
        """All that decides the result."""
        return self.to_json()
