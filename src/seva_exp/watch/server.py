"""The server behind the page: on this machine alone, behind a token, to be read alone.

It answers GET and HEAD of a page, of two JSON texts, and of some files that lie in a run's folder;
a run is one of those in the list, by equality, so that no path is ever made of an address.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import webbrowser
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from seva_exp.core.errors import InputError
from seva_exp.report.pages import template
from seva_exp.watch.told import FILES, Told, is_plain

LOOPBACK = "127.0.0.1"
HOSTS = {LOOPBACK, "localhost"}
"""Names that a browser may have called us by: under any other it was led here by another's page
(DNS rebinding). Ports differ where one is forwarded (ssh -L)."""
LAST_PORT = 65535
PATIENCE = 30.0
"""Seconds for a request to arrive."""
KINDS = {".html": "text/html", ".json": "application/json"}
GENERAL = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
OWN_PAGE = (
    "default-src 'none'; script-src 'nonce-{}'; style-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
OTHER = (
    "sandbox allow-scripts allow-popups; default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
"""Of a run's page: it shows what models and data say, and may not speak to us."""


class Server(ThreadingHTTPServer):
    """Serves the runs below ``root`` on a port of this machine (0: a free one)."""

    daemon_threads = True

    def __init__(self, root: Path, port: int = 0) -> None:
        self.told = Told(root.resolve())
        self.token = secrets.token_urlsafe(24)
        super().__init__((LOOPBACK, port), Handler)

    @property
    def address(self) -> str:
        """Of the page, with the token."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone, or asks nonsense, is no news."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = PATIENCE
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "seva_exp", ""

    def do_GET(self) -> None:
        if not self._is_ours():
            return self._refuse(HTTPStatus.FORBIDDEN, "This address is not for you.")
        path, query = self._asked()
        if path is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")
        try:
            self._answer(path, query)
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND, "It is gone.")
        except InputError as error:
            self._refuse(HTTPStatus.NOT_FOUND, str(error))

    do_HEAD = do_GET

    def _no_write(self) -> None:
        self.close_connection = True  # what it brings is not read
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "This page is to be read.")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _no_write

    def _is_ours(self) -> bool:
        """Whether the browser called us by a name of this machine, from no other site's page."""
        hosts = self.headers.get_all("Host") or []
        origin = self.headers.get("Origin")
        site = self.headers.get("Sec-Fetch-Site", "none")
        called = len(hosts) == 1 and re.sub(r":\d+$", "", hosts[0]) in HOSTS
        at_home = origin is None or urlsplit(origin).hostname in HOSTS
        return called and at_home and site in ("none", "same-origin")

    def _asked(self) -> tuple[list[str] | None, dict[str, list[str]]]:
        """The parts of the address behind the token, each decoded once; None without the token."""
        try:
            parts = urlsplit(self.path)
            if parts.netloc or not parts.path.startswith("/"):
                return None, {}
            token, slash, rest = parts.path[1:].partition("/")
            if not slash or not hmac.compare_digest(token.encode(), self.server.token.encode()):
                return None, {}
            path = [unquote(part, errors="strict") for part in rest.split("/")]
            return path, parse_qs(parts.query, max_num_fields=4, errors="strict")
        except ValueError:  # no address, or bytes that are no text
            return None, {}

    def _answer(self, path: list[str], query: dict[str, list[str]]) -> None:
        match path:
            case [""]:
                nonce = secrets.token_urlsafe(16)
                page = template("watch/page.html").render(nonce=nonce, root=self.server.told.root)
                self._send(page.encode(), "text/html", OWN_PAGE.format(nonce))
            case ["runs.json"]:
                self._json(self.server.told.runs())
            case ["run.json"]:
                found = self.server.told.run(query.get("run", [""])[0])
                if found is None:
                    return self._refuse(HTTPStatus.NOT_FOUND, "There is no such run.")
                self._json(found)
            case ["file", id, name] if name in FILES:
                self._file(id, name)
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _file(self, id: str, name: str) -> None:
        folder = self.server.told.folder(id)
        if folder is None or not is_plain(folder / name):
            return self._refuse(HTTPStatus.NOT_FOUND, "There is no such file.")
        handle = os.open(folder / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with open(handle, "rb") as file:
            self._send(file.read(), KINDS.get(Path(name).suffix, "text/plain"), OTHER)

    def _json(self, value: Any) -> None:
        text = json.dumps(value, allow_nan=False)
        self._send(text.encode(), "application/json", OTHER)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(f"{why}\n".encode(), "text/plain", OTHER, status)

    def _send(
        self, content: bytes, kind: str, policy: str, status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", policy)
        for name, value in GENERAL.items():
            self.send_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said of a request: its address holds the token."""


def serve(root: Path, port: int = 0, open_it: bool = False) -> int:
    """Until Ctrl-C. Raises InputError for a folder that is not there, and a port that is taken."""
    if not root.is_dir():
        raise InputError(f"--runs {root}: no such folder. Give the folder of the runs' folders.")
    if port > LAST_PORT:
        raise InputError(f"--port {port}: ports go up to {LAST_PORT}. Give another, or none.")
    try:
        server = Server(root, port)
    except OSError as error:
        raise InputError(f"--port {port}: {error.strerror}. Give another, or none.") from None
    try:
        print(f"{server.address}\nOn this machine only; Ctrl-C ends it.", flush=True)
        if open_it:
            webbrowser.open(server.address)
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    return 0
