"""How many tokens' keys and values may be held at once."""

from __future__ import annotations

from pathlib import Path

import torch

from seva_exp.core import main_memory
from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import Request, VisionLanguageModel
from seva_exp.decoding.kv_cache import bytes_per_token
from seva_exp.decoding.memory import SHARE


class Budget:
    """``tokens`` that fit. ``limit`` is the user's number; None: from the device's free memory, of
    which main memory is shared with ``neighbours`` - 1 other processes."""

    def __init__(self, vlm: VisionLanguageModel, limit: int | None, neighbours: int = 1) -> None:
        self._vlm = vlm
        self._neighbours = neighbours
        self._tokens = limit

    @property
    def tokens(self) -> int:
        """Measured when it is first asked for."""
        if self._tokens is None:
            device = self._vlm.device
            share = SHARE.get(device.type, SHARE["cpu"])
            if device.type != "cuda":
                share /= self._neighbours
            self._tokens = int(share * free_bytes(device) / bytes_per_token(self._vlm.model))
        return self._tokens

    def halve(self, used: int) -> None:
        """Half of what was ``used`` when memory ran out."""
        self._tokens = max(1, min(self.tokens, used) // 2)


def free_bytes(device: torch.device, root: Path = Path("/")) -> float:
    """The device's free memory in bytes, with what torch keeps unused of it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    return main_memory.free_bytes(root)


def even_alone(request: Request) -> StageError:
    """The error of a request for which memory ran out while nothing else was held."""
    return StageError(f"request {request.id}: out of memory even alone")


def does_not_fit(request: Request, need: int, budget: int) -> StageError:
    """The error of a request for which there is no room even alone."""
    return StageError(
        f"request {request.id}: its prompt with the picture, and the answer so far, take {need} "
        f"tokens of keys and values, and {budget} fit (machine.generation_tokens, or what memory "
        "allows: it is halved when memory runs out). Take more memory, smaller pictures or a lower "
        "generation.max_new_tokens; what was finished is kept."
    )
