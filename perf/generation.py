"""What an answer costs, ours against the loop of the papers' releases, side by side in one process.

    python perf/generation.py                     every case, a table (under 10 minutes on 2 cores)
    python perf/generation.py --json rows.json    and the rows for machines
    python perf/generation.py --case tiny-pairs   one case: MODEL-PATTERN
    python perf/generation.py --vllm              ours against generation=vllm (docs/vllm.md)
    python perf/generation.py --contrast vcd      contrastive decoding against plain (ours both)

The baseline is what SeVa's and STIC's released code does: picture by picture, question by question,
the processor and ``model.generate`` on a batch of one. Patterns: ``pairs`` (one question a picture,
answers of 40 to 60 tokens) and ``evaluation`` (18 questions a picture, answers of 1 to 3 tokens).
Models: ``llava``, random weights in LLaVA-1.5's proportions (576 image tokens, dpo_cases.py), and
``tiny``, the embedded model on its own questions, with its own ends of answers. Answers must be
equal, token for token, where the numbers are float32.

On a CPU: float32, one thread, process CPU time, since other work on the machine would blur the
clock; with ``--threads 2`` or more, wall-clock time. On a GPU: bfloat16, LLaVA-1.5-7B's shapes,
wall-clock time. A case runs loop, ours, loop, ours ...; its ratio is the median over the pairs of
runs, with the range.

``--contrast``: the seconds of answers by a preset of ``generation/contrast`` over those of plain
ones, greedy both, in rounds plain, contrast, plain, contrast. No answer ends before its bound and
both have the same lengths, as another answer may be longer. Of ``--rows``
rows a contrast takes two for each answer.

``--vllm``: time of ``generation=hf`` over that of ``generation=vllm`` (CPU time is that of all its
processes), in one run on the same questions, and how many answers are equal. The questions are cut
into as many parts as there are rounds, each asked once by both, since vLLM keeps the prompts that
it has seen. How long vLLM takes to start is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from dpo_cases import Case, noise, processor, random_model

PATTERNS = ("pairs", "evaluation")
PICTURES = {
    ("llava", "pairs"): 16,
    ("llava", "evaluation"): 3,
    ("tiny", "pairs"): 64,
    ("tiny", "evaluation"): 32,
}
QUESTIONS = 18
"""A picture, in the pattern ``evaluation`` of ``llava`` (POPE's number)."""
CASES = [f"{model}-{pattern}" for model in ("llava", "tiny") for pattern in PATTERNS]


def llava(pattern: str, pictures: int, folder: Path, device: str) -> tuple[Any, list[Any]]:
    """The mid-size model and requests on noise, saved as files as a data set's are."""
    from seva_exp.core.interfaces import Request
    from seva_exp.models import HubModel
    from seva_exp.models.vlm import Vlm

    rng = random.Random(0)
    length = (40, 60) if pattern == "pairs" else (1, 3)
    requests = []
    for number in range(pictures):
        file = folder / f"{number}.jpg"
        noise(number).save(file)
        for question in range(1 if pattern == "pairs" else QUESTIONS):
            words = " ".join(f"w{rng.randrange(100, 32000)}" for _ in range(rng.randint(8, 16)))
            name = f"{number}/{question}"
            bound = rng.randint(*length)
            requests.append(Request(name, str(number), partial(opened, file), words, bound))
    model = random_model(Case("light", 1), device)
    return Vlm(model, processor(), HubModel(path="random")), requests


def tiny(pattern: str, pictures: int, folder: Path, device: str) -> tuple[Any, list[Any]]:
    """The embedded model: descriptions, or its benchmark's questions on each picture."""
    from seva_exp import Machine
    from seva_exp.benchmarks import ShapesBenchmark
    from seva_exp.core.interfaces import Request
    from seva_exp.models import TinyModel
    from seva_exp.models.vlm import load
    from seva_exp.world.language import PLAIN_PROMPTS

    asked = {}
    for question in ShapesBenchmark(images=pictures).questions():
        asked.setdefault(question.group, []).append(question)
    requests = []
    for number, (group, questions) in enumerate(asked.items()):
        file = folder / f"{number}.png"
        questions[0].load().save(file)
        show = partial(opened, file)
        if pattern == "pairs":
            prompt = PLAIN_PROMPTS[number % len(PLAIN_PROMPTS)]
            requests.append(Request(group, group, show, prompt, 64))
        else:
            requests += [Request(q.id, group, show, q.prompt, 3) for q in questions]
    return load(TinyModel(), Machine(device=device)), requests


def opened(file: Path) -> Any:
    from PIL import Image

    with Image.open(file) as picture:
        return picture.convert("RGB")


def one_by_one(vlm: Any, requests: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """The releases' loop."""
    found = {}
    for request in requests:
        text = vlm.chat(request.prompt)
        inputs = vlm.processor(
            text=[text], images=[request.load()], return_tensors="pt", **vlm._text_options(text)
        ).to(vlm.device, vlm.model.dtype)
        out = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=request.max_new_tokens)
        found[request.id] = tuple(out[0, inputs["input_ids"].shape[1] :].tolist())
    return found


def ours(
    vlm: Any, requests: Sequence[Any], rows: int, graphs: Any, **how: Any
) -> dict[str, tuple[int, ...]]:
    from seva_exp.decoding.engine import Engine

    replies = Engine(vlm, rows, graphs=graphs, warn=print, **how).run(requests)
    return {reply.id: reply.tokens for some in replies for reply in some}


def timed(work: Callable[[], Any], clock: Callable[[], float], device: str) -> tuple[float, Any]:
    import torch

    start = clock()
    with torch.inference_mode():
        found = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start, found


def measure(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One case: A B A B."""
    import torch

    torch.set_num_threads(arguments.threads)
    model, pattern = case.split("-")
    wall = arguments.threads > 1 or arguments.device != "cpu"
    clock = time.perf_counter if wall else time.process_time
    seconds: dict[str, list[float]] = {"loop": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        pictures = max(1, int(PICTURES[model, pattern] * arguments.scale))
        build = {"llava": llava, "tiny": tiny}[model]
        vlm, requests = build(pattern, pictures, Path(folder), arguments.device)
        our = partial(ours, rows=arguments.rows, graphs=arguments.graphs)
        ways = {
            "loop": partial(one_by_one, vlm, requests),
            "ours": partial(our, vlm, requests),
        }
        for way in (one_by_one, our):
            way(vlm, requests[:2])  # first calls load and compile things
        equal = []
        for _ in range(arguments.rounds):
            found = {}
            for name, way in ways.items():
                spent, found[name] = timed(way, clock, arguments.device)
                seconds[name].append(spent)
            equal.append(found["loop"] == found["ours"])
    float32 = vlm.model.dtype == torch.float32
    assert all(equal) or not float32, f"{case}: the answers differ"
    tokens = sum(map(len, found["ours"].values()))
    ratios = [a / b for a, b in zip(seconds["loop"], seconds["ours"], strict=True)]
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "pattern": pattern,
        "model": model,
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "equal_answers": all(equal),
        "answers": len(requests),
        "tokens": tokens,
        "answers_per_second": {name: len(requests) / spent for name, spent in middle.items()},
        "tokens_per_second": {name: tokens / spent for name, spent in middle.items()},
        "clock": "wall" if wall else "cpu",
    }


def contrast_of(preset: str) -> dict[str, Any]:
    """What the engine takes for a preset of ``generation/contrast``."""
    from omegaconf import OmegaConf

    from seva_exp.augment import AUGMENTATIONS
    from seva_exp.core.paths import config_dir
    from seva_exp.decoding import CONTRASTS
    from seva_exp.inputs.views import View

    values = OmegaConf.load(config_dir() / "generation" / "contrast" / f"{preset}.yaml")
    fields = json.dumps(OmegaConf.to_container(values))
    rule = CONTRASTS[values.kind].model_validate_json(fields)
    view = View("beside", AUGMENTATIONS[rule.looks_at](), 0) if rule.looks_at else None
    return {"contrast": rule, "view": view}


def measure_contrast(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One case: plain, contrast, plain, contrast; answers of the same lengths."""
    import torch

    torch.set_num_threads(arguments.threads)
    model, pattern = case.split("-")
    wall = arguments.threads > 1 or arguments.device != "cpu"
    clock = time.perf_counter if wall else time.process_time
    seconds: dict[str, list[float]] = {"plain": [], "contrast": []}
    with tempfile.TemporaryDirectory() as folder:
        pictures = max(1, int(PICTURES[model, pattern] * arguments.scale))
        build = {"llava": llava, "tiny": tiny}[model]
        vlm, requests = build(pattern, pictures, Path(folder), arguments.device)
        vlm.model.generation_config.eos_token_id = 10**6  # no answer ends before its bound
        plain = partial(ours, rows=arguments.rows, graphs=arguments.graphs)
        ways = {"plain": plain, "contrast": partial(plain, **contrast_of(arguments.contrast))}
        for way in ways.values():
            way(vlm, requests[:2])
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                spent, found = timed(partial(way, vlm, requests), clock, arguments.device)
                seconds[name].append(spent)
    ratios = [b / a for a, b in zip(seconds["plain"], seconds["contrast"], strict=True)]
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    tokens = sum(map(len, found.values()))
    return {
        "pattern": pattern,
        "model": model,
        "contrast": arguments.contrast,
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "equal_answers": "",
        "answers": len(requests),
        "tokens": tokens,
        "answers_per_second": {name: len(requests) / spent for name, spent in middle.items()},
        "tokens_per_second": {name: tokens / spent for name, spent in middle.items()},
        "clock": "wall" if wall else "cpu",
    }


def measure_vllm(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One case against vLLM: ours, vLLM, ours, vLLM ..., each time on other pictures."""
    import torch

    from seva_exp.models import HubModel, TinyModel

    torch.set_num_threads(arguments.threads)
    model, pattern = case.split("-")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = max(arguments.rounds, int(PICTURES[model, pattern] * arguments.scale))
        build = {"llava": llava, "tiny": tiny}[model]
        vlm, requests = build(pattern, pictures, folder, arguments.device)
        source = TinyModel()
        if model == "llava":
            source = HubModel(path=str(folder / "checkpoint"))
            vlm.model.save_pretrained(source.path)
            vlm.processor.save_pretrained(source.path)
        wall = arguments.threads > 1 or arguments.device != "cpu"
        with vllm_of(source, folder, arguments) as (start, theirs, cpu_of_vllm):
            theirs(requests[:1])
            ours(vlm, requests[:1], arguments.rows, arguments.graphs)
            seconds: dict[str, list[float]] = {"loop": [], "ours": []}
            equal = tokens = 0
            groups = list(dict.fromkeys(request.image_key for request in requests))
            for number in range(arguments.rounds):
                part = {*groups[number :: arguments.rounds]}
                asked = [request for request in requests if request.image_key in part]
                ways = {
                    "loop": partial(ours, vlm, asked, arguments.rows, arguments.graphs),
                    "ours": partial(theirs, asked),
                }
                found = {}
                for way, work in ways.items():
                    clock = time.perf_counter if wall else time.process_time
                    if way == "ours" and not wall:
                        clock = cpu_of_vllm
                    spent, found[way] = timed(work, clock, arguments.device)
                    seconds[way].append(spent)
                equal += sum(found["loop"][id] == found["ours"][id] for id in found["loop"])
                tokens += sum(map(len, found["loop"].values()))
    ratios = [a / b for a, b in zip(seconds["loop"], seconds["ours"], strict=True)]
    total = {name: sum(values) for name, values in seconds.items()}
    return {
        "pattern": pattern,
        "model": model,
        "ratio": total["loop"] / total["ours"],
        "low": min(ratios),
        "high": max(ratios),
        "equal_answers": f"{equal}/{len(requests)}",
        "answers": len(requests),
        "tokens": tokens,
        "answers_per_second": {name: len(requests) / spent for name, spent in total.items()},
        "tokens_per_second": {name: tokens / spent for name, spent in total.items()},
        "start_seconds": start,
        "clock": "wall" if wall else "cpu",
    }


@contextmanager
def vllm_of(source: Any, folder: Path, arguments: argparse.Namespace) -> Iterator[Any]:
    """(seconds until it answered, what asks it, a clock of its processes' and this one's CPU
    time)"""
    import psutil

    from seva_exp import Machine
    from seva_exp.core.digests import FileDigests
    from seva_exp.core.interfaces import Placement
    from seva_exp.decoding import VllmGeneration
    from seva_exp.decoding.vllm_chat import vllm_engine
    from seva_exp.inputs.views import View
    from seva_exp.vllm.running import started

    machine = Machine(
        device=arguments.device,
        batch_size=arguments.rows,
        threads=arguments.threads,
        store=str(folder / "store"),
    )
    began = time.perf_counter()
    digests = FileDigests(folder / "store")
    running = started(source, None, machine, digests, folder / "vllm.log", print)
    place = Placement("cpu", arguments.rows, 1, False, None, folder, vllm=lambda: running)

    def ask(requests: Sequence[Any]) -> dict[str, tuple[int, ...]]:
        engine = vllm_engine(VllmGeneration(), source, None, place, View("clean", None, 0), "clean")
        return {reply.id: reply.tokens for some in engine.run(requests) for reply in some}

    def cpu() -> float:
        times = (p.cpu_times() for p in psutil.Process(running.server.pid).children(recursive=True))
        return time.process_time() + sum(one.user + one.system for one in times)

    try:
        yield time.perf_counter() - began, ask, cpu
    finally:
        running.server.end()


HEADER = (
    f"{'case':18s} {'ratio':>6s} {'range':>13s} {'answers/s':>17s} {'tokens/s':>17s} {'equal':>6s}"
)


def line(row: dict[str, Any]) -> str:
    def both(values: dict[str, float]) -> str:
        before, after = values.values()
        return f"{before:7.1f} ->{after:7.1f}"

    equal = {True: "yes", False: "no"}.get(row["equal_answers"], row["equal_answers"])
    spread = f"{row['low']:.2f}-{row['high']:.2f}"
    return (
        f"{row['model'] + '-' + row['pattern']:18s} {row['ratio']:6.2f} {spread:>13s} "
        f"{both(row['answers_per_second'])} {both(row['tokens_per_second'])} "
        f"{equal:>6s}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--case", choices=CASES, help="one case only")
    parser.add_argument("--vllm", action="store_true", help="ours against vLLM")
    presets = ("vcd", "icd", "m3id", "cutoff_only", "yes_bias")
    parser.add_argument("--contrast", choices=presets, help="contrastive decoding against plain")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs per case")
    parser.add_argument("--rows", type=int, default=64, help="machine.batch_size of ours")
    graphs = "machine.cuda_graphs of ours, on a GPU"
    parser.add_argument("--graphs", choices=("auto", "on", "off"), default="auto", help=graphs)
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the pictures")
    parser.add_argument("--device", help="cpu or cuda; the GPU where there is one")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from seva_exp.core.runtime import settle

    settle()
    import torch

    arguments.device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    print(HEADER)
    rows = []
    for case in [arguments.case] if arguments.case else CASES:
        work = measure_contrast if arguments.contrast else measure
        rows.append((measure_vllm if arguments.vllm else work)(case, arguments))
        print(line(rows[-1]), flush=True)
        if arguments.vllm:
            print(f"{'':18s} vLLM answered {rows[-1]['start_seconds']:.0f} s after its start")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
