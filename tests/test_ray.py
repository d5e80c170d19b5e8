"""``machine.cluster=ray``: actors of Ray do what processes do. What needs Ray is skipped where it
is not installed (``make test-all`` installs it)."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import seva_exp
from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.augment import HorizontalFlip
from seva_exp.core import machine as machine_module
from seva_exp.core.machine import RayCluster
from seva_exp.data import ShapesData
from seva_exp.stages import ray_crew
from seva_exp.stages.ray_crew import Actor, shares

from .crews import ANSWERS, NOISE, WHOLE, artifact, below, done, journaled, started, wait_for
from .test_plugins import FILES

HERE = importlib.util.find_spec("ray") is not None
with_ray = pytest.mark.skipif(not HERE, reason="Ray is not installed")
RAY = ["machine.cluster=ray", "machine.ray.workers=2"]
SHARED = ("answers.clean", NOISE, "reference", "evaluate.aligned.shapes")
SMALL = Experiment(aug={"flip": HorizontalFlip()}, data=ShapesData(samples=8))


def test_ray_is_never_imported_when_it_is_not_asked_for(tmp_path):
    """A module of that name tells when it is."""
    (tmp_path / "ray.py").write_text("print('ray was imported')\n")
    words = ["data.samples=8", "generation.max_new_tokens=4", f"stop_after={NOISE}"]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    for more in ([], ["machine.processes=2"]):
        process = started(tmp_path / "run", [*words, *more], PYTHONPATH=path)
        code = process.wait()
        said = (tmp_path / "run" / "said.log").read_text()
        assert code == 0, said
        assert "ray was imported" not in said
    seen = subprocess.run(
        [sys.executable, "-c", "import ray"], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "ray was imported" in seen.stdout, "it would have told"


def test_without_ray_it_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_module, "find_spec", lambda name: None)
    machine = Machine(cluster="ray", device="cpu", runs=str(tmp_path))
    with pytest.raises(InputError, match=r"machine.cluster=ray: Ray .* pip install .seva_exp\[ray"):
        seva_exp.run(SMALL, machine)
    assert not [*tmp_path.iterdir()]
    # What another machine is planned for may be told all the same.
    seva_exp.run(SMALL, machine, Options(dry_run=True))


@pytest.mark.parametrize("device", ["mps", "cuda:1"])
def test_a_device_of_this_machine_is_none_of_a_cluster(device):
    with pytest.raises(ValueError, match=f"cluster=ray: .* device={device} is one of this machine"):
        Machine(cluster="ray", device=device)


@pytest.mark.parametrize(
    ("wanted", "device", "there", "found"),
    [
        ({}, "auto", {"CPU": 32, "GPU": 4}, (4, 1.0)),
        ({"gpus": 0.5}, "cuda", {"CPU": 32, "GPU": 4}, (8, 0.5)),
        ({"cpus": 16}, "auto", {"CPU": 32, "GPU": 4}, (2, 1.0)),
        ({}, "cpu", {"CPU": 4, "GPU": 4}, (4, 0.0)),
        ({"workers": 3}, "auto", {"CPU": 4}, (3, 0.0)),
    ],
)
def test_workers_are_as_many_as_there_is_room_for(wanted, device, there, found):
    assert shares(RayCluster(**wanted), device, there) == found


def test_more_workers_than_there_is_room_for_are_refused():
    text = r"machine.ray.workers=5: the cluster has 16 CPUs and 4 GPUs, enough for 4 workers"
    with pytest.raises(InputError, match=text):
        shares(RayCluster(workers=5), "auto", {"CPU": 16, "GPU": 4})
    with pytest.raises(InputError, match=r"enough for 0 workers of cpus=1 gpus=1"):
        shares(RayCluster(gpus=1), "auto", {"CPU": 16})


def test_a_node_that_does_not_see_the_store_or_the_folder_is_named(tmp_path):
    """As an actor finds it on its node: another folder of that name, or none."""
    (tmp_path / "locks").mkdir()
    (marker := tmp_path / "locks" / "ray-1.marker").write_text("of the driver")
    host, machine = socket.gethostname(), Machine(device="cpu")
    here = os.getcwd()
    assert not Actor(machine, here, marker, "of the driver").look()["fault"]
    for file, token in (
        (marker, "another"),
        (tmp_path / "no" / "locks" / "ray-1.marker", "of the driver"),
    ):
        fault = Actor(machine, here, file, token).look()["fault"]
        assert fault.startswith(f"machine.store={file.parent.parent}: node {host} does not see")
    gone = Actor(machine, str(tmp_path / "gone"), marker, "of the driver")
    assert f"node {host} cannot work in this folder" in gone.look()["fault"]
    with pytest.raises(InputError, match=f"gone: node {host}"):
        gone.work(tmp_path, 1, 1)


@with_ray
def test_an_address_that_nobody_listens_at_is_refused_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    start = time.monotonic()
    with pytest.raises(InputError, match=rf"machine.ray.address={address}: no Ray cluster answers"):
        ray_crew.connect(RayCluster(address=address))
    assert time.monotonic() - start < 30


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Where one process answered."""
    return done(tmp_path_factory.mktemp("alone"), ANSWERS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Where one process did a whole run."""
    return done(tmp_path_factory.mktemp("whole"), WHOLE)


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes of Ray's actors, by the name that Ray gives them."""
    found = []
    for one in below(process):
        try:
            if re.search(r"ray::Actor", " ".join(one.cmdline())):
                found.append(one)
        except psutil.Error:
            continue
    return found


@with_ray
@pytest.mark.slow
def test_two_actors_do_as_one_process(whole, tmp_path):
    """The whole run; each stage that they share has the bytes of one process's."""
    done(tmp_path, [*WHOLE, *RAY])
    for label in (*SHARED, "pairs", "align"):
        mine, others = artifact(tmp_path, label), artifact(whole, label)
        mine.pop("throughput.jsonl", None), others.pop("throughput.jsonl", None)
        assert mine == others, label


@with_ray
@pytest.mark.slow
def test_an_actor_killed_at_five_random_moments_changes_nothing(alone, tmp_path):
    rng, killed = random.Random(time.time_ns()), 0
    words = [*ANSWERS, *RAY]
    for number in range(5):
        process = started(folder := tmp_path / f"{number}", words)
        wait_for(lambda folder=folder: journaled(folder), process)
        time.sleep(2 * rng.random())
        found = workers(process)
        assert len(found) == 2
        os.kill(rng.choice(found).pid, signal.SIGKILL)
        killed += process.poll() is None
        assert process.wait(timeout=1200) == 0, (folder / "said.log").read_text()
        for label in ("answers.clean", NOISE):
            assert artifact(folder, label) == artifact(alone, label)
    assert killed == 5, "it was over before it could be killed"


@with_ray
@pytest.mark.slow
def test_no_actor_outlives_a_run_that_is_killed_and_the_same_command_goes_on(alone, tmp_path):
    words = [*ANSWERS, *RAY]
    process = started(tmp_path, words)
    wait_for(lambda: journaled(tmp_path), process)
    found = workers(process)
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(found, timeout=60)
    assert found and not left
    process = started(tmp_path, words)
    assert process.wait(timeout=1200) == 0, (tmp_path / "said.log").read_text()
    assert artifact(tmp_path, NOISE) == artifact(alone, NOISE)
    assert not [*tmp_path.glob("runs/store/locks/ray-*.marker")][1:], (
        "but for that of the killed one"
    )


@with_ray
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_ends_as_others_do(tmp_path, how):
    process = started(tmp_path, [*ANSWERS, *RAY])
    wait_for(lambda: journaled(tmp_path), process)
    found = workers(process)
    process.send_signal(how)
    assert process.wait(timeout=120) == 130
    assert "the same command resumes from it" in (tmp_path / "said.log").read_text()
    _, left = psutil.wait_procs(found, timeout=60)
    assert found and not left
    assert not [*tmp_path.glob("runs/store/locks/ray-*.marker")]


@with_ray
@pytest.mark.slow
def test_where_something_else_listens_it_is_refused_in_time(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                held.append(server.accept()[0])  # and says nothing

        threading.Thread(target=accept, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        words = ["machine.cluster=ray", f"machine.ray.address={address}", "stop_after=answers"]
        process = started(tmp_path, words)
        assert process.wait(timeout=300) == 2
        said = (tmp_path / "said.log").read_text()
    assert f"machine.ray.address={address}: no Ray cluster answers there" in said
    assert time.monotonic() - start < 3 * ray_crew.ANSWER_SECONDS
    assert not [*tmp_path.glob("runs/*_*")], "before any work"


@with_ray
@pytest.mark.slow
def test_an_actor_has_a_module_of_the_working_folder(tmp_path):
    (tmp_path / "my_views.py").write_text(FILES["my_views.py"], encoding="utf-8")
    words = ["plugins=[my_views]", "+aug=[posterize_twice,in_a_hurry]", "data.samples=12"]
    words += ["stop_after=pairs", "tracker=none", "machine.device=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "seva_exp", *words, *RAY],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for view in ("posterize_twice", "in_a_hurry"):
        file = tmp_path / "runs" / "latest" / f"answers.{view}" / "answers.jsonl"
        assert len(file.read_text(encoding="utf-8").splitlines()) == 12
