"""Whether W&B is online: chosen without asking; what cannot be reached ends no run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from seva_exp.tracking import (
    WandbTracker,
    content,
    wandb_sink,
)
from seva_exp.tracking.wandb_mode import choose_mode

from .played import (
    RUN_ID,
    a_plan,
    play,
    records,
)
from .test_wandb import align_steps, no_account  # noqa: F401


class Refusing(BaseHTTPRequestHandler):
    """A W&B host that takes no key."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b'{"errors":[{"message":"bad key"}]}')

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("hangs", [False, True])
def test_online_that_fails_becomes_offline_in_the_same_run(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    hangs: bool,
) -> None:
    monkeypatch.setattr(wandb_sink, "START_SECONDS", 3.0)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    plan = a_plan(tmp_path / "run")
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}")
        if not hangs:  # a server that is not served takes connections and never answers
            threading.Thread(target=server.serve_forever, daemon=True).start()
        play(plan, tmp_path / "store", WandbTracker(mode="online"), live=5)
        if not hangs:
            server.shutdown()
    said = capfd.readouterr().err
    assert said.startswith(f"W&B: offline, run {RUN_ID} (online failed: "), said
    assert said.count("\n") == 1 and "To upload: wandb sync " in said
    assert [p.name[:11] for p in (plan.dir / "wandb").glob("*run-*")] == ["offline-run"]
    assert align_steps(records(plan.dir)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("WANDB_MODE", "nonsense", "WANDB_MODE=nonsense is none of online, offline, disabled"),
        ("WANDB_BASE_URL", "http://127.0.0.1:99999", "WANDB_BASE_URL is no address like"),
        pytest.param(
            *("WANDB_BASE_URL", "nonsense", "WANDB_BASE_URL is no address like"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_wrong_variable_is_said_and_the_run_is_tracked_offline(
    tmp_path: Path, name: str, value: str, why: str
) -> None:
    code = (
        "from pathlib import Path; from played import WandbTracker, a_plan, play\n"
        "play(a_plan(Path('run')), Path('store'), WandbTracker(), live=2)"
    )
    # another process: wandb reads the variables once
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(content.__file__).parents[2])])
    env = {**os.environ, "PYTHONPATH": path, "WANDB_API_KEY": "k" * 40}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**env, name: value},
        timeout=240,
    )
    assert done.stderr.startswith(f"W&B: offline, run {RUN_ID} ({why}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert align_steps(records(tmp_path / "run")) == [1, 2, 3, 4, 5]


def test_an_odd_proxy_prints_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:99999")
    assert choose_mode(WandbTracker()) == ("offline", "api.wandb.ai does not answer")
    assert not raised


def test_mode_is_chosen_without_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    auto = WandbTracker()
    assert choose_mode(auto) == ("offline", "no API key found")
    assert choose_mode(WandbTracker(mode="online"))[0] == "offline"
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", f"http://{host}")
        (tmp_path / "home" / ".netrc").write_text(f"machine {host} login u password {'k' * 40}\n")
        (tmp_path / "home" / ".netrc").chmod(0o600)
        assert choose_mode(auto) == ("online", "API key found")
    began = time.monotonic()
    assert choose_mode(auto) == ("offline", f"{host} does not answer")
    assert time.monotonic() - began < 60
    monkeypatch.setenv("WANDB_MODE", "online")
    assert choose_mode(auto)[0] == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_mode(auto)[0] == "disabled"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_mode(auto) == ("offline", "WANDB_MODE=offline")
