"""PEFT's internals, here alone: which modules of a model are PEFT's, and what we switch in them.
``tests/training/test_private.py`` tells when PEFT moves."""

from __future__ import annotations

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper

COPY = ".modules_to_save."
"""Part of the name of each parameter that PEFT trains as a whole: here, the projector's."""
TRAINED = ("lora_", COPY)
"""Parts of the names of an adapter's weights."""


def keep_input_dtype(model: PeftModel) -> None:
    """No LoRA layer casts its input to its weights' format (PEFT's own context manager for it,
    ``disable_input_dtype_casting``, ends with its block; training does not)."""
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False


def projectors(model: PeftModel) -> list[ModulesToSaveWrapper]:
    """The modules that are trained as a whole: the original modules with their copies."""
    return [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]
