"""LLaVA-1.5-7B in its true size on a GPU of 24 GB, without values: a whole run has room there, its
matrix work is bfloat16, and the host waits where it may."""

from __future__ import annotations

import pytest

from .allowed import not_allowed

GIB = 2**30
CARD, RANK = 24, 128
SHORT = "7b, 2 layers"
ONE_READ = ("download", "decoding/choosing.py:write", 1)
FIRST_PLAY = "item", "decoding/cuda_graphs.py:_played"
MOST_WAITS = 26
"""Of a training's micro-step: TRL's metrics (15 numbers, 2 masks), ours, what is kept of a picture.
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(fake_gpu) -> dict:
    return fake_gpu("shapes", size="7b", gib=CARD, rank=RANK)


def test_a_run_has_room(run):
    """13.2 GiB of weights, and what else there is in each stage; out of memory is an error."""
    assert run["held"]["loaded"] / GIB == pytest.approx(13.16, abs=0.01)
    assert run["base"]["peak"] < CARD * GIB
    assert run["base"]["rows"] > 16  # as many as memory allows, not the preset's number


def test_training_holds_its_weights_and_four_times_the_adapter(run):
    """The adapter, its gradients and AdamW's two moments, all float32; a micro-step needs less."""
    most = run["held"]["loaded"] + 4 * run["adapter"]
    assert run["optimizer_step"]["peak"] == pytest.approx(most, rel=0.002)
    assert max(step["peak"] for step in run["micro_steps"]) < most


def test_the_first_batch_is_compared_in_float32(run):
    """For which there is room; out of memory would be followed by a comparison in bfloat16."""
    assert run["compared"]["float32_share"] == 1
    assert run["compared"]["peak"] < CARD * GIB


def test_memory_is_given_back(run):
    held = run["held"]
    assert (held["released"], held["kept"]) == (0, 0)
    assert held["aligned"] == held["loaded"]


def test_matrix_work_is_bfloat16(run):
    works = [run["reference"], *run["micro_steps"], *run["base"]["looks"], *run["aligned"]["looks"]]
    for work in works:
        assert work["flop"]["bfloat16"] > 1e9
        assert work["float32_share"] < 0.01
        assert not any("math" in kernel for kernel in work["attention"])


@pytest.mark.parametrize("model", ["base", "aligned"])
def test_some_decode_steps_wait_once(run, model):
    """And once for each recording."""
    looks = run[model]["looks"]
    for look in looks:
        waits = [tuple(wait) for wait in look["waits"]]
        assert [wait for wait in waits if wait[:2] != FIRST_PLAY] == [ONE_READ]
    compared = sum(wait[2] for look in looks for wait in look["waits"] if wait[1] == FIRST_PLAY[1])
    assert 0 < compared < sum(look["played"] for look in looks)


def test_the_aligned_model_starts_as_many_kernels_as_the_base(run):
    base, aligned = ({s["kernels"] for s in run[m]["looks"]} for m in ("base", "aligned"))
    assert aligned & base and max(aligned) <= max(base)


def test_training_waits_where_it_may(run):
    """On the packed sequence, of which only metrics and features are waited for."""
    assert run["said"] == "packed sequence" and not run["warned"]
    for step in run["micro_steps"]:
        assert not_allowed(step["waits"]) == []
        assert sum(count for _, _, count in step["waits"]) <= MOST_WAITS


def test_13b_generates_on_40_gb(fake_gpu):
    run = fake_gpu("generation", size="13b", gib=40)
    assert run["held"] / GIB == pytest.approx(24.87, abs=0.01)
    assert run["peak"] < 40 * GIB and run["rows"] > 8


# Planted mistakes, in two layers of the 7B


def test_float32_products_are_seen(fake_gpu):
    run = fake_gpu("shapes", size=SHORT, gib=CARD, rank=RANK, mistake="float32_products")
    assert all(step["float32_share"] > 0.01 for step in run["micro_steps"])


def test_memory_that_stays_is_seen(fake_gpu):
    run = fake_gpu("shapes", size=SHORT, gib=CARD, rank=RANK, mistake="cycles_left")
    assert run["held"]["released"] > run["held"]["loaded"] / 2


def test_what_does_not_fit_is_refused(fake_gpu):
    code, said = fake_gpu.dies("generation", size="13b", gib=CARD)
    assert code == 1 and "CUDA out of memory" in said
