"""One run by processes that srun or torchrun started: the first drives, the others help."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from seva_exp import InputError, Machine, StageError
from seva_exp.core.digests import FileDigests
from seva_exp.core.progress import progress
from seva_exp.core.sharing import Sharing
from seva_exp.stages import StageContext
from seva_exp.stages.members import Members, Place, first_gpu, launched, place_in
from seva_exp.stages.processes import ProcessTask, free_port, launch

from .crews import (
    ANSWERS,
    NOISE,
    ROOT,
    WHOLE,
    WORDS,
    Pieces,
    Telling,
    artifact,
    below,
    done,
    journaled,
    started,
    wait_for,
)

SLURM = {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "7"}
TORCHRUN = {
    "RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none", "ACCELERATE_MIXED_PRECISION": "bf16",
}  # fmt: skip
OTHERS = ("answers.clean", NOISE, "reference", "evaluate.aligned.shapes")
"""What is shared by leases."""


def test_the_launcher_s_variables_tell_the_place():
    assert launched({"PATH": "/bin"}) is None
    assert launched({**SLURM}) == Place(1, 4, 1, "slurm-7-")
    environment = {**SLURM, **TORCHRUN}
    assert launched(environment) == Place(2, 4, 0, "torch-none-29500", "node0")
    assert environment == SLURM, "a training would take torchrun's variables for its own"
    for alone in ({**SLURM, "SLURM_NTASKS": "1"}, {**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}):
        assert launched(alone) is None
        assert "RANK" not in alone
    kept = {"ACCELERATE_MIXED_PRECISION": "bf16"}
    assert launched(kept) is None and kept, "not torchrun's"


def test_what_does_not_agree_is_refused():
    place = Place(0, 2, 0, "x")
    assert place_in(Machine(), place) == place_in(Machine(nodes=2), place) == place
    assert place_in(Machine(), None) is place_in(Machine(nodes=1), place) is None
    with pytest.raises(InputError, match=r"machine.nodes=4: a launcher started 2 of this command"):
        place_in(Machine(nodes=4), place)
    with pytest.raises(InputError, match=r"machine.nodes=2: a launcher started 1 .*torchrun"):
        place_in(Machine(nodes=2), None)
    with pytest.raises(InputError, match=r"machine.cluster=ray: a launcher started 2"):
        place_in(Machine(cluster="ray"), place)


@pytest.mark.parametrize(
    ("local", "each", "seen", "first"),
    [(0, 1, 4, 0), (3, 1, 4, 3), (1, 2, 4, 2), (1, 1, 1, 0), (3, 2, 2, 0)],
)
def test_a_member_s_ranks_take_its_own_gpus(local, each, seen, first):
    """Of those that all members see, or of those that the launcher shows to it alone."""
    assert first_gpu(local, each, seen) == first


HELP = """
import sys
from seva_exp import Machine
from seva_exp.stages.members import Place, help_out
help_out(Place(int(sys.argv[1]), 3, 0, "test"), Machine(device="cpu", store=sys.argv[2]))
"""


@pytest.fixture
def three(tmp_path, monkeypatch):
    """The first of three, as a context's crew; the others are processes."""
    monkeypatch.chdir(ROOT)  # the ranks import this package
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    machine = Machine(device="cpu", store=str(tmp_path / "store"))
    words = [sys.executable, "-c", HELP]
    others = [subprocess.Popen([*words, str(i), str(machine.store_root())]) for i in (1, 2)]
    members = Members(Place(0, 3, 0, "test"), machine).open()
    folder = tmp_path / "store" / "members" / "test"
    try:
        wait_for(lambda: len([*folder.glob("member-*.json")]) == 2, others[0])
        yield (
            members,
            others,
            StageContext(
                machine, FileDigests(tmp_path), partial(progress, "lines"), print, crew=members
            ),
        )
    finally:
        members.close()
        for one in others:
            assert one.wait(timeout=240) in (0, -signal.SIGKILL), "they end with the first"


def test_members_are_the_ranks_of_a_training(three, tmp_path):
    _, others, context = three
    found = launch(ProcessTask(Telling().run, "align", tmp_path, {}), context)
    assert [row["RANK"] for row in found] == ["0", "1", "2"]
    assert {row["WORLD_SIZE"] for row in found} == {"3"}
    # All are on this machine.
    assert {(row["LOCAL_WORLD_SIZE"], row["neighbours"]) for row in found} == {("3", 3)}
    assert {row["MASTER_ADDR"] for row in found} == {"127.0.0.1"}
    others[1].kill()
    others[1].wait()
    found = launch(ProcessTask(Telling().run, "align", tmp_path, {}), context)
    assert {row["WORLD_SIZE"] for row in found} == {"2"}


def test_what_a_member_leaves_is_done_by_the_others(three, tmp_path, capsys):
    _, _, context = three
    warned: list[str] = []
    context.warn = warned.append
    Sharing(tmp_path).begin()
    task = ProcessTask(Pieces().run, "answers.x", tmp_path, {}, together=False)
    found = launch(task, context)
    rows = [row["piece"] for row in Sharing(tmp_path).rows()]
    assert sorted(rows) == [*range(40)]
    assert len(found) == 2 and sum(one["done"] for one in found) == 39
    [said] = warned
    assert said.startswith("answers.x: process 1 died (SIGKILL)")
    assert said.endswith(f", on {socket.gethostname()}. The others go on without it.")


def test_a_second_driver_is_refused(tmp_path, monkeypatch):
    machine = Machine(store=str(tmp_path))
    first = Members(Place(0, 2, 0, "test"), machine).open()
    monkeypatch.setattr("seva_exp.stages.members.OPEN_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"another process drives in .*members/test"):
        Members(Place(0, 2, 0, "test"), machine).open()
    first.close()


def test_nodes_that_do_not_come_are_missed(tmp_path, monkeypatch):
    monkeypatch.setattr("seva_exp.stages.members.JOIN_SECONDS", 0.2)
    machine = Machine(device="cpu", nodes=2, store=str(tmp_path))
    members = Members(Place(0, 2, 0, "test"), machine).open()
    context = StageContext(machine, FileDigests(tmp_path), print, print, crew=members)
    with pytest.raises(StageError, match=r"machine.nodes=2: 1 of them are here"):
        launch(ProcessTask(Telling().run, "align", tmp_path, {}), context)
    members.close()


def of_slurm(folder: Path, words: list[str], count: int = 2) -> list[subprocess.Popen]:
    """As ``srun -n2`` starts them."""
    return [
        started(folder, words, SLURM_NTASKS=str(count), SLURM_PROCID=str(i)) for i in range(count)
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Where one process answered."""
    return done(tmp_path_factory.mktemp("alone"), ANSWERS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Where one process did a whole run."""
    return done(tmp_path_factory.mktemp("whole"), WHOLE)


@pytest.mark.slow
def test_two_tasks_of_srun_do_one_run_and_one_of_them_is_killed(whole, tmp_path):
    """The helper while both answer; what it had is the other's. Training is one process's then."""
    first, second = of_slurm(tmp_path, WHOLE)
    wait_for(lambda: journaled(tmp_path, 1), first)
    second.kill()
    second.wait()
    assert first.wait(timeout=1200) == 0, (tmp_path / "said-2-0.log").read_text()
    said = (tmp_path / "said-2-0.log").read_text()
    assert f"process 1 is gone, with all that was started with it on {socket.gethostname()}" in said
    for label in OTHERS:
        assert artifact(tmp_path, label) == artifact(whole, label), label
    assert artifact(tmp_path, "align")["adapter/adapter_model.safetensors"]


@pytest.mark.slow
def test_five_kills_at_random_moments_change_nothing(alone, tmp_path):
    """Of the helper, of a rank, and of the first in turn, after which its helper ends, too."""
    rng, expected = random.Random(time.time_ns()), artifact(alone, NOISE)
    for number in range(5):
        first, second = of_slurm(tmp_path / f"{number}", ANSWERS)
        folder = tmp_path / f"{number}"
        wait_for(lambda folder=folder: journaled(folder, 1), first)
        time.sleep(2 * rng.random())
        if number % 3 == 0:
            os.kill(second.pid, signal.SIGKILL)
        elif number % 3 == 1:
            [rank] = [one for one in below(second) if one.environ().get("RANK") == "1"]
            rank.kill()
        else:
            ranks = below(first) + below(second)
            first.kill()
            assert second.wait(timeout=120) == 0
            _, left = psutil.wait_procs(ranks, timeout=60)
            assert not left
            first, second = of_slurm(folder, ANSWERS)
        assert first.wait(timeout=1200) == 0, (folder / "said-2-0.log").read_text()
        second.wait(timeout=120)
        assert artifact(folder, NOISE) == expected


@pytest.mark.slow
def test_two_nodes_of_torchrun_train_as_two_processes_of_one(tmp_path):
    """Two torchruns that find each other on the loopback; the adapter is that of two processes."""
    words = ["data.samples=60", "benchmark.shapes.images=2", "stop_after=align"]
    two = tmp_path / "two"
    done(two, [*words, "machine.processes=2"])
    port, nodes = free_port(), []
    for rank in range(2):
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes=2",
            "--nproc-per-node=1",
        ]
        command += [f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        (folder := tmp_path / "nodes").mkdir(exist_ok=True)
        command += ["-m", "seva_exp", *WORDS, *words, "machine.nodes=2"]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        with (folder / f"said-{rank}.log").open("w") as said:
            nodes.append(subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, env=env))
    for rank, node in enumerate(nodes):
        assert node.wait() == 0, (folder / f"said-{rank}.log").read_text()
    assert artifact(folder, "align") == artifact(two, "align") | {
        "throughput.jsonl": artifact(folder, "align")["throughput.jsonl"]
    }
