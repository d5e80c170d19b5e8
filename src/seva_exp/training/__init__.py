"""Aligning a model with its preference pairs."""

from seva_exp.training.spec import DpoTraining

__all__ = ["DpoTraining"]
