"""The memory of the device that a run takes, found without torch and without a context on a GPU."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

from seva_exp.core import main_memory
from seva_exp.core.gpus import seen
from seva_exp.core.machine import Machine

GIB = 2**30
CONTEXT, PYTHON = 0.6 * GIB, 0.55 * GIB
"""What a process takes before its first tensor: CUDA's context and libraries on a GPU, Python with
torch in main memory."""


@dataclass(frozen=True)
class Numbers:
    """How a device computes: ``item`` bytes of a number of the model's format; on a ``gpu``, or in
    main memory. ``triton``: a GPU has its kernels, which come with torch."""

    item: int
    gpu: bool
    triton: bool = True

    @property
    def half(self) -> bool:
        return self.item == 2

    @property
    def process(self) -> float:
        """Bytes of a process before its first tensor."""
        return CONTEXT if self.gpu else PYTHON


@dataclass(frozen=True)
class Device:
    """A device's memory in ``bytes``, what others leave of it now, and its name in messages.
    ``shared`` by so many processes of a stage."""

    numbers: Numbers
    bytes: float
    free: float
    name: str
    shared: int = 1


def device_of(machine: Machine, planned: bool = False) -> Device:
    """The device of a run. ``machine.memory_gb`` stands for a GPU that is not here; where one is, a
    run has no more than that one. ``planned``: it may be meant for another machine."""
    declared = (machine.memory_gb or 0.0) * GIB
    if machine.device not in ("cpu", "mps"):
        size, free = _gpu(machine) or (declared, declared)
        if declared and planned:
            size = free = declared
        elif declared:
            size, free = min(size, declared), min(free, declared)
        if size:
            name = "machine.memory_gb" if size == declared else "GPU"
            return Device(Numbers(_item(machine, True), True), size, free, _named(size, name))
    size = main_memory.total_bytes()
    size = min(size, declared) if declared else size
    free = min(size, main_memory.free_bytes())
    numbers = Numbers(_item(machine, False), False)
    return Device(numbers, size, free, _named(size, "main memory"), machine.processes)


def _named(size: float, name: str) -> str:
    return f"{size / GIB:.3g} GiB ({name})"


def _item(machine: Machine, gpu: bool) -> int:
    if machine.dtype == "auto":
        return 2 if gpu else 4
    return 4 if machine.dtype == "float32" else 2


def _gpu(machine: Machine) -> tuple[float, float] | None:
    """All bytes and free ones of the first GPU that a run takes; None where there is none."""
    names = seen(os.environ)
    index = int(machine.device.partition(":")[2] or 0)
    return gpu_bytes(names[index]) if index < len(names) else None


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def gpu_bytes(name: str) -> tuple[float, float] | None:
    """All and free memory of the GPU that CUDA_VISIBLE_DEVICES calls ``name`` (number or UUID), by
    NVIDIA's management library; None where it does not tell."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2() != 0:
            return None
        handle, found = ctypes.c_void_p(), _Memory()
        if name.isdecimal():
            failed = library.nvmlDeviceGetHandleByIndex_v2(int(name), ctypes.byref(handle))
        else:
            failed = library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        failed = failed or library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(found))
        library.nvmlShutdown()
    except (OSError, AttributeError):  # no driver, or an old one
        return None
    return None if failed else (float(found.total), float(found.free))
