"""Each model family on the honest device, at tiny sizes: answers and a training are the CPU's."""

from __future__ import annotations

import pytest

from ..slow import slow_but
from .stores import compare_weights, unlike

FAMILIES = [
    *("llava15", "llava16_vicuna", "llava16_mistral", "llava_onevision", "qwen25_vl", "qwen3_vl"),
    *("internvl3", "idefics3", "smolvlm2", "gemma3", "paligemma2"),
]
ADAPTER = "adapter/adapter_model.safetensors"


@pytest.mark.parametrize("name", slow_but(["llava15", "qwen25_vl", "gemma3"], of=FAMILIES))
def test_a_family_answers_and_learns_as_on_the_cpu(name, fake_gpu, tmp_path):
    spec = fake_gpu("checkpoint", name=name, folder=str(tmp_path))
    del spec["output"]
    cpu, gpu = (
        fake_gpu("family", spec=spec, folder=str(tmp_path), device=device)
        for device in ("cpu", "cuda")
    )
    assert len(cpu["answers"]) == 3 and len(cpu["steps"]) == 2
    assert not cpu["told"] and not gpu["told"]  # of slower ways
    assert [*unlike(cpu["answers"], gpu["answers"])] == []
    assert [*unlike(cpu["steps"], gpu["steps"])] == []
    assert [*compare_weights(tmp_path / "cpu" / ADAPTER, tmp_path / "cuda" / ADAPTER)] == []


def test_no_family_is_missing(fake_gpu):
    assert fake_gpu("families")["names"] == FAMILIES
