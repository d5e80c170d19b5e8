"""Asking a model: specs of the engines, and the in-process one."""

from seva_exp.generation.spec import HfGeneration
from seva_exp.spec import Spec

GENERATION: dict[str, type[Spec]] = {"hf": HfGeneration}
AnyGeneration = HfGeneration

__all__ = ["GENERATION", "AnyGeneration", "HfGeneration"]
