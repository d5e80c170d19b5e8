"""How answers are decoded. No heavy import."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from seva_exp.core.machine import Server
from seva_exp.core.spec import Json, Spec
from seva_exp.decoding.contrast import AnyContrast, Place, refuse_contrast
from seva_exp.served.spec import ServedModel

Newlines = Literal["keep", "delete"]
"""What becomes of line breaks in a pair's answers. SeVa's released code deletes them, which glues
the words on both sides."""


NOISE = "splitmix64"
"""Of what sampled tokens are drawn (decoding/noise.py)."""


class Generation(Spec):
    """What the engines share: greedy at temperature 0 (SeVa), else sampled (STIC)."""

    in_process: ClassVar[bool]
    """Whether the model that answers is loaded here: it can be asked through changed pixels."""
    own_model: ClassVar[bool]
    """Whether the model that answers is this run's own: it can be asked with an adapter, and tells
    the ids of its tokens."""
    kind: str
    max_new_tokens: int = Field(512, ge=1)
    """Longest answer in tokens; SeVa's released code takes 512, STIC's 1024."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy (SeVa); above, tokens are drawn from softmax(logits / temperature). STIC: 0.2."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Tokens are drawn from the smallest set that holds this probability; 1 is all (STIC)."""

    @model_validator(mode="after")
    def _top_p_needs_a_temperature(self) -> Generation:
        if self.top_p < 1 and not self.seeded:
            raise ValueError(
                f"top_p={self.top_p} changes nothing at temperature=0 (greedy); "
                "set temperature above 0 or leave top_p at 1."
            )
        return self

    def changed(self, fields: Json) -> Self:
        """With other values of some fields. Raises ValueError where they don't fit together."""
        return type(self).model_validate(dict(self) | fields)

    def identity(self) -> Json:
        """All that decides the answers and what is kept of them, but the view that they are
        contrasted with."""
        return self.to_json()

    def contrasted_at(self, place: Place | None) -> Self:
        """With its contrast if that is for answers of this place, else without one."""
        return self

    @property
    def measuring(self) -> VllmGeneration | None:
        """How vLLM is asked a benchmark's questions; None where this process answers them."""
        return None

    @property
    def seeded(self) -> bool:
        """Whether the run's seed changes the answers of every view, the clean one included."""
        return self.temperature > 0

    def lacking(self, server: Server) -> list[str]:
        """What the machine must still be given before work can start, each with its field."""
        return []

    def unresolved(self) -> list[str]:
        """The fields that a server will be asked for when work starts, for a plan that asks
        none."""
        return []

    def resolved(self, server: Server) -> Generation:
        """With every field that a server is asked for. Raises InputError when it cannot be."""
        return self


class HfGeneration(Generation):
    """Decoding with transformers in this process. A sampled answer depends on (seed, view, sample),
    never on its batch."""

    in_process: ClassVar[bool] = True
    own_model: ClassVar[bool] = True
    kind: Literal["hf"] = "hf"
    logprobs: bool = False
    """Keep the log-probability of every token of an answer, by the model as it is (temperature 1,
    no top_p)."""
    contrast: AnyContrast | None = None
    """Contrastive decoding; none: tokens are chosen by the model's logits."""

    @model_validator(mode="after")
    def _contrast_changes_something(self) -> HfGeneration:
        one = self.contrast
        if one and "clean" in one.at and one.idle(self.temperature):
            raise ValueError(
                f"contrast: kind={one.kind} changes nothing at temperature=0 (greedy): the best "
                "token is plausible. Set generation.temperature above 0, or "
                "generation.contrast.at=[evaluate]."
            )
        return self

    def contrasted_at(self, place: Place | None) -> Self:
        kept = self.contrast is None or place in self.contrast.at
        return self if kept else self.changed({"contrast": None})

    def identity(self) -> Json:
        values = self.to_json()
        del values["contrast"]
        if self.contrast:  # other answers keep the key they had before there was any
            values["contrast"] = self.contrast.identity()
        if not self.logprobs:  # such answers keep the key they had before these could be kept
            del values["logprobs"]
        if self.seeded:  # greedy answers keep the key that they had before
            values["noise"] = NOISE
        return values


class VllmGeneration(Generation):
    """Decoding by a vLLM that the run starts, in an environment of its own (``machine.vllm``). In
    float32 greedy answers are those of ``kind: hf`` (docs/vllm.md); a sampled answer depends on
    (seed, view, sample), and is another one than that of ``hf``."""

    in_process: ClassVar[bool] = False
    own_model: ClassVar[bool] = True
    kind: Literal["vllm"] = "vllm"
    evaluate: bool = False
    """Whether vLLM answers the benchmarks' questions, too; no part of the answers' key."""

    @model_validator(mode="before")
    @classmethod
    def _knows_no_contrast(cls, node: Any) -> Any:
        return refuse_contrast("vllm", node)

    def identity(self) -> Json:
        values = self.to_json()
        del values["evaluate"]
        return values

    @property
    def measuring(self) -> VllmGeneration | None:
        return VllmGeneration() if self.evaluate else None


class ServerGeneration(ServedModel, Generation):
    """Decoding by an OpenAI-compatible server (``machine.server``): vLLM, SGLang, LMDeploy,
    ``transformers serve``. A sampled answer repeats where the server honours ``seed``."""

    in_process: ClassVar[bool] = False
    own_model: ClassVar[bool] = False
    group: ClassVar[str] = "generation"
    name_field: ClassVar[str] = "served_model"
    kind: Literal["server"] = "server"
    served_model: str | None = Field(None, min_length=1)
    """The name under which the server knows the model; none: asked from the server, which then has
    to serve exactly one."""

    @model_validator(mode="before")
    @classmethod
    def _knows_no_contrast(cls, node: Any) -> Any:
        return refuse_contrast("server", node)
