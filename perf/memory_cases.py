"""Memory that the stages of a run take, measured: random LLaVA models of several sizes go through
the package's own stages on the CPU, in a process of their own each.

    python perf/memory_cases.py '{"width": 512}'      one case, as JSON
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
for folder in ("perf", "src"):
    sys.path.insert(0, str(ROOT / folder))
GIB = 2**30
TIMES = 3
QUESTION = 24
"""Tokens of the embedded world's questions in their template, about."""


@dataclass(frozen=True)
class Case:
    """A model, and how it is trained and asked."""

    width: int = 512
    layers: int = 8
    middle: int = 1376
    heads: int = 8
    key_heads: int = 8
    vocabulary: int = 512
    rank: int = 32
    micro: int = 16
    checkpointing: bool = False
    answer: int = 40
    fast: str = "auto"
    rows: int = 32
    samples: int = 32

    @property
    def name(self) -> str:
        text = f"width {self.width}, {self.layers} layers, rank {self.rank}, {self.micro} at once"
        if self.key_heads < self.heads:
            text += f", {self.key_heads} of {self.heads} heads of keys"
        text += f", vocabulary {self.vocabulary}" * (self.vocabulary > 512)
        text += ", checkpointing" * self.checkpointing
        return text + ", plain rows" * (self.fast == "off")


def save_model(case: Case, folder: Path) -> None:
    """Random weights in LLaVA's layout with the embedded model's processor (36 image tokens); no
    answer ends before its longest."""
    import torch
    from transformers import (
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    from seva_exp.models import tiny

    processor = tiny.build_processor()
    tokenizer = processor.tokenizer
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=tiny.IMAGE_SIDE,
            patch_size=tiny.PATCH,
            hidden_size=tiny.WIDTH,
            intermediate_size=3 * tiny.WIDTH,
            num_hidden_layers=tiny.LAYERS,
            num_attention_heads=tiny.HEADS,
            projection_dim=tiny.WIDTH,
        ),
        text_config=LlamaConfig(
            vocab_size=case.vocabulary,
            hidden_size=case.width,
            intermediate_size=case.middle,
            num_hidden_layers=case.layers,
            num_attention_heads=case.heads,
            num_key_value_heads=case.key_heads,
            max_position_embeddings=tiny.MAX_POSITIONS,
            **special,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(tiny.IMAGE_TOKEN),
        image_seq_length=tiny.IMAGE_TOKENS,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**special)
    with torch.no_grad():
        model.lm_head.weight[special["eos_token_id"]] = 0  # never the largest
        model.lm_head.weight[tiny.VOCABULARY :] = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def experiment(case: Case, model: Path) -> Any:
    """DPO on answers of the embedded world."""
    from seva_exp import Experiment
    from seva_exp.augment import DiffusionNoise
    from seva_exp.data import ShapesData
    from seva_exp.decoding import HfGeneration
    from seva_exp.models import HubModel
    from seva_exp.training import DpoTraining

    return Experiment(
        aug={"diffusion_noise": DiffusionNoise()},
        model=HubModel(path=str(model)),
        data=ShapesData(samples=case.samples),
        generation=HfGeneration(max_new_tokens=case.answer),
        filters=(),
        dpo=DpoTraining(
            batch_size=case.samples // 2,
            lora_rank=case.rank,
            lora_alpha=2 * case.rank,
            fast=case.fast,
        ),
        benchmark={},
    )


def machine(case: Case, work: Path) -> Any:
    """The CPU."""
    from seva_exp import Machine

    return Machine(
        device="cpu",
        batch_size=case.rows,
        train_batch_size=case.micro,
        gradient_checkpointing=case.checkpointing,
        checkpoint_minutes=None,
        runs=str(work),
        progress="off",
    )


def estimated(case: Case, model: Path) -> dict[str, float]:
    """Stage -> bytes, as the estimate has them; of generation what it takes."""
    from seva_exp.core.device_memory import device_of
    from seva_exp.core.digests import FileDigests
    from seva_exp.experiment.graph import graph
    from seva_exp.experiment.memory import Setting, needs
    from seva_exp.models.footprint import footprint_of

    wanted, here = experiment(case, model), machine(case, model)
    sizes, _ = footprint_of(wanted.model)
    assert sizes
    setting = Setting(sizes, here, device_of(here), question=QUESTION)
    found, _ = needs(graph(wanted, FileDigests(model)), setting)
    return {need.label: max(need.bytes, need.takes) for need in found}


def run(case: Case, model: Path, work: Path) -> dict[str, Any]:
    """Peaks of this process's resident memory in each stage, in bytes."""
    from seva_exp import Options
    from seva_exp.core.runtime import settle
    from seva_exp.experiment import run
    from seva_exp.runs.events import Listener

    peaks: dict[str, int] = {}

    class Watch(Listener):
        def stage_started(self, stage: Any) -> None:
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
            self.before = resident("VmRSS")

        def stage_finished(self, result: Any, metrics: Any) -> None:
            peaks[result.name] = resident("VmHWM")

    settle()
    run(experiment(case, model), machine(case, work), Options(), listeners=[Watch()])
    return peaks


def resident(name: str) -> int:
    """``VmRSS`` or its peak ``VmHWM``, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measured(case: Case) -> dict[str, dict[str, float]]:
    """Stage -> bytes that were ``measured`` and ``estimated``: the median of ``TIMES`` fresh
    processes, since what an allocator keeps differs by a tenth from one to the next."""
    found = [_once(case) for _ in range(TIMES)]
    return {
        label: {kind: median(one[label][kind] for one in found) for kind in row}
        for label, row in found[0].items()
    }


def _once(case: Case) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, json.dumps(asdict(case)), folder],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    case, folder = Case(**json.loads(sys.argv[1])), Path(sys.argv[2])
    if len(sys.argv) == 4:
        estimates, peaks = estimated(case, folder / "model"), run(case, folder / "model", folder)
        both = {k: {"measured": peaks[k], "estimated": estimates[k]} for k in estimates}
        print(json.dumps(both))
    else:  # what writes the weights leaves nothing in the process that is measured
        save_model(case, folder / "model")
        os.execv(sys.executable, [sys.executable, *sys.argv, "run"])
