"""Best of K on the embedded model: every preset from the config to the adapter, what is shared,
what is refused, and what a kill costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from seva_exp import Machine, Options
from seva_exp.command.config import parse
from seva_exp.core.records import Pair, Report
from seva_exp.experiment import run

from .command.test_config import composed
from .scores.clip_folder import tiny_clip
from .test_methods import manifest, rows

SMALL = (
    "data.samples=16", "benchmark=none", "tracker=none", "dpo.batch_size=8",
    "dpo.warmup_ratio=0", "method.candidates=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("best") / "store"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def go(store: Path, folder: Path, *words: str, **options) -> Report:
    wanted = parse(composed(*SMALL, *words))
    machine = Machine(store=str(store), runs=str(folder / "runs"), progress="off")
    return run(wanted.experiment, machine, Options(**options))


PRESETS = {
    "csr": ["method.scores.clip.path={clip}", "method.rounds=2"],
    "iris": [],
    "clip_dpo": ["method.scores.clip.path={clip}"],
    "self_consistency": ["method.candidates=5"],
    "rlaif_v": ["method.rounds=2"],
    "best_of_k": ["+score=chair", "method.scores.chair.recall=0.5"],
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_runs_to_the_adapter(preset, store, clip, tmp_path):
    words = [word.replace("{clip}", str(clip)) for word in PRESETS[preset]]
    done = go(store, tmp_path, f"method={preset}", *words)
    pairs = rows(done, "pairs.jsonl", Pair)
    assert pairs and all(pair.chosen != pair.rejected[0] for pair in pairs)
    last = manifest(done, done.stages[-1].name)
    assert last["stage"] == "align" and last["summary"]["adapter_changed"]
