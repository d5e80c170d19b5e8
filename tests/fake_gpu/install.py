"""Two CUDA devices that are none, on torch's CPU build: a guard in C++, and what Python asks of
``torch.cuda``. ``install`` comes before the first import of torch."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("guard.cpp")
DEVICES = 2
GUARD = "SEVA_EXP_FAKE_GPU_GUARD"
"""The environment variable that names the compiled guard."""
KEPT: list[Any] = []
"""What torch would forget."""
BASE_LIBRARIES = ("libc10.so", "libtorch_cpu.so")
GPU_LIBRARIES = ("libtorch_cuda.so", "libtorch_hip.so")


def compiler() -> str | None:
    """The C++ compiler of this machine."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def missing() -> str | None:
    """Why there can be no fake GPU on this machine, if so."""
    if compiler() is None:
        return "NO C++ COMPILER (g++, clang++ or $CXX): the fake GPU cannot be built"
    for library in GPU_LIBRARIES:
        if (_torch() / "lib" / library).exists():
            return (
                f"TORCH IS BUILT FOR A GPU ({library}): the fake one needs the CPU build "
                "(https://download.pytorch.org/whl/cpu). With a device: make test-gpu"
            )
    return None


def build(folder: Path) -> Path:
    """The guard as a library in ``folder``, compiled where it is not there for this torch and this
    source. Raises RuntimeError with what the compiler said."""
    facts = SOURCE.read_bytes() + version("torch").encode()
    library = folder / f"guard-{hashlib.sha256(facts).hexdigest()[:16]}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    torch = _torch()
    unfinished = library.with_suffix(f".{os.getpid()}")
    command = [compiler() or "g++", "-shared", "-fPIC", "-O0", "-std=c++20", str(SOURCE)]
    command += ["-I", f"{torch}/include", "-L", f"{torch}/lib", "-lc10", "-ltorch_cpu"]
    made = subprocess.run([*command, "-o", str(unfinished)], capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{made.stderr[-3000:]}")
    unfinished.rename(library)
    return library


def install(guard: Path) -> None:
    """Load the guard, then torch, and let ``torch.cuda`` speak of the devices."""
    if "torch" in sys.modules:
        raise RuntimeError("the fake GPU comes before torch, which was imported already")
    for name in BASE_LIBRARIES:
        ctypes.CDLL(str(_torch() / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(guard), mode=ctypes.RTLD_GLOBAL).register_guard()
    _speak_of_devices()
    _speak_of_processes()


def _torch() -> Path:
    found = importlib.util.find_spec("torch")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent


def _speak_of_devices() -> None:
    import torch

    from .graphs import Graph, Stream
    from .tensor import CudaTensor, attention, item

    torch.nn.functional.scaled_dot_product_attention = attention
    KEPT.append(torch.library.Library("aten", "IMPL"))
    KEPT[-1].impl("_local_scalar_dense", item, "CUDA")
    torch.inference_mode = _no_grad  # views of a tensor's subclass cannot be made in that mode
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(x, device="cuda") asks the dispatcher
    said: dict[str, Any] = {
        "is_initialized": True,
        "device_count": DEVICES,
        "get_device_name": "none",
        "get_device_capability": (9, 0),
        "is_bf16_supported": True,
        "_lazy_init": None,
    }
    for name, value in said.items():
        setattr(torch.cuda, name, _always(value))
    torch.cuda.is_available = lambda: CudaTensor.device_running is not None
    torch.cuda.current_device = lambda: torch._C._accelerator_getDeviceIndex()
    torch.cuda.set_device = lambda device: torch._C._accelerator_setDeviceIndex(_index(device))
    torch.cuda.CUDAGraph, torch.cuda.graph = Graph, Graph.capture
    torch.cuda.graph_pool_handle = _always((0, 0))
    torch.cuda.Stream, torch.cuda.current_stream = Stream, Stream
    torch.cuda.stream = torch.cuda.device = nullcontext
    states = torch.zeros(16, dtype=torch.uint8)
    for module in (torch.cuda, torch.cuda.random):
        module.get_rng_state = _always(states)
        module.get_rng_state_all = _always([states] * DEVICES)
        for name in ("set_rng_state", "set_rng_state_all", "manual_seed", "manual_seed_all"):
            setattr(module, name, _always(None))
    # What a checkpoint holds is read to the CPU, and moved by who asked for it.
    torch.serialization.register_package(
        1, lambda _: None, lambda storage, where: storage if where.startswith("cuda") else None
    )


def _speak_of_processes() -> None:
    """Those of one training talk by gloo, where NCCL would be taken; no one times CUDA events."""
    import torch.distributed

    begin = torch.distributed.init_process_group
    torch.distributed.init_process_group = lambda backend=None, **options: begin(
        backend="gloo" if backend == "nccl" else backend, **options
    )
    torch.distributed.Logger.set_runtime_stats_and_log = _always(None)


def _no_grad(mode: Any = True) -> Any:
    import torch

    return torch.no_grad()(mode) if callable(mode) else torch.no_grad()


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def _index(device: Any) -> int:
    import torch

    return device if isinstance(device, int) else torch.device(device).index or 0
