"""What the metering proxy adds: time and CPU, a real ``tokenwatt proxy`` process against the same connection without it.

Direct and proxied requests take turns, over connections that stay open, so that both meet the same weather. The upstream answers at once.
"""

from __future__ import annotations

import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.bench.cost import cpu_s

Row = tuple[str, float, str, str]

REQUESTS = 1500
PIECES = 3000
EVENTS = 20_000
MEGABYTES = 200

EVENT = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1790000000,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
)
LAST = b'data: {"model":"tiny","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}\n\ndata: [DONE]\n\n'
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Server:
    """Answers by path. /short: a small stream. /steps: an event for each byte the client sends. /events, /block: as fast as can be."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while head := sock.recv(65536):
                kind = head.split(b" ", 2)[1].split(b"?")[1]
                if kind == b"short":
                    sock.sendall(SSE + chunk(EVENT) + chunk(LAST) + END)
                elif kind == b"steps":
                    sock.sendall(SSE)
                    while sock.recv(1) == b"+":
                        sock.sendall(chunk(EVENT))
                    sock.sendall(chunk(LAST) + END)
                elif kind == b"events":
                    sock.sendall(SSE)
                    for _ in range(EVENTS):
                        sock.sendall(chunk(EVENT))
                        time.sleep(0)  # one event, one segment, as from a server that generates
                    sock.sendall(chunk(LAST) + END)
                elif kind == b"block":
                    block = chunk(b" " * 1_000_000)
                    sock.sendall(SSE)
                    for _ in range(MEGABYTES):
                        sock.sendall(block)
                    sock.sendall(END)


class Client:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, kind: str, *, more: bool = False) -> None:
        length = 10**6 if more else 0
        self.sock.sendall(f"POST /v1/chat/completions?{kind} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())

    def first_byte_us(self) -> float:
        """From the request to the answer's first byte."""
        start = time.perf_counter_ns()
        self.ask("short")
        data = self.sock.recv(65536)
        spent = time.perf_counter_ns() - start
        while not data.endswith(END):
            data += self.sock.recv(65536)
        return spent / 1000

    def step_us(self) -> float:
        """A byte there and an event back: a stream's piece, and half as much again."""
        start = time.perf_counter_ns()
        self.sock.sendall(b"+")
        size = len(chunk(EVENT))
        while size:
            size -= len(self.sock.recv(size))
        return (time.perf_counter_ns() - start) / 1000

    def drain(self) -> None:
        tail = b""
        while not tail.endswith(END):
            tail = (tail + self.sock.recv(262_144))[-16:]


def interleaved(direct: Callable[[], float], proxied: Callable[[], float], times: int) -> tuple[list[float], list[float]]:
    for _ in range(50):
        direct(), proxied()
    pairs = [(direct(), proxied()) for _ in range(times)]
    return sorted(a for a, _ in pairs), sorted(b for _, b in pairs)


def latencies(name: str, direct: list[float], proxied: list[float]) -> list[Row]:
    rows: list[Row] = []
    for what, at in (("median", 0.5), ("p99", 0.99)):
        a, b = direct[int(at * len(direct))], proxied[int(at * len(proxied))]
        rows.append((f"{name}, {what}, direct", a, "us", ""))
        rows.append((f"{name}, {what}, added by the proxy", b - a, "us", "less than 1000"))
    return rows


def spent_on(pid: int, client: Client, kind: str) -> float:
    """CPU seconds of a process that one request takes."""
    before = cpu_s(pid)
    client.ask(kind)
    client.drain()
    return cpu_s(pid) - before


def measure() -> list[Row]:
    """Rows of (name, value, unit, goal)."""
    server = Server()
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        command = [sys.executable, "-m", "tokenwatt", "proxy", "--upstream", f"http://127.0.0.1:{server.port}", "--listen", "127.0.0.1:0"]
        with log.open("w") as out:
            proxy = subprocess.Popen([*command, "--report-to", "http://127.0.0.1:9"], stdout=out, stderr=out)
        try:
            while (found := re.search(r"http://127\.0\.0\.1:(\d+): point", log.read_text())) is None:
                time.sleep(0.05)
            return _measure(proxy.pid, Client(server.port), Client(int(found[1])))
        finally:
            proxy.terminate()
            proxy.wait(20)
            server.close()


def _measure(pid: int, direct: Client, proxied: Client) -> list[Row]:
    rows = latencies("time to the first byte", *interleaved(direct.first_byte_us, proxied.first_byte_us, REQUESTS))
    for client in (direct, proxied):
        client.ask("steps", more=True)
        client.sock.recv(len(SSE), socket.MSG_WAITALL)
    rows += latencies("a piece of a stream, there and back", *interleaved(direct.step_us, proxied.step_us, PIECES))
    for client in (direct, proxied):
        client.sock.sendall(b".")
        client.drain()
    port = proxied.sock.getpeername()[1]
    fast = Client(port)  # on the other one a request is not at its end
    events = statistics.median(spent_on(pid, fast, "events") for _ in range(3))
    blocks = statistics.median(spent_on(pid, fast, "block") for _ in range(3))
    return [
        *rows,
        ("CPU for 1000 events of a stream, one at a time", events / EVENTS * 1e6, "ms", ""),
        ("CPU for each MB of an answer", blocks / MEGABYTES * 1e3, "ms", ""),
    ]


if __name__ == "__main__":
    for name, value, unit, goal in measure():
        print(f"{name:60} {value:12,.2f} {unit:6} {goal}")
