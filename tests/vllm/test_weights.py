"""Names of weights for vLLM: others than transformers 5 writes, the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seva_exp import Machine
from seva_exp.core.digests import FileDigests
from seva_exp.models import HubModel, TinyModel
from seva_exp.models.spec import TINY_CHECKPOINT
from seva_exp.models.vlm import load
from seva_exp.vllm.running import readable
from seva_exp.vllm.weights import INDEX, INNER, TOWER, needs_older, older, write_older


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """The embedded model's, a user's own, in two files."""
    folder = tmp_path / "mine"
    shutil.copytree(TINY_CHECKPOINT, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    where = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({n: weights[n] for n in part}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_name_that_is_older_already_stays():
    assert older("vision_tower.encoder.x") == "vision_tower.vision_model.encoder.x"
    for name in ("vision_tower.vision_model.x", "language_model.model.x", "my_vision_tower.x"):
        assert older(name) == name


def test_only_names_change_and_the_model_is_the_same(checkpoint, tmp_path):
    before = contents(checkpoint)
    out = tmp_path / "out"
    assert needs_older(checkpoint)
    write_older(checkpoint, out)
    assert not needs_older(out)
    assert contents(checkpoint) == before, "nothing is changed in the user's folder"
    there = json.loads((out / INDEX).read_text())["weight_map"]
    read = {name: file.name for file in out.glob("*.safetensors") for name in load_file(file)}
    assert read == there
    assert not [n for n in there if n.startswith(TOWER) and not n.startswith(INNER)]
    models = [load(HubModel(path=str(f)), Machine(device="cpu")).model for f in (checkpoint, out)]
    old, new = (dict(model.named_parameters()) for model in models)
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_it_is_written_once_for_each_checkpoint(checkpoint, tmp_path):
    machine = Machine(store=str(tmp_path / "store"))
    digests = FileDigests(tmp_path / "store")
    first = readable(HubModel(path=str(checkpoint)), machine, digests)
    stamp = Path(first, "config.json").stat().st_mtime_ns
    assert readable(HubModel(path=str(checkpoint)), machine, digests) == first
    assert Path(first, "config.json").stat().st_mtime_ns == stamp
    assert readable(TinyModel(), machine, digests) != first
    assert readable(HubModel(path=first), machine, digests) == first, "its names are older already"


def test_a_family_without_that_tower_is_left_alone(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"model_type": "qwen2_vl"}))
    assert not needs_older(checkpoint)
