"""The vLLM of a run: which model it serves, and whether a stage can go on asking it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seva_exp.core.digests import FileDigests
from seva_exp.core.environment import describe_environment
from seva_exp.core.machine import Machine, resolve_device, resolve_dtype
from seva_exp.core.spec import Json, digest
from seva_exp.core.store import Manifest, Store
from seva_exp.models import AnyModel
from seva_exp.models.context import context_of
from seva_exp.vllm.command import Serving, variables, words
from seva_exp.vllm.environment import Installed, installed
from seva_exp.vllm.server import VllmServer
from seva_exp.vllm.weights import needs_older, write_older

STAGE, VERSION = "older_names", 1


@dataclass(frozen=True)
class Running:
    """A server that answers. ``vlm``: the model without its weights; ``context``: what the server
    has room for, where it is less than the model's own; ``found``: what answers."""

    server: VllmServer
    name: str
    vlm: Any
    context: int | None
    found: Installed


def started(
    model: AnyModel,
    adapter: Path | None,
    machine: Machine,
    digests: FileDigests,
    log: Path,
    warn: Callable[[str], None],
) -> Running:
    """Start a server of ``model``, and of ``adapter`` on it. Raises StageError where it does not
    answer."""
    from seva_exp.models.adapter import lora_of
    from seva_exp.models.vlm import without_weights

    found, device = installed(machine), resolve_device(machine)
    vlm = without_weights(model)
    whole, wanted = context_of(vlm), machine.vllm.context
    less = wanted if wanted and (whole is None or wanted < whole) else None
    serving = Serving(
        model,
        readable(model, machine, digests),
        str(resolve_dtype(machine, device)).removeprefix("torch."),
        device.type,
        less or whole,
        (adapter, lora_of(adapter).r) if adapter else None,
    )
    server = VllmServer(
        lambda port: words(serving, machine, found, port),
        lambda key: variables(serving, machine, key),
        log,
        concurrency=2 * machine.batch_size * machine.processes,
        start_seconds=machine.vllm.start_seconds,
        restarts=machine.vllm.restarts,
        warn=warn,
    )
    server.start()
    return Running(server, serving.name, vlm, less, found)


def readable(model: AnyModel, machine: Machine, digests: FileDigests) -> str:
    """Where vLLM reads the model: as it is, or written anew in the store with the names that vLLM
    knows. Nothing is changed in the model's own folder."""
    folder = Path(model.location())
    if not folder.is_dir():
        return model.location()  # the hub's
    if not needs_older(folder):
        return str(folder.absolute())
    inputs = {"model": digest(model.identity(digests))}
    key = digest({"stage": STAGE, "version": VERSION, "spec": {}, "inputs": inputs})

    def describe(seconds: float, summary: Json) -> Manifest:
        environment = describe_environment(machine)
        return Manifest(STAGE, VERSION, key, {}, inputs, environment, seconds, summary)

    def work(out: Path) -> Json:
        write_older(folder, out)
        return {}

    store = Store(machine.store_root())
    store.make(describe, STAGE, key, work)
    return str(store.path(STAGE, key))
