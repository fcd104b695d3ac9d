"""An HTTP server over real sockets that answers what a test tells it to, byte by byte: also what no HTTP library would send."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Request(NamedTuple):
    path: str
    query: str
    headers: dict[str, str]


Reply = bytes | Iterable[bytes]
"""All of an answer as bytes, or piece by piece. The connection stays open after it, unless the last piece is ``CLOSE``."""

CLOSE = b"\0close"


def answer(body: bytes, *, status: str = "200 OK", content_type: str = TEXT, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def not_found(_: Request) -> Reply:
    return answer(b"not found", status="404 Not Found", content_type="text/plain")


class FakeServer:
    """Each path has its reply. ``requests`` has what was asked, ``connections`` how often somebody connected.

    As vLLM's, ``/metrics/`` is another path than ``/metrics``.
    """

    def __init__(self, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.paths: dict[str, Callable[[Request], Reply]] = {}
        self.requests: list[Request] = []
        self.connections = 0
        self.closing = threading.Event()
        self.address = address
        self._tls = tls
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._listener: socket.socket | None = None
        self.port = 0
        self.listen()

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def serve(self, path: str, reply: Reply | Callable[[Request], Reply]) -> None:
        self.paths[path] = reply if callable(reply) else lambda _: reply

    def asked(self, path: str) -> list[Request]:
        with self._changed:
            return [r for r in self.requests if r.path == path]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 10) -> None:
        """Until something that a request changes is so."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), "the server was not asked what it should be asked"

    # --- coming and going ----------------------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """(Again) take connections, on the same port."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self._listener = socket.create_server((self.address, self.port), family=family)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def hang_up(self) -> None:
        """Close the connections there are, as a server does with idle ones."""
        with self._changed:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Be gone: take no connections, and keep none."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.hang_up()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.refuse()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    # --- answering -----------------------------------------------------------------------------------------------------------------------

    def _start(self, target: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(sock,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with self._changed:
                    self._open.add(sock)
                    self.connections += 1
                    self._changed.notify_all()
                self._start(self._serve, sock)

    def _serve(self, plain: socket.socket) -> None:
        sock = plain
        try:
            if self._tls:
                sock = self._tls.wrap_socket(plain, server_side=True)
                with self._changed:
                    self._open.add(sock)
            for request in _requests(sock):
                with self._changed:
                    self.requests.append(request)
                    self._changed.notify_all()
                if not self._reply(sock, self.paths.get(request.path, not_found)(request)):
                    break
        except OSError:
            pass
        finally:
            with self._changed:
                self._open -= {plain, sock}
            sock.close()
            plain.close()

    def _reply(self, sock: socket.socket, reply: Reply) -> bool:
        for piece in (reply,) if isinstance(reply, bytes) else reply:
            if piece == CLOSE:
                return False
            sock.sendall(piece)
        return not self.closing.is_set()


def _requests(sock: socket.socket) -> Iterator[Request]:
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            data = sock.recv(65536)
            if not data:
                return
            buffer += data
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        path, _, query = first.split(" ")[1].partition("?")
        yield Request(path, query, {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)})


# --- what vLLM's pages look like ----------------------------------------------------------------------------------------------------


def vllm_page(*, generation: float = 100, computed: float = 40, cached: float = 8, start: float | None = 1_790_000_000.5) -> bytes:
    labels = 'engine="0",model_name="tiny"'
    lines = [
        "# TYPE vllm:num_requests_running gauge",
        f"vllm:num_requests_running{{{labels}}} 2.0",
        "# TYPE vllm:num_requests_waiting gauge",
        f"vllm:num_requests_waiting{{{labels}}} 1.0",
        "# TYPE vllm:prompt_tokens_total counter",
        f"vllm:prompt_tokens_total{{{labels}}} {computed + cached}",
        "# TYPE vllm:prompt_tokens_by_source_total counter",
        f'vllm:prompt_tokens_by_source_total{{{labels},source="local_compute"}} {computed}',
        f'vllm:prompt_tokens_by_source_total{{{labels},source="local_cache_hit"}} {cached}',
        "# TYPE vllm:generation_tokens_total counter",
        f"vllm:generation_tokens_total{{{labels}}} {generation}",
    ]
    if start is not None:
        lines += ["# TYPE process_start_time_seconds gauge", f"process_start_time_seconds {start}"]
    return "".join(line + "\n" for line in lines).encode()


NO_TOKENS = b"# TYPE python_info gauge\npython_info 1.0\n"


def be_vllm(server: FakeServer, page: bytes | Callable[[], bytes] = b"", *, filters: bool = True) -> None:
    """Answer as a vLLM: the page, filtered or whole, the version and the models."""

    def current(_: Request) -> bytes:
        return answer(page() if callable(page) else page or vllm_page())

    server.serve("/metrics", current)
    # With several API servers the filter finds nothing in any of them.
    server.serve("/metrics/", current if filters else answer(b""))
    server.serve("/version", answer(b'{"version":"0.32.0"}', content_type="application/json"))
    models = b'{"object":"list","data":[{"id":"tiny","object":"model","owned_by":"vllm"}]}'
    server.serve("/v1/models", answer(models, content_type="application/json"))
