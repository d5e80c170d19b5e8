"""Benchmarks: questions with known answers, scoring rules, and statistics."""

from seva_exp.benchmarks.shapes import ShapesBenchmark

BENCHMARKS = {"shapes": ShapesBenchmark}
AnyBenchmark = ShapesBenchmark

__all__ = ["BENCHMARKS", "AnyBenchmark", "ShapesBenchmark"]
