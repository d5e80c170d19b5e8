"""Every random choice is drawn from a generator seeded by (run seed, purpose, sample id).

So a choice does not depend on batch size, order, number of processes or global state.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_for(seed: int, purpose: str, sample_id: str = "") -> int:
    """A 63-bit seed that depends on exactly these three values."""
    text = f"{seed}\x1f{purpose}\x1f{sample_id}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def python_rng(seed: int, purpose: str, sample_id: str = "") -> random.Random:
    """A Python generator for one choice (crop boxes, probabilities, prompts)."""
    return random.Random(seed_for(seed, purpose, sample_id))


def torch_rng(seed: int, purpose: str, sample_id: str = "") -> torch.Generator:
    """A CPU torch generator for one choice (pixel noise). Same numbers whatever the device."""
    import torch

    return torch.Generator(device="cpu").manual_seed(seed_for(seed, purpose, sample_id))
