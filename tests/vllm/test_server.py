"""The process of a server: nothing of it is left behind, whoever dies; questions wait for a server
that is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from PIL import Image

from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import Request
from seva_exp.decoding import VllmGeneration
from seva_exp.decoding.openai_chat import Chat, said, server_engine
from seva_exp.models import TinyModel
from seva_exp.vllm.server import VllmServer

FAKE = Path(__file__).with_name("fake_api_server.py")
N = 20


def served(log: Path, how: str = "", **options) -> VllmServer:
    return VllmServer(
        lambda port: [sys.executable, str(FAKE), str(port), how],
        lambda key: {"KEY": key},
        log,
        **{"concurrency": 4, "start_seconds": 120.0} | options,
    )


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "vllm.log"


def pids(log: Path) -> list[int]:
    """The engine's and the server's, of the last start."""
    return [int(word) for word in log.read_text().strip().split("\n")[-1].split()]


def gone(pid: int, seconds: float = 60) -> bool:
    """Whether a process ends within so many seconds; one that nobody waits for has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_it_is_ended_with_all_that_it_started(log):
    server = served(log)
    server.start()
    both = pids(log)
    assert not any(gone(pid, 0.2) for pid in both)
    server.end()
    assert all(gone(pid) for pid in both)
    server.end()  # again: nothing to do


@pytest.mark.parametrize("victim", [0, 1], ids=["engine", "server"])
def test_it_is_started_again_when_it_dies_and_told(log, victim):
    told = []
    server = served(log, warn=told.append)
    server.start()
    first = pids(log)
    assert not server.revive(1), "it is well"
    os.kill(first[victim], signal.SIGKILL)
    if victim == 0:  # vLLM's server notices and ends; this one is told to
        os.kill(first[1], signal.SIGKILL)
    assert gone(server.pid), "the guard ends with the server"
    assert all(gone(pid) for pid in first), "an engine does not outlive its server"
    assert server.revive(1)
    assert server.starts == 2
    assert server.revive(1), "another question that failed before does not start it again"
    assert server.starts == 2
    assert len(told) == 1 and str(log) in told[0]
    server.end()
    assert all(gone(pid) for pid in pids(log))


def test_a_server_that_dies_too_often_is_given_up(log):
    server = served(log, restarts=1)
    server.start()
    for starts in (1, 2):
        os.kill(pids(log)[1], signal.SIGKILL)
        assert gone(server.pid)
        if starts == 1:
            assert server.revive(starts)
    with pytest.raises(StageError, match=rf"died.*restarts=1.*{log}"):
        server.revive(2)


def test_one_that_does_not_start_is_told_with_its_words_and_its_log(log):
    with pytest.raises(StageError, match=rf"ValueError: no such model \(all of it: {log}\)"):
        served(log, "broken").start()
    assert gone(pids_of_broken(log))


def pids_of_broken(log: Path) -> int:
    return int(log.read_text().split()[0])


def test_one_that_never_answers_is_ended(log, monkeypatch):
    server = served(log, "deaf", start_seconds=0.5)
    begin = server._start

    def begun():
        """The seconds count from when it and its engine are there."""
        begin()
        deadline = time.monotonic() + 120
        while log.read_text().count("\n") < 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    monkeypatch.setattr(server, "_start", begun)
    with pytest.raises(StageError, match=r"machine.vllm.start_seconds=0.5"):
        server.start()
    assert len(pids(log)) == 2 and all(gone(pid) for pid in pids(log))


def test_nothing_is_left_when_the_run_is_killed(log):
    code = f"""
        import sys, time
        from pathlib import Path
        from seva_exp.vllm.server import VllmServer
        command = lambda port: [sys.executable, {str(FAKE)!r}, str(port)]
        VllmServer(command, lambda key: {{"KEY": key}}, Path({str(log)!r})).start()
        print("up", flush=True)
        time.sleep(600)
    """
    run = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert run.stdout and run.stdout.readline() == b"up\n"
    both = pids(log)
    run.kill()
    run.wait()
    assert all(gone(pid) for pid in both)


def request(number: int) -> Request:
    picture = Image.new("RGB", (9, 7), (number, 2 * number, 3 * number))
    return Request(f"id{number}", f"id{number}", lambda: picture, f"What is {number}?", 8)


def answers(server: VllmServer) -> dict[str, str]:
    chat = Chat(VllmGeneration(), TinyModel(), 0, "sampling/clean", "base")
    engine = server_engine(server.address, chat, print, said, server)
    found = [reply for some in engine.run([request(n) for n in range(N)]) for reply in some]
    assert len({reply.id for reply in found}) == len(found) == N
    return {reply.id: reply.text for reply in found}


def test_a_server_that_dies_in_the_middle_changes_no_answer(log, tmp_path):
    calm = served(tmp_path / "calm.log")
    calm.start()
    undisturbed = answers(calm)
    calm.end()
    server = served(log, "dies:7")
    server.start()
    assert answers(server) == undisturbed
    assert server.starts >= 3
    server.end()


def test_questions_end_when_it_dies_too_often(log):
    server = served(log, "dies:1", restarts=2)
    server.start()
    with pytest.raises(StageError, match=r"machine.vllm.restarts=2"):
        answers(server)
    assert gone(server.pid)
