"""Sizes of models by their config alone: what transformers makes of it, and what is published."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from seva_exp.core.paths import config_dir
from seva_exp.models import HubModel, TinyModel
from seva_exp.models.footprint import footprint_of, published


def presets() -> dict[str, Path]:
    """Hub id -> its YAML."""
    files = (config_dir() / "model").glob("*.yaml")
    found = {yaml.safe_load(file.read_text()).get("path"): file for file in files}
    return {path: file for path, file in found.items() if path}


def test_every_preset_of_a_model_has_packaged_sizes():
    assert presets().keys() == published().keys()


@pytest.mark.parametrize("path", published())
def test_packaged_sizes_make_the_model_that_transformers_makes(path):
    """All parameters, and those that LoRA is put beside."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    config = {k: dict(v) if isinstance(v, dict) else v for k, v in published()[path].items()}
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(
            CONFIG_MAPPING[config.pop("model_type")](**config)
        )
    sizes, said = footprint_of(HubModel(path=path))
    assert sizes and path in said
    assert sizes.parameters == pytest.approx(model.num_parameters(), rel=0.002)
    decoder = model.get_decoder()
    layers = [one for one in decoder.modules() if isinstance(one, torch.nn.Linear)]
    assert sizes.linear_parameters == sum(one.weight.numel() for one in layers)
    assert sizes.adapter(8) == sum(8 * sum(one.weight.shape) for one in layers)


@pytest.mark.parametrize("path", published())
def test_the_size_of_a_preset_is_what_its_file_says(path):
    told = re.search(r"([\d.]+) GB\s+(?:# )?in\s+(?:# )?bf16", presets()[path].read_text())
    sizes, _ = footprint_of(HubModel(path=path))
    assert sizes and told
    assert sizes.weights(2) / 1e9 == pytest.approx(float(told[1]), abs=0.1)


def test_what_a_config_leaves_out_is_what_transformers_has():
    from transformers import CONFIG_MAPPING

    from seva_exp.models import footprint as own

    for kind, values in own.TEXT_DEFAULTS.items():
        made = CONFIG_MAPPING[kind]()
        assert values == tuple(getattr(made, name) for name in own.TEXT_FIELDS), kind
        heads = own.KEY_HEADS.get(kind, made.num_attention_heads)
        assert heads == made.num_key_value_heads, kind
        assert made.tie_word_embeddings == (kind in own.TIED), kind
        width = own.HEAD_WIDTH.get(kind, made.hidden_size // made.num_attention_heads)
        assert width == getattr(made, "head_dim", None) or width, kind
    for kind, values in own.VISION_DEFAULTS.items():
        made = CONFIG_MAPPING[kind]()
        found = [getattr(made, name) for name in own.VISION_FIELDS]
        sides = [one[0] if isinstance(one, list | tuple) else one for one in found]
        assert values == tuple(sides), kind


def test_a_config_at_hand_is_read_and_an_unknown_one_is_said_to_be_missing(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llava", "vision_config": {}}')
    sizes, said = footprint_of(HubModel(path=str(folder)))
    assert sizes is None and "hidden_size" in said
    sizes, said = footprint_of(HubModel(path="nobody/knows-this"))
    assert sizes is None and "hf download nobody/knows-this config.json" in said
    hub = tmp_path / "hub/models--nobody--knows-this"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs/main").write_text("abc")
    (hub / "snapshots/abc").mkdir(parents=True)
    embedded = Path(TinyModel().location(), "config.json").read_text()
    (hub / "snapshots/abc/config.json").write_text(embedded)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    sizes, said = footprint_of(HubModel(path="nobody/knows-this"))
    assert sizes == footprint_of(TinyModel())[0] and "snapshots/abc" in said


@pytest.mark.parametrize(
    ("kind", "text", "packs"),
    [
        ("llava", "llama", True),
        ("llava", None, True),
        ("llava", "qwen2", True),
        ("llava", "mamba", False),
        ("qwen2_vl", "qwen2_vl_text", False),
        ("qwen2_5_vl", None, True),
        ("vipllava", "llama", False),
    ],
)
def test_packed_sequences_are_counted_where_they_are_proven(kind, text, packs, tmp_path):
    """As ``attention.unproven_family`` has it, by the family's own ``proven``."""
    config = dict(published()["llava-hf/llava-1.5-7b-hf"], model_type=kind)
    config["text_config"] = dict(config["text_config"], model_type=text)
    if text is None:
        del config["text_config"]["model_type"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    sizes, source = footprint_of(HubModel(path=str(tmp_path)))
    assert sizes, source
    assert sizes.packs == packs


def test_four_bits_are_those_of_the_layers_alone():
    sizes, _ = footprint_of(HubModel(path="llava-hf/llava-1.5-7b-hf"))
    assert sizes
    whole = 2 * (sizes.parameters - sizes.linear_parameters)
    assert sizes.weights(2, quantized=True) == pytest.approx(
        whole + 0.516 * sizes.linear_parameters, rel=1e-3
    )
