"""The page that follows runs: who may read it, and what. Nothing is written."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection
from urllib.parse import quote

import pytest

from seva_exp.core.records import ImageRef, Pair, write_jsonl
from seva_exp.core.store import Store
from seva_exp.report.pages import template
from seva_exp.runs.__main__ import main
from seva_exp.runs.events import PlannedStage
from seva_exp.watch.server import Server
from seva_exp.watch.told import curves, last_lines, thinned

from ..hostile import BIDI, TERMINAL
from ..runs.made_up import artifact, begun, done

IMAGE = ImageRef("a.png", "0")


def pairs_of(store: Store, key: str) -> None:
    """Rows in an artifact."""
    rows = [
        Pair(f"s{n}", IMAGE, "What?", f"good {n}", ("bad",), ("moco",), (), ((),)) for n in range(9)
    ]
    write_jsonl(store.path("pairs", key) / "pairs.jsonl", rows)


@pytest.fixture
def home(tmp_path):
    """A finished run, one at work, and a secret beside the folder of runs."""
    root = tmp_path / "runs"
    store = Store(root / "store").create()
    key = artifact(store, "pairs", {})
    pairs_of(store, key)
    finished = done(root, store, "my run", [("pairs", key)])
    (finished / "report.html").write_text("<title>report</title>")
    (tmp_path / "secret.txt").write_text("secret")
    (root / "config.yaml.txt").write_text("beside")
    at_work, _ = begun(root, store, "noise", [("pairs", key), ("align", "e" * 64)])
    at_work.stage_started(PlannedStage("align", "e" * 64, False))
    for step in range(3):
        at_work.logged("align", step, {"step": step, "loss": 1 - step / 4})
    with at_work.noting(_quiet)("align", 10, "step") as meter:
        meter.update(4)
        at_work._state.write()
        yield root, finished, at_work


class _Meter:
    def update(self, n: int) -> None: ...

    def describe(self, label: str) -> None: ...


def _quiet(label, total, unit):
    from contextlib import nullcontext

    return nullcontext(_Meter())


@pytest.fixture
def server(home):
    found = Server(home[0])
    thread = threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def ask(server, path: str, method: str = "GET", token: bool = True, **headers):
    """Status, headers, content. The path is sent as it is."""
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=120)
    where = f"/{server.token}/{path}" if token else path
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, where, skip_host="Host" in named)
    for name, value in named.items():
        connection.putheader(name, value)
    connection.endheaders()
    reply = connection.getresponse()
    found = reply.status, dict(reply.getheaders()), reply.read().decode()
    connection.close()
    return found


def test_it_tells_of_runs_as_they_work(server, home):
    status, headers, page = ask(server, "")
    assert status == 200 and str(home[0]) in page
    assert "://" not in page.replace("http://www.w3.org/2000/svg", ""), "it needs nothing else"
    assert "nonce-" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
    rows = json.loads(ask(server, "runs.json")[2])
    assert [(row["name"], row["state"]) for row in rows] == [
        ("noise", "running"),
        ("my run", "done"),
    ]
    assert (rows[0]["stage"], rows[0]["done"], rows[0]["total"]) == ("align", 4, 10)
    assert rows[1]["scores"][0]["text"] == "pope accuracy +3.0*"
    run = json.loads(ask(server, f"run.json?run={quote(rows[0]['id'])}")[2])
    assert [(one["name"], one["how"]) for one in run["stages"]] == [
        ("pairs", "made"), ("align", "running"),
    ]  # fmt: skip
    assert run["curves"][0]["points"] == [[0.0, 1.0], [1.0, 0.75], [2.0, 0.5]]
    assert [one["chosen"] for one in run["pairs_shown"]] == [f"good {n}" for n in range(6)]
    assert "align begins" in run["log"][-1]
    file = f"file/{quote(rows[1]['id'])}/report.html"
    status, headers, text = ask(server, file)
    assert status == 200 and "report" in text and "sandbox" in headers["Content-Security-Policy"]
    status, headers, text = ask(server, file, "HEAD")
    assert (status, headers["Content-Length"], text) == (200, "21", "")


TRICKS = [
    "../secret.txt", "../../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt",
    "file/../secret.txt", "file/{run}/../../secret.txt", "file/{run}/..%2f..%2f..%2fsecret.txt",
    "file/%2e%2e/secret.txt", "file/{run}/%2e%2e%2fconfig.yaml", "file//etc/passwd",
    "file/%2fetc/passwd", "file/{run}%2f../report.html", "file/./config.yaml.txt",
    "file/../config.yaml", "file/{run}/secret.txt", "file/{run}/overrides.txt", "file/{run}/",
    "file/{run}/error.txt", "file/store/report.html", "file/{run}/report.html%00", "file/{run}",
    "file/%ff/report.html", "file/..%5c..%5csecret.txt/config.yaml", "runs.json/..", "store/",
    "run.json?run=..%2f..", "run.json?run=/etc", "run.json", "run.json?run=%ff",
    "run.json?run=latest", "file/latest/report.html", "//etc/passwd", "page.js",
]  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_no_path_leads_out_of_what_is_shown(server, home, trick):
    (home[1] / "error.txt").symlink_to(home[0].parent / "secret.txt")
    for run in (home[1].name, quote(home[1].name)):
        status, _, text = ask(server, trick.replace("{run}", run.replace(" ", "%20")))
        assert status == 404 and "secret" not in text and "beside" not in text


def test_a_linked_folder_is_no_run_and_a_link_for_pairs_is_not_followed(server, home, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text("secret: 1")
    (home[0] / "linked").symlink_to(other, target_is_directory=True)
    (home[1] / "pairs").unlink()
    (home[1] / "pairs").symlink_to(other, target_is_directory=True)
    row = Pair("s", IMAGE, "?", "secret", ("b",), ("v",), (), ((),))
    write_jsonl(other / "pairs.jsonl", [row])
    rows = json.loads(ask(server, "runs.json")[2])
    assert len(rows) == 2
    assert ask(server, "file/linked/config.yaml")[0] == 404
    text = ask(server, f"run.json?run={quote(rows[1]['id'])}")[2]
    assert json.loads(text)["pairs_shown"] == [] and "secret" not in text


@pytest.mark.parametrize("path", ["/", "/runs.json", "/wrong/runs.json", "/wrong/", "", "*", "x"])
def test_without_the_token_there_is_nothing(server, path):
    status, _, text = ask(server, path, token=False)
    assert status in (400, 404) and "my run" not in text
    almost = server.token[:-1] + ("A" if server.token[-1] != "A" else "B")
    assert ask(server, f"/{almost}/runs.json", token=False)[0] == 404
    assert ask(server, f"http://127.0.0.1/{server.token}/", token=False)[0] == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost@evil.example"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_other_hosts_and_sites_are_refused(server, headers):
    status, _, text = ask(server, "runs.json", **headers)
    assert status == 403 and "my run" not in text


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "localhost"])
def test_a_forwarded_port_is_ours(server, host):
    assert ask(server, "runs.json", Host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_nothing_can_be_written(server, home, method):
    before = {p: p.lstat().st_mtime_ns for p in home[0].rglob("*")}
    status, headers, _ = ask(server, "runs.json", method)
    assert status == (501 if method == "BREW" else 405)
    assert method == "BREW" or headers["Allow"] == "GET, HEAD"
    ask(server, "runs.json"), ask(server, "")
    assert {p: p.lstat().st_mtime_ns for p in home[0].rglob("*")} == before


def test_it_listens_on_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    for address in {row[4][0] for row in socket.getaddrinfo(socket.gethostname(), None)}:
        if not address.startswith("127.") and address != "::1":
            with pytest.raises(OSError):
                socket.create_connection((address, server.server_address[1]), timeout=2).close()


def test_texts_of_data_steer_nothing(server, home):
    nasty = "".join([*TERMINAL, *BIDI]) + "</script><img src=x onerror=alert(1)>"
    home[2].warned(nasty)
    rows = json.loads(ask(server, "runs.json")[2])
    run = json.loads(ask(server, f"run.json?run={quote(rows[0]['id'])}")[2])
    assert not [c for c in "".join(run["log"]) if c in "\x1b\x00\u202e\u2066"]
    script = template("watch/page.html").render(nonce="n", root="r")
    assert "innerHTML" not in script and "insertAdjacentHTML" not in script


def test_curves_of_a_file_that_grows(tmp_path):
    file = tmp_path / "metrics.jsonl"
    rows = [{"stage": "align", "step": n, "loss": n / 7, "other": "x"} for n in range(2000)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text("no json\n" + text + '{"stage": "align", "st')
    (found,) = curves(file)
    held = {"stage": "align", "step": 1, "loss": 0.7, "held_out/loss": 0.6}
    (tmp_path / "held.jsonl").write_text(json.dumps(held) + "\n")
    assert [one["name"] for one in curves(tmp_path / "held.jsonl")] == ["loss", "held_out/loss"]
    assert len(found["points"]) <= 301 and found["points"][-1] == (1999.0, 1999 / 7)
    assert thinned([(0.0, float("nan")), (1.0, 2.0), (2.0, float("inf"))]) == [(1.0, 2.0)]
    assert last_lines(tmp_path / "none") == [] and len(last_lines(file, 3)) == 3


def test_the_command_tells_its_address_and_ends_quietly(home, capsys):
    assert main(["watch", "--runs", str(home[0] / "none")]) == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["watch", "--port", port, "--runs", str(home[0])]) == 2
        assert f"--port {port}: " in capsys.readouterr().err
    assert main(["watch", "--port", "99999", "--runs", str(home[0])]) == 2
    command = [sys.executable, "-m", "seva_exp.runs", "watch", "--runs", str(home[0])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as child:
        address = child.stdout.readline()
        assert address.startswith("http://127.0.0.1:") and len(address) > 50
        child.send_signal(2)
        _, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (0, "") and os.path.exists(home[1])
