"""How answers are decoded. No heavy import."""

from typing import Literal

from pydantic import Field

from seva_exp.spec import Spec


class HfGeneration(Spec):
    """Greedy decoding with transformers in this process (SeVa decodes greedily)."""

    kind: Literal["hf"] = "hf"
    max_new_tokens: int = Field(512, ge=1)
    """Longest answer in tokens; SeVa's released code takes 512."""
