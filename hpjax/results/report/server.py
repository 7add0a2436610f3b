"""A report that is served while its run goes on: to this machine alone, for reading, and nothing but the report."""

import json
import math
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hpjax.core.errors import RunError
from hpjax.results.report.page import Report

# A report is read anew after so many seconds at the least, and so many times as long as reading took: several pages
# share what is read, and take little from a run that trains beside them.
LEAST_SECONDS, TIMES_AS_LONG = 1.0, 5.0


class ReportServer(ThreadingHTTPServer):
    """Serves the report of a run directory on 127.0.0.1, under an address that has a token which nobody can guess.

    Args:
      read: returns the report as the run directory has it now.
      port: of the address; 0 takes any that is free.

    Raises:
      OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, read: Callable[[], Report], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self._read_now, self._token = read, secrets.token_urlsafe(16)
        self._lock, self._stale = threading.Lock(), -math.inf
        self._report: Report | None = None

    @property
    def address(self) -> str:
        """Where the report is."""
        return f"http://{self.host}/{self._token}/"

    @property
    def host(self) -> str:
        """The host that requests must name, so that no page from elsewhere reads the report by another name."""
        return f"127.0.0.1:{self.server_port}"

    def answer(self, path: str) -> tuple[str, Callable[[], str]] | None:
        """Returns the type of what is at a path and what makes it, None where nothing is."""
        known: dict[str, tuple[str, Callable[[], str]]] = {
            f"/{self._token}/": ("text/html", self._page),
            f"/{self._token}/content.json": ("application/json", self._fresh),
        }
        # Compared in constant time, that the token cannot be found letter by letter.
        return next((made for own, made in known.items() if secrets.compare_digest(own, path)), None)

    def _page(self) -> str:
        return self.read().html(f"/{self._token}/content.json")

    def _fresh(self) -> str:
        """Returns what the page shows now, or why it cannot be read, which the page then says."""
        try:
            return self.read().json()
        except RunError as error:  # the run is just writing it, or it is damaged
            return json.dumps({"error": str(error)})

    def read(self) -> Report:
        """Returns the report, read again where it is stale."""
        with self._lock:
            begun = time.monotonic()
            if self._report is None or begun > self._stale:
                self._report = self._read_now()
                ended = time.monotonic()
                self._stale = ended + max(LEAST_SECONDS, TIMES_AS_LONG * (ended - begun))
            return self._report


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer
    server_version, sys_version = "hpjax", ""

    def do_GET(self) -> None:
        # Browsers leave out the port that is the usual one.
        hosts = {self.server.host, self.server.host.removesuffix(":80")}
        known = self.headers.get("Host") in hosts and self.path.isascii()
        own = self.server.answer(self.path) if known else None
        if own is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        kind, make = own
        try:
            body = make().encode("utf-8")
        except RunError as error:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, explain=str(error))
            return
        with suppress(ConnectionError):  # the reader closed the page
            self._answer(kind, body)

    def _answer(self, kind: str, body: bytes) -> None:
        """Sends what was asked for."""
        self.send_response(HTTPStatus.OK)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Frame-Options", "DENY"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""
