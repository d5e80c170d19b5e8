"""What the host needs for a decode step of 32 layers, and how much of it is not the model's.

    python perf/decode_steps.py                    a table (2 minutes on 2 cores)
    python perf/decode_steps.py --against ../main/src    and another source tree's, in turn

The model has LLaVA's modules, 32 layers as the 7B, and is so small (width 32, 512 tokens to choose
from, 4 places of a picture) that arithmetic is next to nothing: what is left is what Python and
torch's dispatcher do for each step, which on a GPU is the time in which the next kernels are not
started. Rows have answers of one length, so that
no prefill comes between. *forward*: the model's own call. *own*: everything else of a step (tables,
choosing, the tokens to the host, rows that end). CPU time of one thread; the ways take turns, a
ratio is the median over the turns. A captured step (machine.cuda_graphs) leaves of *forward* one
call on a GPU; that is not measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

LAYERS, WIDTH, HEADS = 32, 32, 2
VOCABULARY, PATCH = 512, 168
ANSWER = 66
"""Tokens: one of the prefill and 65 steps."""


def narrow() -> Any:
    """A model of random weights with its processor."""
    import torch
    from dpo_cases import processor
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    from seva_exp.models import HubModel
    from seva_exp.models.vlm import Vlm

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=336,
            patch_size=PATCH,
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=HEADS,
        ),
        text_config=LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=4096,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=None,
        ),
        image_token_index=4,
        image_seq_length=4,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = 10**6
    made = processor()
    made.patch_size = PATCH
    return Vlm(model, made, HubModel(path="narrow"))


def requests(rows: int, apart: bool) -> list[Any]:
    """On a picture each, or all on one."""
    from dpo_cases import noise

    from seva_exp.core.interfaces import Request

    draw = random.Random(0)
    words = [" ".join(f"w{draw.randrange(100, 500)}" for _ in range(12)) for _ in range(rows)]
    return [
        Request(str(i), str(i if apart else 0), partial(noise, i if apart else 0), text, ANSWER)
        for i, text in enumerate(words)
    ]


def engine(vlm: Any, asked: list[Any], sampled: bool, looks: int | None) -> dict[str, float]:
    """Milliseconds of a step: in all, and of the model's own call."""
    from seva_exp.decoding import scheduler
    from seva_exp.decoding.engine import Engine
    from seva_exp.decoding.sampling import Sampling

    spent = {"forward": 0.0, "decode": 0.0}
    steps = 0

    def timed(real: Any, name: str, *given: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return real(*given, **options)
        finally:
            spent[name] += time.process_time() - start

    def decode(loop: Any) -> None:
        nonlocal steps
        before = loop._rows[0][0]
        had = len(before.tokens)
        prefill = spent["forward"]
        timed(real_decode, "decode", loop)
        steps += len(before.tokens) - had
        inside.append(spent["forward"] - prefill)

    inside: list[float] = []
    real_decode = scheduler.Scheduler._decode
    sampling = Sampling(0.7, 0.9, 0, "sampling/clean") if sampled else None
    call = vlm.model.forward
    with (
        patch.object(scheduler.Scheduler, "_decode", decode),
        patch.object(vlm.model, "forward", lambda *a, **o: timed(call, "forward", *a, **o)),
    ):
        if looks is not None:
            scheduler.STEPS["cpu"] = looks
        for _ in Engine(vlm, len(asked), sampling=sampling, tokens=10**6).run(asked):
            pass
    assert steps == ANSWER - 1
    found = {"step": 1e3 * spent["decode"] / steps, "forward": 1e3 * sum(inside) / steps}
    return found | {"own": found["step"] - found["forward"]}


def generate(vlm: Any, asked: list[Any]) -> float:
    """Milliseconds of a step of transformers' own loop, the same rows; its prefill taken off."""
    from seva_exp.decoding.hf_generate import left_padded

    images = [vlm.encode_image(one.load()) for one in asked]
    encoded = [vlm.encode(image, one.prompt) for image, one in zip(images, asked, strict=True)]
    inputs = left_padded(encoded, vlm.pad_id, vlm.device) | vlm.image_inputs(images)
    seconds = []
    for bound in (1, ANSWER):
        start = time.process_time()
        vlm.model.generate(**inputs, do_sample=False, max_new_tokens=bound)
        seconds.append(time.process_time() - start)
    return 1e3 * (seconds[1] - seconds[0]) / (ANSWER - 1)


def once(
    rows: int, apart: bool, sampled: bool, looks: list[int | None], loop: bool
) -> dict[str, Any]:
    """One turn of each way in this process."""
    import torch

    torch.set_num_threads(1)
    vlm, asked = narrow(), requests(rows, apart)
    with torch.inference_mode():
        engine(vlm, asked, sampled, looks[0])  # first calls
        found: dict[str, Any] = {
            "this tree" if n is None else f"a look every {n}": engine(vlm, asked, sampled, n)
            for n in looks
        }
        if loop:
            found["generate"] = {"step": generate(vlm, asked)}
    return found


def other(source: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One turn of another source tree."""
    here = Path(__file__).resolve()
    command = [sys.executable, str(here), "--child", "--rows", str(arguments.rows)]
    command += ["--sampled"] * arguments.sampled + ["--shared"] * arguments.shared
    environment = {**os.environ, "PYTHONPATH": str(source.resolve())}
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])["this tree"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="turns")
    parser.add_argument("--sampled", action="store_true", help="drawn, not greedy")
    parser.add_argument("--shared", action="store_true", help="all rows ask of one picture")
    parser.add_argument("--against", type=Path, help="another tree's src, after each turn")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if arguments.child:
        print(
            json.dumps(once(arguments.rows, not arguments.shared, arguments.sampled, [None], False))
        )
        return
    turns: list[dict[str, Any]] = []
    for _ in range(arguments.rounds):
        loop = not arguments.sampled
        turns.append(once(arguments.rows, not arguments.shared, arguments.sampled, [1, 8], loop))
        if arguments.against:
            turns[-1][str(arguments.against)] = other(arguments.against, arguments)
    print(f"{arguments.rows} rows, {LAYERS} layers of width {WIDTH}; ms a step, median of turns")
    base = "a look every 1"
    print(f"{'way':34s} {'step':>7s} {'forward':>8s} {'own':>6s} {'own / own of ' + base:>28s}")
    for way in turns[0]:
        cells = {k: statistics.median(turn[way][k] for turn in turns) for k in turns[0][way]}
        line = f"{way[-34:]:34s} {cells['step']:7.2f}"
        if "own" in cells:
            ratios = [turn[way]["own"] / turn[base]["own"] for turn in turns]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            line += f" {cells['forward']:8.2f} {cells['own']:6.2f} {spread:>28s}"
        print(line)


if __name__ == "__main__":
    main()
