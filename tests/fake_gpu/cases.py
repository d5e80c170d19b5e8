"""What the tests let run under a fake GPU, each in a process of its own (server.py)."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from .honest import HonestDevice
from .ledger import Work
from .meta import MetaDevice
from .ranks import Forked
from .shapes import Generated
from .watch import Watch

Json = dict[str, Any]


def rules(device: str) -> Json:
    """The device by itself: what it refuses, and what it writes down of single operations."""
    import torch

    with HonestDevice(1.0) if device == "honest" else MetaDevice(1.0) as gpu:
        ledger = gpu.ledger
        square = torch.ones(64, 64, device="cuda")
        wide = torch.ones(64, 64, device="cuda", dtype=torch.bfloat16)
        mask = square > 0
        index = torch.tensor([0, 2])

        def refused(act: Callable[[], Any]) -> str:
            try:
                act()
            except RuntimeError as error:  # as is torch's for memory
                return str(error)
            return ""

        def waits(act: Callable[[], Any]) -> Json:
            with ledger.stretch() as work:
                act()
            return dict(work.waits_by_kind())

        with ledger.stretch() as product:
            held = ledger.live
            out = square @ square
            held = ledger.live - held
        large = torch.ones(2**15)
        return {
            "two devices": refused(lambda: square + torch.ones(64, 64)),
            "two formats": refused(lambda: square @ wide),
            "no room": refused(lambda: torch.ones(2**28, device="cuda")),
            "number on the CPU": refused(lambda: square * torch.tensor(2.0)),
            "product": {"flop": dict(product.flop), "kernels": product.kernels, "bytes": held},
            "view": waits(lambda: out.view(-1)[3:].T),
            "item": waits(lambda: out.sum().item()),
            "tolist": waits(out.tolist),
            "print": waits(lambda: float(out[0, 0])),
            "upload": waits(lambda: large.to("cuda")),
            "pageable": waits(lambda: large.to("cuda", non_blocking=True)),
            "pinned": waits(lambda: large.pin_memory().to("cuda", non_blocking=True)),
            "download": waits(lambda: out.cpu()),
            "mask": waits(lambda: out[mask]),
            "filled": waits(lambda: out.masked_fill(mask, 0.0)),
            "index": waits(lambda: out[index]),
            "thread": waits(lambda: ThreadPoolExecutor(1).submit(large.to, "cuda").result()),
            "backward": waits(lambda: out.requires_grad_().exp().sum().backward()),
            "synchronize": waits(torch.cuda.synchronize),
        }


def command(words: list[str], device: str, mistake: str = "", gib: float = 80.0) -> Json:
    """``python -m seva_exp WORDS`` on the ``cpu``, or on an honest ``cuda`` device of ``gib``, with
    a planted ``mistake`` (a function of mistakes.py): its exit code, and what Watch saw."""
    from . import mistakes

    if mistake:
        getattr(mistakes, mistake)()
    if device == "cpu":
        return {"code": _called([*words, "machine.device=cpu"])}
    with HonestDevice(gib) as gpu, Forked.ranks(), Watch(gpu.ledger).watching() as watch:
        code = _called([*words, "machine.device=cuda"])
    return {"code": code, **watch.told(), "beside_ranks": Forked.beside}


def _called(words: list[str]) -> int:
    """The command line's exit code."""
    from seva_exp.command.cli import main

    sys.argv = ["seva_exp", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)


def shapes(size: str, gib: float, rank: int, mistake: str = "") -> Json:
    """A model in its true size through the stages of a run, one after the other, on a GPU of
    ``gib``: bytes, operations, kernels and waits."""
    from . import mistakes
    from .shapes import SIZES, Shapes, adapter_of

    if mistake:
        getattr(mistakes, mistake)()
    with MetaDevice(gib) as gpu:
        run = Shapes(gpu, SIZES[size], Path.cwd())
        with run.loadable():
            adapter = adapter_of(run.model(), rank, run.work / "adapter")
            gc.collect()
            gc.disable()
            held = {"loaded": gpu.ledger.live}
            base = run.generated(rows=256, answer=24, asked=40)
            reference = run.scored(2)
            training = run.trained(rank, 2, True)
            held["trained"] = gpu.ledger.live
            run.context.release()
            held["released"], held["kept"] = gpu.ledger.live, gpu.ledger.reserved
            run.model(adapter)
            held["aligned"] = gpu.ledger.live
            aligned = run.generated(rows=256, answer=24, asked=40, adapter=adapter)
        return {
            "held": held,
            "base": _generation(base),
            "aligned": _generation(aligned),
            "reference": _work(reference),
            "micro_steps": [_work(work) for work in training.micro_steps],
            "optimizer_step": _work(training.optimizer_step),
            "adapter": training.adapter,
            "compared": _work(training.made),
            "said": training.said,
            "warned": run.warned,
        }


def generation(size: str, gib: float) -> Json:
    """Answers of a model in its true size."""
    from .shapes import SIZES, Shapes

    with MetaDevice(gib) as gpu:
        run = Shapes(gpu, SIZES[size], Path.cwd())
        with run.loadable():
            run.model()
            held = gpu.ledger.live
            return {"held": held, **_generation(run.generated(rows=256, answer=3, asked=16))}


def training_memory(
    size: str, rank: int, micro: int, checkpointing: bool, fast: str = "auto", gpu: Any = None
) -> Json:
    """Bytes of two steps of DPO, counted and estimated; and those of the activations alone.
    ``gpu``: a real one (tests/gpu/real.py)."""
    from seva_exp.core.device_memory import Numbers
    from seva_exp.training import memory

    from .shapes import ANSWER, QUESTION, SIZES, Shapes

    numbers = Numbers(2, gpu=True, triton=gpu is not None)  # the fake one has no Triton
    with gpu or MetaDevice(1000.0) as gpu:
        run = Shapes(gpu, SIZES[size], Path.cwd())
        with run.loadable():
            done = run.trained(rank, micro, checkpointing, fast=fast, steps=2)
    model = _sizes(size)
    lengths = memory.Lengths(QUESTION, ANSWER)
    batch = (memory.plain if fast == "off" else memory.packed)(model, micro, lengths)
    trained = memory.Gradients(model.adapter(rank), rank)
    estimate = memory.training(
        model, numbers, batch, trained, checkpointing=checkpointing, accumulates=True
    )
    return {
        "counted": done.peak,
        "activations": done.peak - done.weights - 4 * done.adapter,
        "estimated": model.weights(2) + sum(estimate.values()),
        "estimated_activations": estimate["activations"],
    }


def generation_memory(size: str, gib: float, answer: int, gpu: Any = None) -> Json:
    """Bytes of as many rows as have room, counted and estimated."""
    from seva_exp.core.device_memory import Numbers
    from seva_exp.decoding import memory

    from .shapes import QUESTION, SIZES, Shapes

    asked = int(3 * gib)
    with gpu or MetaDevice(gib) as gpu:
        run = Shapes(gpu, SIZES[size], Path.cwd())
        with run.loadable():
            found = run.generated(rows=1024, answer=answer, asked=asked)
    model, numbers = _sizes(size), Numbers(2, gpu=True, triton=False)
    room = gib * 2**30 - model.weights(2)
    estimate = memory.rows(model, numbers, room, asked, question=QUESTION, answer=answer)
    return {
        "counted": found.peak,
        "rows": found.rows,
        "estimated": model.weights(2) + estimate.bytes,
        "estimated_rows": estimate.many,
    }


def _sizes(size: str) -> Any:
    """Of the model as it was published."""
    from seva_exp.models import HubModel
    from seva_exp.models.footprint import footprint_of

    return footprint_of(HubModel(path=f"llava-hf/llava-1.5-{size}-hf"))[0]


def _generation(found: Generated) -> Json:
    looks = [
        _work(one.work) | {"steps": one.steps, "played": one.played} for one in found.of("_decode")
    ]
    return {"rows": found.rows, "budget": found.budget, "peak": found.peak, "looks": looks}


def _work(work: Work) -> Json:
    waits = [(wait.kind, wait.place, count) for wait, count in work.waits.items()]
    return {
        "kernels": work.kernels,
        "flop": dict(work.flop),
        "float32_share": work.float32_share,
        "attention": dict(work.attention),
        "waits": waits,
        "peak": work.peak,
    }


def graphs() -> Json:
    """Capture and replay by themselves: what is given, and what is refused."""
    import torch

    def captured(act: Callable[[], Any]) -> tuple[Any, Any]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = act()
        return graph, out

    def refused(act: Callable[[], Any]) -> str:
        try:
            act()
        except RuntimeError as error:
            return str(error)
        return ""

    with HonestDevice():
        x, kept = torch.ones(3, device="cuda"), torch.zeros(2, 3, device="cuda")
        gone = [torch.full((3,), 5.0, device="cuda")]

        def step() -> Any:
            first, second = (x * 2).split([1, 2])
            kept[1, 1:] += second
            return torch.cat([first, second]).view(3) + 1

        graph, out = captured(step)
        x.fill_(10)
        graph.replay()
        found = {"out": out.tolist(), "kept": kept.tolist()}
        reads, _ = captured(lambda: gone[0] + x)
        gone.clear()
        pinned = torch.ones(3).pin_memory()
        return found | {
            "item": refused(lambda: captured(lambda: x.sum().item())),
            "upload": refused(lambda: captured(lambda: x + pinned.to("cuda", non_blocking=True))),
            "download": refused(lambda: captured(x.cpu)),
            "mask": refused(lambda: captured(lambda: x[x > 0])),
            "freed": refused(reads.replay),
            "after": refused(lambda: x.sum().item()),
        }


def check(name: str, more: Json, mistake: str = "") -> Json:
    """What tests/gpu asks of a real GPU, of an honest device: raises where it is not so."""
    from tests.gpu import checks

    from . import mistakes

    if mistake:
        getattr(mistakes, mistake)()
    with HonestDevice():
        checks.run(name, Path.cwd(), **more)
    return {}


def families() -> Json:
    """The names of those that tests/models knows."""
    from models.families import FAMILIES

    return {"names": [*FAMILIES]}


def checkpoint(name: str, folder: str) -> Json:
    """The tiny checkpoint of a model family, in ``folder``/model: its spec."""
    from models.families import build

    return build(name, Path(folder) / "model").model_dump()


def family(spec: Json, folder: str, device: str) -> Json:
    """Answers of a model, and two steps of DPO. On ``cuda`` an honest device computes them."""
    if device == "cpu":
        return _family(spec, Path(folder), device)
    with HonestDevice():
        return _family(spec, Path(folder), device)


def _family(spec: Json, folder: Path, device: str) -> Json:
    from models.families import draw

    from seva_exp import Machine
    from seva_exp.core.interfaces import Placement, Request
    from seva_exp.core.progress import progress
    from seva_exp.decoding.engine import Engine
    from seva_exp.models import HubModel
    from seva_exp.models.vlm import load
    from seva_exp.training import DpoTraining
    from seva_exp.training.collate import Preference
    from seva_exp.training.dpo import trainer_for
    from seva_exp.training.driver import TrainingJob, train

    work = folder / device
    work.mkdir()
    vlm = load(HubModel(**spec), Machine(device=device, dtype="float32"))
    pictures = [partial(draw, *size, turn) for turn, size in enumerate([(60, 30), (27, 75)])]
    asked = [Request(f"r{i}", f"p{i % 2}", pictures[i % 2], "What is in it?", 4) for i in range(3)]
    told: list[str] = []
    replies = {r.id: r.tokens for some in Engine(vlm, 4, warn=told.append).run(asked) for r in some}
    rows = [
        Preference(f"s{i}", "Describe it.", picture, (*range(10, 18 + i),), ((40, 41, 42),))
        for i, picture in enumerate(pictures)
    ]
    place = Placement(
        str(vlm.device), 4, 2, False, partial(progress, "off"), work, warn=told.append
    )
    training = DpoTraining(batch_size=1, learning_rate=1e-4, warmup_ratio=0.0, lora_rank=4)
    job = TrainingJob(vlm, training, place, 0, "base", lambda step, row: None)
    _, steps = train(job, trainer_for(job, rows))
    return {"answers": replies, "steps": steps, "told": told}
