"""Answers of a model: a continuous-batching scheduler with prefix sharing, transformers' generate,
or a server. Nothing here knows what the answers are for."""

from typing import Annotated

from pydantic import Field

from seva_exp.core.spec import Spec
from seva_exp.decoding.spec import HfGeneration, ServerGeneration

GENERATION: dict[str, type[Spec]] = {"hf": HfGeneration, "server": ServerGeneration}
AnyGeneration = Annotated[HfGeneration | ServerGeneration, Field(discriminator="kind")]

__all__ = ["GENERATION", "AnyGeneration", "HfGeneration", "ServerGeneration"]
