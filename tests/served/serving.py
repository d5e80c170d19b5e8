"""Servers for tests, all on the loopback: ``transformers serve`` of the embedded model, and one
that misbehaves as it is told, alone or in front of another."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from seva_exp.models import TinyModel

STARTING = 600
"""Seconds that the real server may take to start."""


@contextmanager
def transformers_serve(log) -> Iterator[tuple[str, str]]:
    """(url, the model's name) of a real server of the embedded model, in float32."""
    name = TinyModel().location()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "from transformers.cli.transformers import main; main()"
    words = ["serve", name, "--host", "127.0.0.1", "--port", str(port)]
    words += ["--device", "cpu", "--dtype", "float32"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-c", start, *words], stdout=file, stderr=file, env=environment
        )
    try:
        deadline = time.monotonic() + STARTING
        while not _healthy(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", name
    finally:
        server.kill()
        server.wait()


def _healthy(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


Fault = Callable[["Handler"], bool]
"""Does something to a question; True: it has been dealt with."""


class Misbehaving(ThreadingHTTPServer):
    """An endpoint that answers each question with a text of its own (a hash of what was asked), or
    with ``upstream``'s reply. ``faults``: number of the question, in the order of arrival -> what
    happens to it; ``always``: to every other one. ``asked`` holds the questions' hashes."""

    daemon_threads = True

    def __init__(self, faults=None, upstream=None, models=("served",)):
        self.faults: dict[int, Fault] = faults or {}
        self.always: Fault | None = None
        self.upstream = upstream
        self.models = models
        self.asked: list[str] = []
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.times: list[float] = []
        self.sent = 0
        self.listing: Fault | None = None
        self.under_way, self.most_under_way = 0, 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """A client that is gone is no error here."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.headers.append(dict(self.headers))
        if self.server.listing and self.server.listing(self):
            return
        listed = {"object": "list", "data": [{"id": name} for name in self.server.models]}
        self.send(200, listed)

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.name = hashlib.sha256(content).hexdigest()[:12]
        server = self.server
        with server.lock:
            number = len(server.asked)
            server.asked.append(self.name)
            server.bodies.append(json.loads(content))
            server.headers.append(dict(self.headers))
            server.times.append(time.monotonic())
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            fault = server.faults.get(number) or server.always
            if not (fault and fault(self)):
                self.answer(content)
        finally:
            with server.lock:
                server.under_way -= 1

    def answer(self, content):
        if self.server.upstream:
            status, reply = asked_upstream(self.server.upstream, self.path, content)
        else:
            status, reply = 200, completion(f"{self.name}")
        self.send(status, reply)

    def send(self, status, reply, **headers):
        content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def completion(text, reason="stop"):
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}


def asked_upstream(url, path, content):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("POST", path, content, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


# --- what may happen to a question


def status(code, said="try later", **headers) -> Fault:
    def fault(handler):
        handler.send(code, {"error": {"message": said}}, **headers)
        return True

    return fault


def reply(content) -> Fault:
    def fault(handler):
        handler.send(200, content)
        return True

    return fault


def dropped(handler):
    """The connection ends without a word."""
    handler.close_connection = True
    with suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)
    return True


def cut(handler):
    """The connection ends in the middle of the reply."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    return dropped(handler)


def slow(seconds) -> Fault:
    """The reply comes, but late."""

    def fault(handler):
        time.sleep(seconds)
        return False

    return fault


def dripping(handler):
    """The reply comes byte by byte, for 15 seconds; no wait for one of them is long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    with suppress(OSError):
        for _ in range(75):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.2)
    return dropped(handler)
