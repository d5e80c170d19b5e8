"""The command line and the environment variables of a vLLM server, by machine and model."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from seva_exp.core import gpus
from seva_exp.core.errors import InputError
from seva_exp.core.machine import Machine
from seva_exp.models import AnyModel
from seva_exp.models.footprint import config_of, footprint_of
from seva_exp.vllm.environment import Installed

BASE, ADAPTED = "base", "aligned"
"""Names under which the server knows the model, and the model with its adapter."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks for which vLLM has room (``--max-lora-rank``)."""
GIB = 1 << 30
CPU_CACHE = 4
"""GiB of keys and values on a CPU, of a model of which no size is known."""
TOKENS_AT_ONCE = 8192
"""Of prompts in a step, where none may be computed in two."""


@dataclass(frozen=True)
class Serving:
    """What is served: ``weights`` (a folder or a hub id) of ``model`` in ``dtype`` on ``device``,
    for ``context`` tokens; ``adapter``: its folder and rank."""

    model: AnyModel
    weights: str
    dtype: str
    device: str
    context: int | None
    adapter: tuple[Path, int] | None = None

    @property
    def name(self) -> str:
        """What a question is put to."""
        return ADAPTED if self.adapter else BASE

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"


def words(serving: Serving, machine: Machine, found: Installed, port: int) -> list[str]:
    """The command. What decides answers is given, whatever vLLM's defaults are: the processor's
    PIL backend, as in this process; none of the checkpoint's sampling defaults. On a CPU a seeded
    prompt must be computed in one step (two end vLLM 0.32's engine), and nothing is compiled."""
    options: dict[str, object] = {
        "model": serving.weights,
        "revision": serving.model.revision,
        "served-model-name": BASE,
        "host": "127.0.0.1",
        "port": port,
        "dtype": serving.dtype,
        "max-model-len": serving.context,
        "max-num-seqs": machine.batch_size,
        "generation-config": "vllm",
        "limit-mm-per-prompt": json.dumps({"image": 1}),
        "mm-processor-kwargs": json.dumps({"backend": "pil"}),
        "tensor-parallel-size": machine.vllm.tensor_parallel,
        "data-parallel-size": machine.processes,
    }
    flags = ["enable-prefix-caching", "enable-mm-embeds"]
    if serving.on_cpu:
        most = max(TOKENS_AT_ONCE, serving.context or 0)
        options |= {"max-num-batched-tokens": most}
        flags += ["no-enable-chunked-prefill", "enforce-eager"]
    else:
        options |= {"gpu-memory-utilization": machine.vllm.gpu_memory}
    if serving.adapter:
        folder, rank = serving.adapter
        options |= {"max-lora-rank": room_for(rank), "lora-modules": f"{ADAPTED}={folder}"}
        flags.append("enable-lora")
    given = [[f"--{name}", str(value)] for name, value in options.items() if value is not None]
    start = [str(found.python), "-m", "vllm.entrypoints.openai.api_server"]
    return [*start, *(word for pair in given for word in pair), *(f"--{flag}" for flag in flags)]


def room_for(rank: int) -> int | None:
    """The smallest rank that vLLM has room for and that ``rank`` fits into; None: none."""
    return next((most for most in RANKS if most >= rank), None)


def variables(serving: Serving, machine: Machine, key: str) -> dict[str, str]:
    """The environment of the server. Paths to Python packages are not handed on."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own = {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    own["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = "600"  # s; by default it hangs up after 5
    if serving.on_cpu:
        own |= {gpus.VISIBLE: "", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        own["VLLM_CPU_KVCACHE_SPACE"] = kept.get("VLLM_CPU_KVCACHE_SPACE", str(_cache_gb(serving)))
        if machine.threads:
            own["OMP_NUM_THREADS"] = str(machine.threads)
    elif ":" in machine.device:
        number = int(machine.device.partition(":")[2])
        own[gpus.VISIBLE] = gpus.seen(os.environ)[number]
    return kept | own


def _cache_gb(serving: Serving) -> int:
    """GiB of keys and values for two rows of the whole context."""
    found, _ = footprint_of(serving.model)
    if found is None or serving.context is None:
        return CPU_CACHE
    item = 4 if serving.dtype == "float32" else 2
    return max(1, math.ceil(2 * serving.context * found.kept(item) / GIB))


def no_features(model: AnyModel) -> str:
    """Why vLLM is not given a model's pictures as features; empty where answers to them are known
    to be this process's: LLaVA-1.5 (one block of features a picture)."""
    config, _ = config_of(model)
    kind = config.get("model_type") if config else None
    tower = (config or {}).get("vision_config", {}).get("model_type")
    if (kind, tower) == ("llava", "clip_vision_model"):
        return ""
    return f"generation=vllm reaches with LLaVA-1.5 only (this model is {kind or 'unknown here'})"


def check_model(model: AnyModel) -> None:
    """Raises InputError for a model that vLLM is not given."""
    if model.quantization:
        raise InputError(
            f"model.quantization={model.quantization}: generation=vllm reads whole weights. Take "
            "model.quantization=null, or generation=hf."
        )
    if model.max_pixels:
        raise InputError(
            f"model.max_pixels={model.max_pixels}: generation=vllm does not hand this bound on to "
            "vLLM's processor. Take model.max_pixels=null, or generation=hf."
        )
