"""FSDP2 on CPU processes: accelerate's own, which it would not choose there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from seva_exp.models.vlm import Vlm
from seva_exp.stages import Inputs, StageContext

from .ranks import TwoTrainings


def fsdp_on_cpu() -> None:
    """From here on accelerate's state in this process is what it would be on GPUs: it turns to
    FSDP for several GPUs only, and to DDP, silently, on a CPU (accelerate/state.py)."""
    before = AcceleratorState.__init__

    def made(self, *args, fsdp_plugin=None, **options):
        before(self, *args, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

    AcceleratorState.__init__ = made


@dataclass
class ShardedTrainings(TwoTrainings):
    """The same two trainings, their weights shared out over the ranks."""

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> dict:
        fsdp_on_cpu()
        return super().run(work, inputs, context)

    def look(self, vlm: Vlm) -> None:
        """While it trains: the language model is shared out, the frozen vision tower is not."""
        shared = {n for n, p in vlm.model.named_parameters() if isinstance(p, DTensor)}
        whole = {n for n, _ in vlm.model.named_parameters()} - shared
        layers = vlm.model.get_decoder().layers
        assert all(isinstance(layer, FSDPModule) for layer in layers)
        assert shared and whole
        assert all(
            "language_model" in n or "modules_to_save" in n or "lm_head" in n for n in shared
        )
        assert all("vision_tower" in n or "original_module" in n for n in whole)
