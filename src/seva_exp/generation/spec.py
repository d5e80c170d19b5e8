"""How answers are decoded. No heavy import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from seva_exp.spec import Json, Spec

Newlines = Literal["keep", "delete"]
"""What becomes of line breaks in a pair's answers. SeVa's released code deletes them, which glues
the words on both sides."""


class HfGeneration(Spec):
    """Decoding with transformers in this process: greedy at temperature 0 (SeVa), else sampled
    (STIC). A sampled answer depends on (seed, view, sample), never on its batch."""

    kind: Literal["hf"] = "hf"
    max_new_tokens: int = Field(512, ge=1)
    """Longest answer in tokens; SeVa's released code takes 512, STIC's 1024."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy (SeVa); above, tokens are drawn from softmax(logits / temperature). STIC: 0.2."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Tokens are drawn from the smallest set that holds this probability; 1 is all (STIC)."""

    logprobs: bool = False
    """Keep the log-probability of every token of an answer, by the model as it is (temperature 1,
    no top_p)."""

    @model_validator(mode="after")
    def _top_p_needs_a_temperature(self) -> HfGeneration:
        if self.top_p < 1 and not self.seeded:
            raise ValueError(
                f"top_p={self.top_p} changes nothing at temperature=0 (greedy); "
                "set temperature above 0 or leave top_p at 1."
            )
        return self

    def identity(self) -> Json:
        """What decides the answers and what is kept of them."""
        values = self.to_json()
        if not self.logprobs:  # such answers keep the key they had before these could be kept
            del values["logprobs"]
        return values

    @property
    def seeded(self) -> bool:
        """Whether the run's seed changes the answers of every view, the clean one included."""
        return self.temperature > 0
