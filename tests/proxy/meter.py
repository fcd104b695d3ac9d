"""A meter that takes reports (``POST /api/v1/tokens``) as the daemon does: each idempotency key once."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TIMEOUT_S = 20.0

Answer = tuple[int, str] | None
"""Status and body; None: hang up after reading the report."""


class Meter:
    """Keeps what it was told. ``answers`` are given first, in order; then 200."""

    def __init__(self, port: int = 0) -> None:
        self.answers: list[Answer] = []
        self.count_unanswered = False
        """Whether a report that it hangs up on is counted, as when an answer is lost on the way."""
        self.posts: list[tuple[str, dict[str, str], list[dict[str, Any]]]] = []
        self.accepted: list[dict[str, Any]] = []
        self._keys: set[str] = set()
        self._changed = threading.Condition()
        meter = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                meter._take(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = False
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        reports = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        with self._changed:
            self.posts.append((request.path, {name.lower(): value for name, value in request.headers.items()}, reports))
            answer = self.answers.pop(0) if self.answers else (200, "{}")
            if (answer is None and self.count_unanswered) or (answer is not None and answer[0] < 300):
                self._accept(reports)
            self._changed.notify_all()
        if answer is None:
            request.close_connection = True
            return
        status, body = answer
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body.encode())

    def _accept(self, reports: list[dict[str, Any]]) -> None:
        for report in reports:
            if report["idempotency_key"] not in self._keys:
                self._keys.add(report["idempotency_key"])
                self.accepted.append(report)

    def tokens(self, model: str | None = None) -> Counter[str]:
        """By kind."""
        total: Counter[str] = Counter()
        for report in self.accepted:
            if model is None or report["model"] == model:
                total[report["kind"]] += report["count"]
        return total

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), f"told only {self.accepted}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
