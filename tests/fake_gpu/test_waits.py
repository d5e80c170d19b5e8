"""The default run in half precision on the honest device: its number formats, the memory that it
gives back, where the host waits; and planted mistakes, each seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from .allowed import not_allowed
from .stores import without

WORDS = [
    *(
        "+aug=diffusion_noise",
        "aug.diffusion_noise.step=800",
        "data.samples=6",
        "dpo.warmup_ratio=0",
        "dpo.learning_rate=0.1",
        "tracker=none",
    ),
    *("benchmark.shapes.images=1", "machine.progress=off", "generation.max_new_tokens=8"),
    *("dpo.batch_size=2", "machine.train_batch_size=1"),
]
ANSWERS = ["answers.clean", "answers.diffusion_noise", "evaluate.base.shapes"]
SAMPLED = ["generation.temperature=0.7", "generation.top_p=0.9", "generation.logprobs=true"]
DESCRIPTIONS = ["method=stic", "data.samples=6", "generation.max_new_tokens=40", "tracker=none"]
DESCRIPTIONS += ["machine.progress=off", "stop_after=answers"]
"""Answers of some 17 to 24 tokens."""
ONE_READ = {"download": 1}
"""Of some decode steps: their tokens."""


def reads(look: dict) -> dict[str, int]:
    """The host's waits of some decode steps, but for the comparison of a recording's first play."""
    waits = dict(look["waits"])
    assert waits.pop("item", 0) <= look["played"]
    return waits


@pytest.fixture(scope="module")
def half(fake_gpu, tmp_path_factory) -> dict:
    """What the run did, stage by stage, and its store."""
    store = tmp_path_factory.mktemp("half") / "store"
    done = fake_gpu("command", words=[*WORDS, f"machine.store={store}"], device="cuda")
    assert done["code"] == 0, done["output"]
    return done | {"store": store}


def test_the_host_waits_where_it_may(half):
    found = {name: not_allowed(stage["waits"]) for name, stage in half["stages"].items()}
    assert found == {name: [] for name in half["stages"]}


@pytest.mark.parametrize("stage", [*ANSWERS, "evaluate.aligned.shapes"])
def test_some_decode_steps_wait_once(half, stage):
    looks = half["stages"][stage]["looks"]
    assert looks and all(reads(look) == ONE_READ for look in looks)


@pytest.mark.parametrize("how", [[], SAMPLED], ids=["greedy", "sampled"])
def test_descriptions_are_looked_at_every_few_steps(fake_gpu, tmp_path, how):
    """And most steps are played: the host starts a graph instead of a thousand kernels."""
    words = [*DESCRIPTIONS, *how, f"machine.store={tmp_path}"]
    done = fake_gpu("command", words=words, device="cuda")
    assert done["code"] == 0 and "not recorded" not in done["output"]
    looks = [look for stage in done["stages"].values() for look in stage["looks"]]
    steps, played = (sum(look[name] for look in looks) for name in ("steps", "played"))
    assert all(reads(look) == ONE_READ for look in looks)
    assert max(look["steps"] for look in looks) >= 4 and len(looks) < steps / 2
    assert played > 0.7 * steps


def test_the_aligned_model_starts_as_many_kernels_as_the_base(half):
    # Of the smallest step: what it answers, and so how many rows a step has, may be another. A play
    # takes two copies more.
    base, aligned = (
        min(look["kernels"] - 2 * look["played"] for look in half["stages"][stage]["looks"])
        for stage in ("evaluate.base.shapes", "evaluate.aligned.shapes")
    )
    assert aligned == base


@pytest.mark.parametrize("stage", ANSWERS)
def test_answers_are_computed_in_half_precision(half, stage):
    assert half["stages"][stage]["float32_share"] < 0.01
    assert not any("math" in kernel for kernel in half["stages"][stage]["attention"])


def test_training_is_computed_in_half_precision(half):
    """Its steps; the first batch is also compared with plain rows, in float32."""
    shares = half["stages"]["align"]["shares"]
    assert len(shares) == 2 and max(shares) < 0.01


def test_memory_is_given_back(half):
    """Of the two models and the training, when the next one is loaded and when align has ended."""
    before = half["stages"]["answers.clean"]["before"]
    assert half["loads"] == [before, before]
    assert half["stages"]["align"]["after"] == before
    assert (
        half["stages"]["evaluate.aligned.shapes"]["after"] == half["stages"]["reference"]["after"]
    )


# Planted mistakes


@pytest.fixture
def wrong(fake_gpu, half, tmp_path):
    """A run with a mistake in it, in which these stages are still to be done."""

    def run(mistake: str, *stages: str, stop_after: str) -> dict:
        store: Path = without(half["store"], tmp_path / "store", *stages)
        words = [*WORDS, f"machine.store={store}", f"stop_after={stop_after}"]
        return fake_gpu("command", words=words, device="cuda", mistake=mistake)

    return run


@pytest.mark.parametrize("mistake", ["row_left_on_the_cpu", "mask_made_on_the_cpu"])
def test_a_tensor_on_the_wrong_device_is_refused(wrong, mistake):
    done = wrong(mistake, "align", "reference", stop_after="align")
    assert done["code"] == 1
    assert "Expected all tensors to be on the same device" in done["output"]
    assert "cpu and cuda:0" in done["output"]


def test_two_number_formats_in_a_product_are_refused(wrong):
    done = wrong("weights_of_attention_in_float32", "answers", stop_after="answers.clean")
    assert done["code"] == 1
    assert "to have the same dtype, but found torch.bfloat16 and torch.float32" in done["output"]


def test_a_wait_that_is_not_on_the_list_is_seen(wrong):
    done = wrong("item_in_the_decode_step", "answers", stop_after="answers.clean")
    assert done["code"] == 0
    stage = done["stages"]["answers.clean"]
    assert [text.split(",")[0] for text in not_allowed(stage["waits"])] == [
        "item at decoding/scheduler.py:_choose",
    ]
    assert all(look["waits"]["item"] >= look["steps"] for look in stage["looks"])


@pytest.mark.parametrize(
    ("mistake", "why"),
    [
        ("item_in_the_recorded_step", "operation not permitted when stream is capturing (item)"),
        ("positions_of_the_recording", "operation not permitted when stream is capturing (downlo"),
    ],
)
def test_a_step_that_cannot_be_captured_is_told(wrong, mistake, why):
    done = wrong(mistake, "answers", stop_after="answers.clean")
    assert done["code"] == 0
    said = "decode steps are not recorded as CUDA graphs (RuntimeError: CUDA error: " + why
    assert done["output"].count(said) == 1
    assert sum(look["played"] for look in done["stages"]["answers.clean"]["looks"]) == 0


def test_where_graphs_must_be_a_step_that_cannot_be_captured_is_an_error(fake_gpu, half, tmp_path):
    store = without(half["store"], tmp_path / "store", "answers")
    words = [*WORDS, f"machine.store={store}", "stop_after=answers.clean", "machine.cuda_graphs=on"]
    done = fake_gpu("command", words=words, device="cuda", mistake="item_in_the_recorded_step")
    assert done["code"] == 1 and "machine.cuda_graphs=on: decode steps are not" in done["output"]


def test_without_graphs_no_step_is_played(fake_gpu, half, tmp_path):
    store = without(half["store"], tmp_path / "store", "answers")
    words = [*WORDS, f"machine.store={store}", "stop_after=answers.clean"]
    done = fake_gpu("command", words=[*words, "machine.cuda_graphs=off"], device="cuda")
    assert sum(look["played"] for look in done["stages"]["answers.clean"]["looks"]) == 0


def test_memory_that_stays_after_release_is_seen(wrong):
    done = wrong("cycles_left", "align", "reference", stop_after="align")
    assert done["code"] == 0
    assert done["stages"]["align"]["after"] > done["stages"]["reference"]["before"]


def test_float32_products_in_a_step_are_seen(wrong):
    done = wrong("float32_products", "align", stop_after="align")
    assert done["code"] == 0
    assert min(done["stages"]["align"]["shares"]) > 0.01
