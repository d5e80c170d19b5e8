"""Each model family on the honest device, at tiny sizes: answers and a training are the CPU's."""

from __future__ import annotations

from pathlib import Path

import pytest

from .stores import compare_rows, compare_weights

FAMILIES = [
    *("llava15", "llava_next", "llava_onevision", "qwen25_vl", "qwen3_vl", "internvl3"),
    *("idefics3", "smolvlm2", "gemma3", "paligemma2"),
]


