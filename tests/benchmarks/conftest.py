"""The samples: a small benchmark of every kind, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from seva_exp.benchmarks.samples import make_samples


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that no test changes."""
    root = tmp_path_factory.mktemp("samples") / "root"
    make_samples(root)
    return root
