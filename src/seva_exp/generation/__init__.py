"""Asking a model: specs of the engines, and the in-process one."""

from seva_exp.generation.spec import HfGeneration

GENERATION = {"hf": HfGeneration}
AnyGeneration = HfGeneration

__all__ = ["GENERATION", "AnyGeneration", "HfGeneration"]
