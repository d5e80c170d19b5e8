"""What bounds the memory of generation, and what happens when it runs out."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from seva_exp import StageError
from seva_exp.core import main_memory
from seva_exp.decoding import engine
from seva_exp.decoding import prefetch as ahead
from seva_exp.decoding import scheduler as loop
from seva_exp.decoding.budget import Budget, free_bytes
from seva_exp.decoding.engine import Engine
from seva_exp.decoding.kv_cache import Extent, KVCache, bytes_per_token

from .alone import by_id
from .scenes import SHARED, SINGLE, asked, request


@pytest.mark.parametrize("tokens", [120, 300])
def test_the_budget_is_kept_to(vlm, expected, extents, tokens):
    assert asked(vlm, SINGLE, tokens=tokens) == expected[0]
    assert asked(vlm, SHARED, tokens=tokens) == expected[1]
    assert 60 < max(extent.tokens for extent in extents) <= tokens


def test_a_row_without_room_to_go_on_is_done_again(vlm, expected, extents, monkeypatch):
    monkeypatch.setattr(loop, "PROMISED", 1)
    back = []
    prefetcher = ahead.PicturePrefetcher
    real = prefetcher.put_back
    monkeypatch.setattr(
        prefetcher, "put_back", lambda self, some: back.extend(some) or real(self, some)
    )
    assert asked(vlm, SINGLE, tokens=150) == expected[0]
    assert asked(vlm, SHARED, tokens=150) == expected[1]
    assert back and max(extent.tokens for extent in extents) <= 150


def test_a_prefix_that_only_waiting_rows_need_makes_room(vlm, monkeypatch):
    """A long answer beside a picture with many short ones, in memory for the long one alone."""
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", 10**6)
    long = request(0, picture=0, tokens=180)
    short = [request(number, picture=1, tokens=3) for number in range(1, 40)]
    alone_in_it = asked(vlm, [long], rows=2, tokens=250)
    with_others = asked(vlm, [long, *short], rows=2, tokens=250)
    assert with_others[long.id] == alone_in_it[long.id] and len(with_others) == 40


def test_main_memory_is_shared_with_other_processes(vlm):
    whole, third = (Budget(vlm, None, neighbours).tokens for neighbours in (1, 3))
    assert third == pytest.approx(whole / 3, rel=0.2)


def test_of_a_gpu_s_memory_what_torch_keeps_unused_is_free_too(monkeypatch):
    """And the limits of main memory say nothing of it."""
    for name, value in {
        "mem_get_info": (70, 900),
        "memory_reserved": 30,
        "memory_allocated": 10,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_bytes(torch.device("cuda")) == 70 + 30 - 10


def test_a_request_that_fits_no_budget_is_named(vlm):
    with pytest.raises(StageError, match=r"request id0: .* and 30 fit \(machine.generation_tokens"):
        asked(vlm, SINGLE, tokens=30)
    with pytest.raises(StageError, match=r"request id0: .* take 61 tokens .* and 60 fit"):
        asked(vlm, SINGLE[:1], tokens=60)


def test_none_takes_what_memory_allows(vlm, monkeypatch):
    assert bytes_per_token(vlm.model) == 2 * 4 * 128 * 4
    monkeypatch.setattr("seva_exp.decoding.budget.free_bytes", lambda device: 4096 * 500)
    assert Engine(vlm, 8)._asks._budget.tokens == 250


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("error", [CUDA, CPU], ids=["cuda", "cpu"])
def test_when_memory_runs_out_half_is_run_and_nothing_is_lost(vlm, expected, monkeypatch, error):
    real, sizes = vlm.model.forward, []

    def forward(*args, input_ids, **kwargs):
        sizes.append(input_ids.shape[1])
        if input_ids.shape[1] > 150:
            raise error
        return real(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(vlm.model, "forward", forward)
    ours = Engine(vlm, 8)
    first = by_id(ours.run(SINGLE))
    assert {id: reply.tokens for id, reply in first.items()} == expected[0]
    failed = sum(size > 150 for size in sizes)
    assert 1 <= failed <= 3
    by_id(ours.run(SINGLE))  # the engine remembers
    assert sum(size > 150 for size in sizes) == failed


def test_memory_that_runs_out_in_the_middle_of_answers_loses_none(vlm, expected, monkeypatch):
    real, calls = vlm.model.forward, []

    def forward(*args, **kwargs):
        calls.append(1)
        if len(calls) in (7, 30):
            raise CPU
        return real(*args, **kwargs)

    monkeypatch.setattr(vlm.model, "forward", forward)
    assert asked(vlm, SHARED, 8) == expected[1]
    assert len(calls) > 30


@pytest.mark.parametrize("slow", [False, True], ids=["slots", "batches"])
def test_one_alone_that_runs_out_of_memory_is_named(vlm, monkeypatch, slow):
    def forward(*args, **kwargs):
        raise CPU

    monkeypatch.setattr(vlm.model.model.vision_tower, "forward", forward)
    if slow:
        monkeypatch.setattr(engine, "unproven", lambda vlm: "of the test")
    with pytest.raises(StageError, match="request id0: "):
        asked(vlm, SINGLE[:2])


def failing(patch, owner, name, calls, error):
    """These calls of ``owner.name`` (0 is the first) raise; says how many did."""
    real, seen, raised = getattr(owner, name), [], []

    def call(*args, **kwargs):
        seen.append(1)
        if len(seen) - 1 in calls:
            raised.append(1)
            raise error
        return real(*args, **kwargs)

    patch.setattr(owner, name, call)
    return raised


SPOTS = {
    "image processor": lambda vlm: (vlm, "encode_image"),
    "prompt": lambda vlm: (vlm, "encode"),
    "vision": lambda vlm: (vlm.model.base_model, "get_image_features"),
    "to the device": lambda vlm: (vlm, "image_inputs"),
    "buffers": lambda vlm: (KVCache, "fit"),
    "moving a row": lambda vlm: (KVCache, "move"),
}


@pytest.mark.parametrize("calls", [{1}, {4}], ids=str)
@pytest.mark.parametrize("spot", SPOTS)
def test_wherever_memory_runs_out_each_is_answered_once(vlm, expected, monkeypatch, spot, calls):
    raised = failing(monkeypatch, *SPOTS[spot](vlm), calls, CUDA)
    assert asked(vlm, [*SINGLE, *renamed(SHARED)], 4) == expected[0] | {
        f"again {id}": tokens for id, tokens in expected[1].items()
    }
    assert len(raised) == len(calls)


def renamed(requests):
    return [replace(r, id=f"again {r.id}", image_key=f"again {r.image_key}") for r in requests]


@pytest.mark.parametrize("error", [CUDA, CPU, MemoryError()], ids=["cuda", "cpu", "python"])
@pytest.mark.parametrize("slow", [False, True], ids=["slots", "batches"])
def test_a_picture_for_which_there_was_no_memory_is_tried_again(
    vlm, expected, monkeypatch, error, slow
):
    if slow:
        monkeypatch.setattr(engine, "unproven", lambda vlm: "of the test")
    failed = []

    def load():
        if len(failed) < 2:
            failed.append(1)
            raise error
        return SINGLE[5].load()

    requests = [*SINGLE[:5], replace(SINGLE[5], load=load), *SINGLE[6:]]
    assert asked(vlm, requests, 4) == expected[0]


def test_alone_means_that_no_other_is_made_ready(vlm, expected):
    """The first one's memory is what the next ones take meanwhile; they are given up for it."""
    others, tried = threading.Event(), []

    def load():
        tried.append([one.made for one in pictures._waiting])
        if len(tried) == 1:
            others.wait(120)
            raise MemoryError
        return SINGLE[0].load()

    second = replace(SINGLE[1], load=lambda: others.set() or SINGLE[1].load())
    requests = [replace(SINGLE[0], load=load), second, *SINGLE[2:]]
    pictures = ahead.PicturePrefetcher(vlm, requests, None)
    assert pictures.take()[0].waiting[0].request is requests[0]
    assert len(tried) == 2 and not any(tried[1]) and len(tried[1]) == len(SINGLE)
    pictures.close()
    tried.clear()
    assert asked(vlm, requests, 4) == expected[0]


def test_a_picture_that_takes_all_memory_waits_until_it_is_alone_and_is_named(vlm, expected):
    def load():
        raise MemoryError

    ours, found = Engine(vlm, 4, tokens=5000), []
    requests = [*SINGLE[:5], replace(SINGLE[5], load=load), *SINGLE[6:]]
    with pytest.raises(StageError, match="request id5: out of memory even alone"):
        found.extend(reply for some in ours.run(requests) for reply in some)
    assert {r.id: r.tokens for r in found} == {id: expected[0][id] for id in list(expected[0])[:5]}


def test_a_picture_that_waits_costs_those_that_run_nothing(vlm, expected):
    """They go on within the same budget."""
    failed = []

    def load():
        if not failed:
            failed.append(1)
            raise MemoryError
        return SINGLE[3].load()

    ours = Engine(vlm, 8, tokens=5000)
    requests = [*SINGLE[:3], replace(SINGLE[3], load=load), *SINGLE[4:]]
    found = by_id(ours.run(requests))
    assert {id: reply.tokens for id, reply in found.items()} == expected[0]
    assert ours._asks._budget.tokens == 5000


def test_the_row_with_the_fewest_tokens_gives_way(vlm, monkeypatch):
    """So the least is done again, and the row with the most ends: none is put back for ever."""
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", 10**6)
    monkeypatch.setattr(loop, "PROMISED", 1)
    real, gone = loop.Scheduler._make_room, []

    def make_room(self):
        before = {row.request.id: row.kept for row, _ in self._rows}
        steps = real(self)
        left = {row.request.id for row, _ in self._rows}
        put_back = [kept for id, kept in before.items() if id not in left]
        if put_back:
            assert max(put_back) <= min(before[id] for id in left)
            gone.extend(id for id in before if id not in left)
        return steps

    monkeypatch.setattr(loop.Scheduler, "_make_room", make_room)
    bounds = [12, 40, 70, 25, 90, 33, 60, 18, 80, 45, 20, 66]
    requests = [replace(r, max_new_tokens=n) for r, n in zip(SHARED, bounds, strict=True)]
    found = asked(vlm, requests, rows=5, tokens=300)
    assert {id: len(tokens) for id, tokens in found.items()} == dict(
        zip([r.id for r in requests], bounds, strict=True)
    )
    assert len(gone) > 3
    assert max(map(gone.count, gone)) < 6


def test_under_pressure_buffers_are_seldom_made_anew(vlm, passes, monkeypatch):
    """Each time all of them are copied. Rows that have no room for a token make room for more."""
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", 10**6)
    made: set[tuple[int, int]] = set()
    real = KVCache.fit

    def fit(self, *args):
        real(self, *args)
        made.add((id(self), self.sizes))
        assert self.extent.tokens <= 1200

    monkeypatch.setattr(KVCache, "fit", fit)
    requests = [
        request(number, picture=number, tokens=20 + 13 * number % 90) for number in range(48)
    ]
    found = asked(vlm, requests, rows=32, tokens=1200)
    assert [len(found[r.id]) for r in requests] == [r.max_new_tokens for r in requests]
    assert len(passes) > 100 and len(made) < len(passes) / 4


def test_the_way_to_more_room_ends_at_the_budget():
    need, roomy = Extent(10, 60, 10, 33), Extent(16, 64, 16, 64)
    assert need.towards(roomy, 10**6) == roomy
    assert need.towards(roomy, need.tokens) == need
    some = need.towards(roomy, 1300)
    assert need.tokens < some.tokens <= 1300 and some.covers(need) and roomy.covers(some)


def grouped(root: Path, lines: str, files: dict[str, str]) -> Path:
    """A file system of a process in these control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(lines)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


def version_2(group, limit, used, cache):
    stat = f"anon 5\ninactive_file {cache}\nactive_file 7\n"
    names = {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": stat}
    return {f"{group}/{name}".lstrip("/"): content for name, content in names.items()}


def version_1(group, limit, used, cache):
    stat = f"inactive_file 3\ntotal_inactive_file {cache}\n"
    names = {"limit_in_bytes": f"{limit}\n", "usage_in_bytes": f"{used}\n", "stat": stat}
    return {f"memory{group}/memory.{name}": content for name, content in names.items()}


UNBOUNDED = 9223372036854771712
GROUPS = {
    "a container": ("0::/\n", version_2("", 1000, 400, 100), 700),
    "a job": (
        "0::/slurm/job_7/step_0\n",
        version_2("slurm/job_7/step_0", "max", 90, 0)
        | version_2("slurm/job_7", 1000, 400, 0)
        | version_2("slurm", 5000, 4900, 450),
        550,
    ),
    "more than the limit is used": ("0::/\n", version_2("", 1000, 1400, 100), 0),
    "version 1": (
        "12:cpu,cpuacct:/a\n4:memory:/a/b\n1:name=systemd:/a\n0::/a\n",
        version_1("/a/b", 2000, 500, 50) | version_1("/a", UNBOUNDED, 500, 50),
        1550,
    ),
    "the host's name of a container": (
        "4:memory:/docker/0123\n",
        version_1("", 800, 300, 0),
        500,
    ),
    "no limit": ("0::/user.slice\n", version_2("user.slice", "max", 90, 0), float("inf")),
    "no such files": ("0::/user.slice\n", {}, float("inf")),
}


@pytest.mark.parametrize("name", GROUPS)
def test_what_a_container_lets_a_process_have_is_the_most(tmp_path, name):
    lines, files, wanted = GROUPS[name]
    root = grouped(tmp_path, lines, files)
    assert main_memory.within_groups(root) == wanted
    before = psutil.virtual_memory().available
    found = free_bytes(torch.device("cpu"), root)
    there = sorted((before, psutil.virtual_memory().available))  # others take some meanwhile
    if wanted < there[0]:
        assert found == wanted
    else:
        assert 0.8 * there[0] <= found <= min(wanted, 1.2 * there[1])


def test_a_system_without_groups_has_no_limit_of_theirs(tmp_path):
    assert main_memory.within_groups(tmp_path) == float("inf")
