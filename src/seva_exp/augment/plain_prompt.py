"""The plain way to ask as a negative view: STIC's released code."""

from __future__ import annotations

import random
from typing import Literal

from seva_exp.augment.base import PromptAugmentation


class PlainPrompt(PromptAugmentation):
    """The sample's own question about the clean picture.

    For STIC, whose clean view asks carefully. Its released code never applies the image
    corruptions, so that half of its rejected answers are of this kind. With a method whose clean
    view asks that very question, such as SeVa, every pair is equal.
    """

    kind: Literal["plain_prompt"] = "plain_prompt"

    def __call__(self, x: str, rng: random.Random) -> str:
        """The question in, the same out."""
        return x
