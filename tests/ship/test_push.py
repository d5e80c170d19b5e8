"""An upload to a server that speaks the hub's protocol: asked for, private, all files, no token
in what is said."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

TOKEN = "hf_" + "a1B2" * 8


class Hub(BaseHTTPRequestHandler):
    """The few requests that an upload of small files makes; ``server.seen`` holds them."""

    def _reply(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.seen.append((self.path, None))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._reply({"error": f"no such user, {self.headers.get('Authorization')}"}, 401)
        else:
            self._reply({"name": "me", "type": "user"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rows = [json.loads(line) for line in body.splitlines() if line.strip()]
        self.server.seen.append((self.path, rows))
        address = f"http://127.0.0.1:{self.server.server_port}/me/mine"
        if self.path.endswith("/repos/create"):
            self._reply({"url": address, "id": "me/mine"})
        elif "/preupload/" in self.path:
            names = [one["path"] for one in rows[0]["files"]]
            files = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self._reply({"files": files})
        elif "/commit/" in self.path and not self.server.broken:
            self._reply({"success": True, "commitOid": "0" * 40, "commitUrl": f"{address}/0"})
        else:
            self._reply({"error": f"the disk of the hub is full; you sent {TOKEN}"}, 500)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen, server.broken = [], False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()


@pytest.fixture
def ship(trained, tmp_path, hub, monkeypatch):
    """``ship("--push", ...)`` in a process of its own."""

    def call(*words: str, token: str = TOKEN, typed: str = "") -> subprocess.CompletedProcess:
        environment = {
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        command = [sys.executable, "-m", "seva_exp.ship", str(trained), "--adapter"]
        command += ["--out", str(tmp_path / "out"), *words]
        return subprocess.run(command, capture_output=True, text=True, input=typed, timeout=200)

    return call


def test_all_files_go_into_a_private_repository(ship, hub, tmp_path):
    done = ship("--push", "me/mine", "--yes")
    assert done.returncode == 0, done.stderr
    assert "uploaded: http://127.0.0.1" in done.stdout
    created = next(rows for path, rows in hub.seen if path.endswith("/repos/create"))
    assert created[0]["private"] is True
    commit = next(rows for path, rows in hub.seen if "/commit/" in path)
    sent = {one["value"]["path"]: one["value"] for one in commit if one["key"] == "file"}
    local = {one.name: one.read_bytes() for one in (tmp_path / "out").iterdir()}
    assert sent.keys() == local.keys()
    same = {name: base64.b64decode(sent[name]["content"]) == local[name] for name in local}
    assert all(same.values()), same
    assert TOKEN not in done.stdout + done.stderr


def test_an_upload_that_fails_keeps_the_folder(ship, hub, tmp_path):
    hub.broken = True
    done = ship("--push", "me/mine", "--yes")
    assert done.returncode == 1
    assert "not uploaded" in done.stderr and f"hf upload me/mine {tmp_path / 'out'}" in done.stderr
    assert (tmp_path / "out" / "README.md").is_file()
    assert TOKEN not in done.stdout + done.stderr


def test_without_a_login_nothing_is_made(ship, hub, tmp_path):
    done = ship("--push", "me/mine", "--yes", token="hf_" + "wrong" * 7)
    assert done.returncode == 2 and "who you are" in done.stderr
    assert "hf_" not in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()
    assert [path for path, _ in hub.seen] == ["/api/whoami-v2"]
