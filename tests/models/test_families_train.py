"""Every family goes from load to trained adapter."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import seva_exp
from seva_exp import Experiment
from seva_exp.augment import DiffusionNoise
from seva_exp.core.interfaces import Placement, Request
from seva_exp.core.progress import progress
from seva_exp.data import FolderData
from seva_exp.decoding import HfGeneration
from seva_exp.decoding.engine import Engine
from seva_exp.models.vlm import Vlm, load
from seva_exp.training import DpoTraining
from seva_exp.training.collate import Preference
from seva_exp.training.dpo import trainer_for
from seva_exp.training.driver import TrainingJob, train

from .asking import MACHINE, PROMPTS, SIZES, published
from .families import draw, each_family, slow_but


def preferences() -> list[Preference]:
    """Ids as a model could have generated them, of several lengths."""
    return [
        Preference(
            f"s{i}",
            PROMPTS[i],
            partial(draw, *SIZES[i], i),
            tuple(range(10 + i, 18 + 2 * i)),
            (tuple(range(40, 43 + i)),),
        )
        for i in range(4)
    ]


def trained(vlm: Vlm, work: Path, checkpointing: bool = False) -> tuple[Path, list[dict]]:
    placement = Placement("cpu", 4, 2, checkpointing, partial(progress, "off"), work)
    training = DpoTraining(batch_size=2, learning_rate=1e-2, warmup_ratio=0.0, lora_rank=4)
    job = TrainingJob(vlm, training, placement, 0, "base", lambda step, row: None)
    return train(job, trainer_for(job, preferences()))


def logits(vlm: Vlm) -> torch.Tensor:
    with torch.inference_mode():
        return vlm.model(**published(vlm, draw(60, 30), "What?")).logits[0, -1].float()


@each_family
def test_two_steps_train_the_language_model_only(name, vlm_of, spec_of, tmp_path) -> None:
    vlm = vlm_of(name)
    allowed = set(vlm.language_modules())
    inside = [module for module in allowed if ".layers." in module]
    assert len(inside) == len(allowed) == 7 * 3
    assert not any(word in module for module in allowed for word in ("vis", "connector", "lm_head"))
    base = logits(vlm)
    folder, rows = trained(vlm, tmp_path)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5) and len(rows) == 2
    assert rows[1]["loss"] != pytest.approx(math.log(2), abs=1e-4)
    names = [*load_file(folder / "adapter_model.safetensors")]
    parts = [name.removeprefix("base_model.model.").split(".lora_") for name in names]
    assert {module for module, _ in parts} == allowed and len(parts) == 2 * len(allowed)
    vlm.model.eval()
    after = logits(load(spec_of(name), MACHINE, folder))
    assert torch.allclose(after, logits(vlm), atol=1e-4)  # what was trained is what is loaded
    assert (after - base).abs().max() > 0.05


@slow_but("gemma3", "llava15", "paligemma2")
def test_checkpointing_and_bfloat16_train_and_answer(name, spec_of, tmp_path) -> None:
    machine = MACHINE.model_copy(update={"dtype": "bfloat16"})
    vlm = load(spec_of(name), machine)
    base = logits(vlm)
    folder, rows = trained(vlm, tmp_path, checkpointing=True)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    again = load(spec_of(name), machine, folder)
    assert (logits(again) - base).abs().max() > 0.05
    asked = [
        Request(f"r{i}", f"p{i}", partial(draw, *SIZES[i], i), PROMPTS[i], 3) for i in range(4)
    ]
    replies = [reply for some in Engine(again, 4).run(asked) for reply in some]
    assert len(replies) == 4
    assert all(len(reply.tokens) == 3 or reply.stop == "eos" for reply in replies)


@slow_but("gemma3", "llava15", "paligemma2")
def test_a_whole_run_on_a_folder_of_pictures(name, spec_of, tmp_path) -> None:
    (tmp_path / "pictures").mkdir()
    for turn in range(6):
        draw(*SIZES[turn % 4], turn).save(tmp_path / "pictures" / f"{turn}.png")
    experiment = Experiment(
        aug={"noise": DiffusionNoise(step=999)},
        model=spec_of(name),
        data=FolderData(path=str(tmp_path / "pictures")),
        generation=HfGeneration(max_new_tokens=8),
        dpo=DpoTraining(batch_size=2),
        benchmark={},
    )
    machine = MACHINE.model_copy(
        update={"runs": str(tmp_path / "runs"), "batch_size": 4, "progress": "off"}
    )
    report = seva_exp.run(experiment, machine)
    [adapter] = (tmp_path / "runs").rglob("adapter_model.safetensors")
    assert "align" in {stage.name for stage in report.stages}
    stored = load(spec_of(name), machine, adapter.parent)
    assert (logits(stored) - logits(load(spec_of(name), machine))).abs().max() > 0
    previews = sorted((tmp_path / "runs").rglob("previews/*.png"))
    assert len({path.name for path in previews}) == 6
