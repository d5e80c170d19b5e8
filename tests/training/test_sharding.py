"""Weights that are shared out over the processes: FSDP2 gives the numbers of one process, an
accelerate config means what it means to ``accelerate launch``, and what cannot work is refused."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import trl
from accelerate.utils import (
    DeepSpeedPlugin,
    FullyShardedDataParallelPlugin,
    patch_environment,
)
from safetensors.torch import load_file
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers.training_args import ParallelMode

from seva_exp import Experiment, InputError, Machine, StageError, run
from seva_exp.augment import DiffusionNoise
from seva_exp.experiment.preflight import _check_processes
from seva_exp.models import HubModel
from seva_exp.stages import accelerate_config
from seva_exp.stages.accelerate_config import FOLDER, config_file, launch_environment
from seva_exp.stages.processes import Here, check_processes, launch
from seva_exp.training import DpoTraining
from seva_exp.training.checkpoints import CheckpointClock, finish
from seva_exp.training.dpo import _arguments, trainer_for
from seva_exp.training.driver import _checkpointed

from .on_cpu import ShardedTrainings
from .ranks import ROWS, TwoTrainings
from .test_processes import ROOT, job, same, stage_context
from .tools import job as training_job
from .tools import picture, placement, preferences, tiny

TRL_CONFIGS = Path(trl.__file__).parent / "accelerate_configs"


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs, as far as the checks look."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)


def told(config: str | Path, **machine) -> dict[str, str]:
    values = {"processes": 2, "accelerate": str(config)} | machine
    return launch_environment(Machine(**values))


@pytest.fixture
def sharded(gpus, monkeypatch):
    """The ranks, on the CPU, are told what ``machine.accelerate=fsdp`` tells those on GPUs."""
    environment = told("fsdp")
    monkeypatch.undo()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(ROOT)  # the processes import this package


def pictures(folder: Path) -> Path:
    for i in range(ROWS):
        picture(i).save(folder / f"{i}.png")
    return folder


def two(folder: Path, stage: TwoTrainings, **machine) -> dict:
    (folder / "two").mkdir(exist_ok=True)
    made = job(stage, folder / "two")
    return launch(made, stage_context(folder, processes=2, **machine))[0]


@pytest.mark.slow
def test_fsdp_gives_the_numbers_of_one_process_and_its_adapter(sharded, tmp_path, monkeypatch):
    machine = {"train_batch_size": 2, "checkpoint_minutes": None}
    parts = two(pictures(tmp_path), ShardedTrainings(tmp_path), **machine)
    monkeypatch.undo()
    (one := tmp_path / "one").mkdir()
    whole = TwoTrainings(tmp_path).run(one, {}, stage_context(tmp_path, **machine))
    same(whole["dpo"], parts["dpo"])
    same(whole["sft"], parts["sft"])
    weights = [load_file(d / "adapter/adapter_model.safetensors") for d in (one, tmp_path / "two")]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_fsdp_as_on_a_gpu(sharded, tmp_path):
    """Weights in bfloat16 beside an adapter in float32, activations recomputed."""
    machine = {"dtype": "bfloat16", "gradient_checkpointing": True, "checkpoint_minutes": None}
    parts = two(pictures(tmp_path), ShardedTrainings(tmp_path), **machine)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ACCELERATE_USE_FSDP")
        (one := tmp_path / "one").mkdir()
        whole = TwoTrainings(tmp_path).run(one, {}, stage_context(tmp_path, **machine))
    for name in ("dpo", "sft"):
        losses = [[row["loss"] for row in rows[name]] for rows in (parts, whole)]
        assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.slow
def test_fsdp_that_is_killed_leaves_no_checkpoint(sharded, tmp_path):
    with pytest.raises(StageError, match=r"process 1 died \(SIGKILL\)"):
        two(pictures(tmp_path), ShardedTrainings(tmp_path, dies_at=2))
    assert not list((tmp_path / "two/trainer").glob("checkpoint-*"))


def test_with_weights_shared_out_no_checkpoint_is_saved_nor_gone_on_from(tmp_path):
    """Loading one by accelerate's FSDP2 did not end: one rank broadcast, the other did not."""
    warned: list[str] = []
    place = placement(tmp_path, checkpoint_minutes=0.0, warn=warned.append)
    vlm = tiny()
    spec = DpoTraining(batch_size=2)
    trainer = trainer_for(training_job(vlm, spec, place), preferences(vlm, 2))
    trainer.forward.close()
    (left := tmp_path / "trainer/checkpoint-1").mkdir(parents=True)
    finish(left, torch.float32)
    assert _checkpointed(trainer, "align", place) == left
    clocks = [CheckpointClock in map(type, trainer.callback_handler.callbacks)]
    trainer.remove_callback(CheckpointClock)
    trainer.is_fsdp_enabled = True
    assert _checkpointed(trainer, "align", place) is None
    clocks.append(CheckpointClock in map(type, trainer.callback_handler.callbacks))
    assert clocks == [True, False]
    assert warned == [
        "align: with weights shared out (machine.accelerate) no checkpoints are saved; a training "
        "that is stopped begins anew"
    ]


def test_fsdp_as_we_mean_it(gpus):
    with patch_environment(**told("fsdp")):
        plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy
    assert plugin.transformer_cls_names_to_wrap is None  # the model's own layers: share_out
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert not getattr(plugin.cpu_offload, "pin_memory", None)
    assert not plugin.cpu_ram_efficient_loading
    assert not plugin.activation_checkpointing
    assert plugin.mixed_precision_policy is None


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_deepspeed_as_we_mean_it(gpus, monkeypatch, name, stage):
    """Read by accelerate; DeepSpeed itself need not be here."""
    monkeypatch.setattr(accelerate_config, "find_spec", lambda name: object())
    environment = told(name)
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    with patch_environment(**environment):
        plugin = DeepSpeedPlugin()
    found = plugin.deepspeed_config["zero_optimization"]
    assert plugin.zero_stage == found["stage"] == stage
    assert found["offload_optimizer"]["device"] == found["offload_param"]["device"] == "none"
    assert plugin.deepspeed_config["gradient_accumulation_steps"] == "auto"  # the Trainer's number
    assert plugin.zero3_init_flag is False


@pytest.mark.parametrize(
    ("dtype", "precision"), [("auto", "bf16"), ("float16", "fp16"), ("float32", "no")]
)
def test_the_number_format_is_the_machine_s(gpus, monkeypatch, dtype, precision):
    """DeepSpeed casts the model to it; under FSDP the model's own stays, as in one process."""
    monkeypatch.setattr(accelerate_config, "find_spec", lambda name: object())
    assert told("zero2", dtype=dtype)["ACCELERATE_MIXED_PRECISION"] == precision
    assert told("fsdp", dtype=dtype)["ACCELERATE_MIXED_PRECISION"] == "no"


@pytest.mark.parametrize("name", ["fsdp2", "zero2", "zero3", "multi_gpu"])
def test_configs_that_trl_comes_with_are_taken(gpus, monkeypatch, name):
    monkeypatch.setattr(accelerate_config, "find_spec", lambda name: object())
    environment = told(TRL_CONFIGS / f"{name}.yaml")
    assert ("ACCELERATE_USE_FSDP" in environment) == (name == "fsdp2")
    assert ("ACCELERATE_USE_DEEPSPEED" in environment) == name.startswith("zero")


def test_the_ranks_are_told_and_their_threads_are_ours(gpus, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    machine = Machine(processes=2, accelerate="fsdp")
    ranks = Here(machine).environments(together=True)
    assert [rank["RANK"] for rank in ranks] == ["0", "1"]
    assert {rank["FSDP_VERSION"] for rank in ranks} == {"2"}
    assert {rank["WORLD_SIZE"] for rank in ranks} == {"2"}
    assert "0" not in {rank["MASTER_PORT"] for rank in ranks}, "accelerate's, for itself to choose"
    threads = str(max(1, os.cpu_count() // 2))
    assert {rank["OMP_NUM_THREADS"] for rank in ranks} == {threads}
    assert not {"OMP_NUM_THREADS", "PYTHONPATH"} & check_processes(machine, 2)[1].keys()
    alone = Here(machine).environments(together=False)
    assert not any("FSDP_VERSION" in rank for rank in alone)


FSDP = (FOLDER / "fsdp.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (FSDP.replace("fsdp_version: 2", "fsdp_version: 1"), "fsdp_version must be 2"),
        (
            FSDP.replace("checkpointing: false", "checkpointing: true"),
            "machine.gradient_checkpointing=true",
        ),
        (
            FSDP.replace("fsdp_version: 2", "fsdp_version: 2\n  fsdp_ignored_modules: a"),
            "Take it out",
        ),
        (FSDP.replace("num_machines: 1", "num_machines: 2"), "num_machines=2"),
        (FSDP.replace("type: FSDP", "type: MEGATRON_LM"), "FSDP, DEEPSPEED or MULTI_GPU"),
        (FSDP.replace("num_machines", "num_machinez"), "num_machinez"),
        (
            FSDP.replace("forward: true", "forward: FULL_SHARD"),
            "accelerate cannot read it.*full_shard",
        ),
        ("a: [", "accelerate cannot read it: while parsing"),
        ("", "accelerate cannot read it"),
    ],
    ids=[
        "version",
        "checkpointing",
        "ignored",
        "machines",
        "kind",
        "key",
        "value",
        "yaml",
        "empty",
    ],
)
def test_a_config_that_cannot_work_is_refused(gpus, tmp_path, text, why):
    (file := tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"^machine\.accelerate={file}: .*({why})"):
        told(file)


def test_one_process_a_cpu_and_a_name_that_is_none_are_refused(gpus, monkeypatch):
    with pytest.raises(InputError, match=r"accelerate=fsdp: it is for several processes"):
        told("fsdp", processes=1)
    with pytest.raises(InputError, match=r"accelerate=fsdp: on machine.device=cpu accelerate"):
        told("fsdp", device="cpu")
    with pytest.raises(InputError, match=r"accelerate=fsdq: neither a file.*Did you mean 'fsdp'"):
        told("fsdq")
    assert config_file("zero3") == FOLDER / "zero3.yaml"


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="DeepSpeed is here")
def test_deepspeed_that_is_not_installed_is_refused(gpus):
    with pytest.raises(InputError, match=r"accelerate=zero2: DeepSpeed is not installed"):
        told("zero2")


def test_weights_of_4_bits_are_not_shared_out():
    machine = Machine(processes=2, accelerate="zero2")
    with pytest.raises(InputError, match=r"accelerate=zero2: weights of model.quantization=nf4"):
        _check_processes(HubModel(path="a/b", quantization="nf4"), machine)


def test_refused_before_anything_is_made(tmp_path):
    views = {"diffusion_noise": DiffusionNoise()}
    machine = Machine(
        device="cpu", processes=2, accelerate="fsdp", runs=str(tmp_path / "runs"), progress="off"
    )
    with pytest.raises(InputError, match=r"accelerate=fsdp: on machine.device=cpu"):
        run(Experiment(aug=views), machine)
    assert not (tmp_path / "runs").exists()


def test_one_process_trains_on_one_of_several_gpus(gpus, monkeypatch, tmp_path):
    """The Trainer alone would take both, and TRL refuses that."""
    went: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: went.append(str(device)))
    place = placement(tmp_path, device="cuda:1")
    args = _arguments(DpoTraining(), place, 0)
    assert args.n_gpu == 1
    assert args.parallel_mode is ParallelMode.NOT_PARALLEL
    assert args.device == args.distributed_state.device == torch.device("cuda:1")
    assert went[-1] == "cuda:1"
