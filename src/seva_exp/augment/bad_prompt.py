"""STIC's bad prompts."""

from __future__ import annotations

import random
from functools import cached_property
from typing import Literal

from pydantic import Field

from seva_exp.augment.base import PromptAugmentation
from seva_exp.core.spec import Json
from seva_exp.inputs.prompts import load_prompts


class BadPrompt(PromptAugmentation):
    """The question replaced by one that asks for what is not there, drawn from a prompt set.

    STIC, algorithm 1 (P_hallu): its prompts lead the model to hallucinate, and the answer is then
    rejected. The sentences of ``stic`` are our own, to the published design.
    """

    kind: Literal["bad_prompt"] = "bad_prompt"
    prompts: str = Field(
        "stic", min_length=1, description="a packaged set (stic, tiny) or a file of your own"
    )

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """The set's bad prompts, read once, so that what is hashed is what is asked."""
        return load_prompts(self.prompts).bad

    def check(self, where: str) -> None:
        """Reads the set; forgets what an earlier run read."""
        load_prompts(self.prompts, f"{where}.prompts")
        self.__dict__.pop("sentences", None)

    def identity(self) -> Json:
        """The sentences instead of the set's name: an edited file is another view, a renamed one
        is not."""
        return self.to_json() | {"prompts": list(self.sentences)}

    def __call__(self, x: str, rng: random.Random) -> str:
        """Any prompt in, one of the bad prompts out."""
        return rng.choice(self.sentences)
