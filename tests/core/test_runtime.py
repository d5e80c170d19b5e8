"""The process that loads torch, settled before that."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TELL = (
    "import os; from seva_exp.core.runtime import settle; settle(); "
    "print(os.environ.get('PYTORCH_ALLOC_CONF'), os.environ.get('PYTORCH_CUDA_ALLOC_CONF'))"
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere torch has no such kind")
@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "expandable_segments:True expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:256"}, "max_split_size_mb:256 None"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, "None backend:native"),
    ],
)
def test_memory_on_a_gpu_comes_in_segments_that_grow_unless_a_person_says_else(given, found):
    left = {k: v for k, v in os.environ.items() if not k.endswith("ALLOC_CONF")}
    out = subprocess.run(
        [sys.executable, "-c", TELL], env=left | given, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == found
