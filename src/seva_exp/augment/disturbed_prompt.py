"""ICD's disturbance: a sentence before the question that makes the model less sure of its eyes."""

from __future__ import annotations

import random
from typing import Literal

from pydantic import Field

from seva_exp.augment.base import PromptAugmentation

SENTENCES = (
    "You cannot see well and only guess what is in a picture.",
    "You are an observer who mixes things up and names what is not there.",
    "You give a vague impression of a picture, and care little whether it is right.",
)
"""Our own, to ICD's description of roles that disturb."""


class DisturbedPrompt(PromptAugmentation):
    """The same question behind a sentence that gives the model a role in which it sees badly, drawn
    from ``sentences`` (ICD, arXiv:2403.18715). Other than a bad prompt it still asks the question.
    """

    kind: Literal["disturbed_prompt"] = "disturbed_prompt"
    sentences: tuple[str, ...] = Field(
        SENTENCES, min_length=1, description="of which each sample gets one"
    )

    def __call__(self, x: str, rng: random.Random) -> str:
        """A prompt in, the same behind a sentence out."""
        return f"{rng.choice(self.sentences)} {x}"
