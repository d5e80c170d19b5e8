"""Stages that load no model: one that refuses, one that tells what it is given."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from seva_exp import InputError
from seva_exp.stages import Inputs, StageContext


@dataclass
class Refusing:
    label: str = "align"

    def run(self, *_: object) -> dict:
        raise InputError("dpo.batch_size=5: not this one.")


class Odd(Exception):
    """Cannot be made again of its pickle."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


@dataclass
class OutOfMemory:
    """Rank 1 runs out of memory; rank 0 then loses it."""

    label: str = "align"

    def run(self, work: Path, *_: object) -> dict:
        import torch

        if os.environ["RANK"] == "1":
            raise torch.OutOfMemoryError("CUDA out of memory")
        while not (work / "parts/ranks/error-1.pickle").exists():
            time.sleep(0.05)
        raise Odd(1, 2)


@dataclass
class Telling:
    label: str = "align"

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> dict:
        context.warn(f"said by {os.environ['RANK']}")
        return {"vision_cache": context.placement(work).vision_cache}
