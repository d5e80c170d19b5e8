"""Benchmarks: questions with known answers, scoring rules, and statistics."""

from seva_exp.benchmarks.describe import DescribeAndRespond, Mode
from seva_exp.benchmarks.shapes import ShapesBenchmark
from seva_exp.spec import Spec

BENCHMARKS: dict[str, type[Spec]] = {"shapes": ShapesBenchmark}
AnyBenchmark = ShapesBenchmark

__all__ = ["BENCHMARKS", "AnyBenchmark", "DescribeAndRespond", "Mode", "ShapesBenchmark"]
