"""What must be so on a CUDA device, as functions of where it is asked. ``test_gpu.py`` calls them
on a real one; ``tests/fake_gpu/test_checks.py`` on one that is none, so that they are known to work
before a GPU comes to hand.

Imports come late: under the fake GPU nothing may import torch before it is there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

FAMILIES = ("llava15", "gemma3", "qwen3_vl")
"""A plain family; one with windows and pictures seen both ways; one with three axes."""
PROMPTS = ("Describe this image.", "Is there a red circle?", "How many shapes are there?")
SAMPLED = ("sampling/clean", 0.9, 0.95)


def questions(count: int, tokens: int = 24) -> list[Any]:
    """On pictures of the embedded world, three to a picture."""
    from seva_exp.core.interfaces import Request
    from seva_exp.world import UNBIASED, draw, sample_scene

    def picture(number: int) -> Any:
        return draw(sample_scene(random.Random(number), UNBIASED))

    return [
        Request(f"id{i}", f"p{i // 3}", partial(picture, i // 3), PROMPTS[i % 3], tokens)
        for i in range(count)
    ]


def tiny(device: str, dtype: str) -> Any:
    from seva_exp import Machine
    from seva_exp.models import TinyModel
    from seva_exp.models.vlm import load

    return load(TinyModel(), Machine(device=device, dtype=dtype))


def replies(vlm: Any, asked: list[Any], sampled: bool = False, graphs: str = "off") -> Any:
    """By id; what the engine says of slower ways is an error."""
    from seva_exp.decoding.engine import Engine
    from seva_exp.decoding.sampling import Sampling

    def warn(text: str) -> None:
        raise AssertionError(text)

    purpose, temperature, top_p = SAMPLED
    how = Sampling(temperature, top_p, 3, purpose) if sampled else None
    engine = Engine(vlm, 8, sampling=how, tokens=20_000, logprobs=True, graphs=graphs, warn=warn)
    return {reply.id: reply for some in engine.run(asked) for reply in some}


@contextmanager
def played() -> Iterator[list[int]]:
    """One entry for each replay of a CUDA graph."""
    import torch

    found: list[int] = []
    real = torch.cuda.CUDAGraph.replay

    def replay(graph: Any) -> None:
        found.append(1)
        real(graph)

    with patch.object(torch.cuda.CUDAGraph, "replay", replay):
        yield found


# Answers


def answers_in_float32(folder: Path) -> None:
    """Token for token the CPU's, greedy and sampled; log-probabilities to rounding."""
    cpu, gpu = tiny("cpu", "float32"), tiny("cuda", "float32")
    for sampled in (False, True):
        wanted, found = (replies(vlm, questions(12), sampled) for vlm in (cpu, gpu))
        assert {i: r.tokens for i, r in found.items()} == {i: r.tokens for i, r in wanted.items()}
        for id, reply in found.items():
            far = max(abs(a - b) for a, b in zip(reply.logprobs, wanted[id].logprobs, strict=True))
            assert far < 1e-3, (id, far)


def answers_in_half_precision(folder: Path) -> None:
    """Most are the CPU's in float32; as far as they are, log-probabilities are near."""
    wanted = replies(tiny("cpu", "float32"), questions(24))
    found = replies(tiny("cuda", "bfloat16"), questions(24))
    same = [id for id, reply in found.items() if reply.tokens == wanted[id].tokens]
    assert len(same) >= 18, f"{len(same)} of 24 answers are those of float32"
    far = [
        abs(a - b)
        for id in same
        for a, b in zip(found[id].logprobs, wanted[id].logprobs, strict=True)
    ]
    assert max(far) < 0.5 and sum(far) / len(far) < 0.05, (max(far), sum(far) / len(far))


def recorded_steps(folder: Path) -> None:
    """Captured and played they give what the step itself gives: tokens, greedy and sampled, in
    float32; in bfloat16 no recording is given up."""
    from seva_exp.decoding import scheduler

    vlm = tiny("cuda", "float32")
    for sampled in (False, True):
        plain = replies(vlm, questions(12), sampled)
        with played() as plays, patch.object(scheduler, "SURPLUS", 1):
            found = replies(vlm, questions(12), sampled, graphs="on")
        assert {i: r.tokens for i, r in found.items()} == {i: r.tokens for i, r in plain.items()}
        assert len(plays) > 5
    with played() as plays:
        replies(tiny("cuda", "bfloat16"), questions(12), graphs="on")
    assert len(plays) > 5


def recorded_steps_of_a_family(folder: Path, name: str) -> None:
    """The same of a checkpoint of random weights."""
    from seva_exp import Machine
    from seva_exp.core.interfaces import Request
    from seva_exp.models.vlm import load

    from ..models import families

    spec = families.build(name, folder / name)
    vlm = load(spec, Machine(device="cuda", dtype="float32"))
    show = [partial(families.draw, 60, 30, turn) for turn in range(2)]
    asked = [Request(f"r{i}", f"p{i % 2}", show[i % 2], f"What? {i}", 16) for i in range(4)]
    plain = replies(vlm, asked)
    with played() as plays:
        found = replies(vlm, asked, graphs="on")
    assert {i: r.tokens for i, r in found.items()} == {i: r.tokens for i, r in plain.items()}
    assert plays


# Training


def training_step(folder: Path) -> None:
    """The first step's loss and gradient norm are the CPU's in float32: to rounding in float32, to
    a few percent in bfloat16."""
    wanted = _two_steps("cpu", "float32", folder / "cpu")
    exact = _two_steps("cuda", "float32", folder / "exact")
    half = _two_steps("cuda", "bfloat16", folder / "half")
    for name in ("loss", "grad_norm"):
        for step, row in enumerate(wanted):
            assert _near(exact[step][name], row[name], 1e-3), (name, step, exact, wanted)
            assert _near(half[step][name], row[name], 0.1), (name, step, half, wanted)


def _near(one: float, other: float, share: float) -> bool:
    return abs(one - other) <= share * max(abs(one), abs(other), 1e-3)


def _two_steps(device: str, dtype: str, work: Path) -> list[dict[str, float]]:
    from seva_exp.core.interfaces import Placement
    from seva_exp.core.progress import progress
    from seva_exp.training import DpoTraining
    from seva_exp.training.collate import Preference
    from seva_exp.training.dpo import trainer_for
    from seva_exp.training.driver import TrainingJob, train

    work.mkdir(parents=True)
    vlm = tiny(device, dtype)
    told: list[str] = []
    place = Placement(
        str(vlm.device), 4, 2, False, partial(progress, "off"), work, warn=told.append
    )
    good, bad = (
        vlm.answer_ids(PROMPTS[0], text)
        for text in ("The image shows a red star.", "The image shows a blue moon and a ring.")
    )
    rows = [
        Preference(f"s{i}", PROMPTS[0], q.load, good, (bad,)) for i, q in enumerate(questions(4))
    ]
    spec = DpoTraining(batch_size=2, learning_rate=1e-3, warmup_ratio=0.0, lora_rank=8)
    job = TrainingJob(vlm, spec, place, 0, "tiny", lambda step, row: None)
    _, steps = train(job, trainer_for(job, rows))
    assert len(steps) == 2 and not told
    return steps


# Kernels


def attention_of_a_packed_row(folder: Path, heads: int = 32, width: int = 128) -> None:
    """2,900 tokens in bfloat16: prompt and answers run on the flash or the memory-efficient kernel
    (others are switched off: torch then raises), with heads of their own and with grouped ones, and
    forward and gradients are those of float32."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from seva_exp.models.branches import Prompt, answer_mask, attend, prompt_mask

    prompt = Prompt(2400, (250, 250))
    masks = {
        prompt.length: prompt_mask(prompt, None, False, torch.device("cuda")),
        prompt.fed: answer_mask(prompt, None, torch.device("cuda")),
    }
    assert masks[prompt.length] is None  # causal: flash
    draw = torch.Generator().manual_seed(0)
    for groups in (1, 2):
        for count, mask in masks.items():
            seen = count if mask is None else prompt.length + prompt.fed
            shapes = [(heads, count), (heads // groups, seen), (heads // groups, seen)]
            made = [torch.randn(1, h, n, width, generator=draw) for h, n in shapes]
            half = [x.cuda().bfloat16().requires_grad_() for x in made]
            with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
                out = attend(*half, mask, None, None)
                out.float().square().mean().backward()
            whole = [x.cuda().requires_grad_() for x in made]
            wanted = attend(*whole, mask, None, None)
            wanted.square().mean().backward()
            assert _apart(out, wanted) < 0.02
            for one, other in zip(half, whole, strict=True):
                assert _apart(one.grad, other.grad) < 0.05


def _apart(one: Any, other: Any) -> float:
    """Share of the length."""
    one, other = one.detach().float(), other.detach().float()
    return float((one - other).norm() / other.norm())


def noise_of_samples(folder: Path) -> None:
    """The uniform numbers are the same bits as on the CPU."""
    import torch

    from seva_exp.decoding.noise import uniform

    seeds = torch.tensor([0, 1, 2**62 + 12345, 7])
    steps = torch.tensor([0, 3, 500, 4000])
    assert torch.equal(
        uniform(seeds.cuda(), steps.cuda(), 32_001).cpu(), uniform(seeds, steps, 32_001)
    )


# Memory


def weights_go_straight_to_the_device(folder: Path) -> None:
    """In their format: a checkpoint of float32, loaded as bfloat16, holds there what bfloat16 takes
    and never much more."""
    import torch

    from seva_exp import Machine
    from seva_exp.models.vlm import load

    from ..models import families

    spec = families.build("llava15", folder / "checkpoint")
    before = torch.cuda.memory_allocated()
    vlm = load(spec, Machine(device="cuda", dtype="bfloat16"))
    weights = sum(p.numel() * p.element_size() for p in vlm.model.parameters())
    assert {p.device.type for p in vlm.model.parameters()} == {"cuda"}
    assert {p.dtype for p in vlm.model.parameters()} == {torch.bfloat16}
    held = torch.cuda.memory_allocated() - before
    blocks = 512 * len([*vlm.model.state_dict()])
    assert weights <= held <= 1.05 * weights + 2 * blocks, (weights, held)


def four_bits(folder: Path) -> None:
    """QLoRA's weights answer, and are those of the language model's layers."""
    from seva_exp import Machine
    from seva_exp.models.vlm import load

    from ..models import families

    spec = families.build("llava15", folder / "checkpoint")
    spec = spec.model_copy(update={"quantization": "nf4"})
    vlm = load(spec, Machine(device="cuda", dtype="bfloat16"))
    assert all(reply.tokens for reply in replies(vlm, questions(3, 8)).values())
    names = vlm.language_modules()
    assert {type(vlm.model.get_submodule(name)).__name__ for name in names} == {"Linear4bit"}


CHECKS = {
    "answers_in_float32": {},
    "answers_in_half_precision": {},
    "recorded_steps": {},
    **{f"recorded_steps_of_a_family {name}": {"name": name} for name in FAMILIES},
    "training_step": {},
    "attention_of_a_packed_row": {},
    "noise_of_samples": {},
    "weights_go_straight_to_the_device": {},
}
"""All that the fake GPU can run too, with their arguments; a name begins with the function's."""


def run(name: str, folder: Path, **more: Any) -> None:
    """One of CHECKS."""
    globals()[name.split()[0]](folder, **CHECKS[name], **more)
