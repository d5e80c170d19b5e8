"""QLoRA's 4 bits: refused where they cannot be had, in the key, and of the language model only."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from transformers.quantizers.quantizers_utils import should_convert_module

from seva_exp import InputError, Machine
from seva_exp.models import HubModel
from seva_exp.models import spec as spec_module
from seva_exp.models.vlm import four_bits, load

from .families import FAMILIES, build

QUANTIZED = HubModel(path="org/name", quantization="nf4")


def test_it_is_in_the_key_and_its_absence_changes_no_key():
    plain, other = (model.identity(str) for model in (HubModel(path="org/name"), QUANTIZED))
    assert other == plain | {"quantization": "nf4"}
    assert "quantization" not in plain


def test_without_bitsandbytes_or_a_gpu_it_is_refused_before_any_work(monkeypatch):
    assert importlib.util.find_spec("bitsandbytes") is None or not torch.cuda.is_available()
    with pytest.raises(InputError, match=r"^model\.quantization=nf4: "):
        QUANTIZED.prepare()
    monkeypatch.setattr(spec_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="bitsandbytes is not installed"):
        QUANTIZED.prepare()
    monkeypatch.setattr(spec_module, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        QUANTIZED.prepare()


def test_the_cpu_is_refused(tmp_path):
    model = build("smolvlm2", tmp_path).model_copy(update={"quantization": "nf4"})
    with pytest.raises(InputError, match=r"machine\.device=cpu cannot compute"):
        load(model, Machine(device="cpu"))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_just_the_language_model_s_layers_are_quantized(tmp_path, family):
    vlm = load(build(family, tmp_path), Machine(device="cpu"))
    config = four_bits(torch.bfloat16)
    assert config.load_in_4bit
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    linear = [n for n, m in vlm.model.named_modules() if isinstance(m, torch.nn.Linear)]
    kept = config.llm_int8_skip_modules
    assert [n for n in linear if should_convert_module(n, kept)] == vlm.language_modules()
