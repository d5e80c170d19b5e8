"""An upload to a server that speaks the hub's protocol: asked for, private, all files, no token
in what is said."""

from __future__ import annotations

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from seva_exp.ship.__main__ import main

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
        elif self.path.endswith("/validate-yaml"):
            card = rows[0]["content"].split("---\n")[1]
            self._reply({"errors": [] if "license: " in card else ["no licence"], "warnings": []})
        elif "/preupload/" in self.path:
            names = [one["path"] for one in rows[0]["files"]]
            files = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self._reply({"files": files})
        elif "/commit/" in self.path and not self.server.broken:
            self._reply(
                {"success": True, "commitOid": "0" * 40, "commitUrl": f"{address}/commit/0"}
            )
        else:
            self._reply({"error": f"no rights; you sent {TOKEN}"}, 403)

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
def ship(trained, tmp_path, hub, monkeypatch, capsys):
    """``ship("--push", ...)`` gives the exit code, and all that is said."""

    def call(*words: str, token: str = TOKEN) -> tuple[int, str]:
        address = f"http://127.0.0.1:{hub.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", token)
        code = main([str(trained), "--adapter", "--out", str(tmp_path / "out"), *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def test_all_files_go_into_a_private_repository(ship, hub, tmp_path):
    code, said = ship("--push", "me/mine", "--yes")
    assert code == 0, said
    assert "uploaded: http://127.0.0.1" in said
    created = next(rows for path, rows in hub.seen if path.endswith("/repos/create"))
    assert created[0].get("visibility") == "private" or created[0].get("private") is True
    commit = next(rows for path, rows in hub.seen if "/commit/" in path)
    sent = {one["value"]["path"]: one["value"] for one in commit if one["key"] == "file"}
    local = {one.name: one.read_bytes() for one in (tmp_path / "out").iterdir()}
    assert sent.keys() == local.keys()
    same = {name: base64.b64decode(sent[name]["content"]) == local[name] for name in local}
    assert all(same.values()), same
    assert TOKEN not in said


def test_an_upload_that_fails_keeps_the_folder(ship, hub, tmp_path):
    hub.broken = True
    code, said = ship("--push", "me/mine", "--yes")
    assert code == 1
    assert "not uploaded" in said and f"hf upload me/mine {tmp_path / 'out'}" in said
    assert (tmp_path / "out" / "README.md").is_file()
    assert TOKEN not in said


def test_without_a_login_nothing_is_made(ship, hub, tmp_path):
    code, said = ship("--push", "me/mine", "--yes", token="hf_" + "wrong" * 7)
    assert code == 2 and "who you are" in said
    assert "hf_" not in said
    assert not (tmp_path / "out").exists()
    assert [path for path, _ in hub.seen] == ["/api/whoami-v2"]


@pytest.mark.parametrize("word", ["", "n", "y"])
def test_a_person_is_asked(ship, hub, tmp_path, monkeypatch, word):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    asked = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or word)
    code, said = ship("--push", "me/mine")
    assert code == 0 and (tmp_path / "out" / "README.md").is_file()
    assert "MB to https://huggingface.co/me/mine (private)? [y/N]" in asked[0]
    sent = any("/commit/" in path for path, _ in hub.seen)
    assert sent == (word == "y") == ("uploaded: " in said)
