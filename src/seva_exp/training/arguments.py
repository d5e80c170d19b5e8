"""The trainers' arguments: everything that could differ by machine or default is set here."""

from __future__ import annotations

from typing import Any, TypeVar

from seva_exp.core.interfaces import Placement
from seva_exp.core.randomness import seed_for
from seva_exp.core.spec import Json
from seva_exp.training.spec import Training, cut

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""transformers' names: its ``constant`` has no warm-up."""

Made = TypeVar("Made")


class OneDevice:
    """In front of TRL's arguments: a process trains on its own device. The Trainer would take all
    GPUs that one process sees (DataParallel, which TRL refuses), and begin with the first."""

    distributed_state: Any

    @property
    def n_gpu(self) -> int:
        return min(1, super().n_gpu)  # type: ignore[misc]

    @property
    def device(self) -> Any:
        super().device  # type: ignore[misc]  # noqa: B018  (finds out the state)
        return self.distributed_state.device


def on_its_device(kind: type[Made], placement: Placement, **values: Any) -> Made:
    """Arguments of this kind, which take the placement's device for theirs."""
    import torch
    from accelerate.utils import patch_environment

    with patch_environment(ACCELERATE_TORCH_DEVICE=placement.device):
        made = kind(**values)
    if placement.device.startswith("cuda"):
        torch.cuda.set_device(placement.device)  # the Trainer's setup went to the first
    return made


def shared_arguments(spec: Training, placement: Placement, seed: int) -> Json:
    """The arguments that DPOConfig and SFTConfig share. ``seed`` also draws the new adapter: TRL
    sets the global state from it right before."""
    size, count = cut(spec.batch_size, placement.processes, placement.train_batch_size)
    device = placement.device
    return {
        "output_dir": str(placement.checkpoints or placement.work / "trainer"),
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": SCHEDULES[spec.schedule],
        "warmup_steps": spec.warmup_ratio,  # below 1 it is a share of all steps
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.max_grad_norm,
        "num_train_epochs": spec.epochs,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": count,
        "activation_checkpointing": placement.gradient_checkpointing,
        "max_length": None,  # truncation would cut image tokens
        "router_aux_loss_coef": 0.0,  # a statistic of the micro-batch
        "bf16": False,  # the model's own dtype decides: precision.py
        "fp16": False,
        "ddp_find_unused_parameters": False,  # each micro-batch uses all that is trained
        "use_cpu": device == "cpu",
        "seed": seed_for(seed, "trainer") % 2**32,
        "save_strategy": "no",  # CheckpointClock asks for them
        "report_to": "none",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "dataloader_pin_memory": device.startswith("cuda"),
        "disable_tqdm": True,
    }


def vision_rows(count: int) -> Any:
    """A data set of row numbers. TRL tells vision data by the ``image`` column; the collators load
    the pictures themselves."""
    from datasets import Dataset

    rows = [{"row": i, "image": i, "prompt": "", "completion": ""} for i in range(count)]
    return Dataset.from_list(rows)
