"""Simulated vLLM servers over HTTP: one thread with one event loop for all of them, each on its own port of 127.0.0.1.

They answer as the instant of the request has it. As with vLLM, ``/metrics`` (no slash) ignores ``name[]``, ``/metrics/`` honours it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import lru_cache
from typing import Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

from tokenwatt.demo.page import Page
from tokenwatt.demo.profiles import Profile
from tokenwatt.demo.vllm import VERSION, SimulatedVllm

Fault = Literal["refuse", "error", "hang", "garbage"]
"""Nobody listens; every answer is a 500; requests are read and not answered; the pages are no metrics."""

_GARBAGE: Final = b"<!doctype html><title>502</title>\nvllm:generation_tokens_total{ NaN\n\x00\xff"
_TEXT: Final = "text/plain; version=1.0.0; charset=utf-8"
_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}

_HEAD_LIMIT: Final = 65_536

_Answer = tuple[int, str, bytes]


@lru_cache(maxsize=16)
def _page(profile: Profile) -> Page:
    return Page(profile)


def page(server: SimulatedVllm, t_ns: int, names: Collection[str] | None = None) -> bytes:
    """The server's /metrics page at ``t_ns``; with ``names`` only the samples of these names, as ``/metrics/?name[]=`` gives them."""
    return _page(server.load.profile).render(server.at(t_ns), names)


class _Endpoint:
    """One server on one port. Everything but the constructor runs on the event loop."""

    def __init__(self, server: SimulatedVllm, clock: Callable[[], int]) -> None:
        self.server = server
        self.fault: Fault | None = None
        self._clock = clock
        self._resumed = asyncio.Event()
        self._listener: socket.socket | None = None
        self._connections: set[asyncio.Task[None]] = set()
        # Bound as long as the server exists, and never listening: it keeps the port ours while the listener is closed.
        self._claim = _bound(0)
        self.port: int = self._claim.getsockname()[1]

    async def set_fault(self, fault: Fault | None) -> None:
        self.fault = fault
        self._resumed.set()
        self._resumed = asyncio.Event()
        if fault == "refuse":
            await self._close()
        else:
            await self.listen()

    async def listen(self) -> None:
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.listen()
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def restart(self) -> None:
        await self._close()
        self.server.restart(self._clock())
        await self.set_fault(self.fault)

    async def close(self) -> None:
        await self._close()
        self._claim.close()

    async def _close(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        # By hand: asyncio's own server loses the socket of a connection that it accepts while it is being closed (seen with 3.11).
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client has left again
        connection.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(lambda _: connection.close())  # also where the task was cancelled before it began

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            received = b""
            keep = True
            while keep:
                while b"\r\n\r\n" not in received:
                    part = await loop.sock_recv(connection, _HEAD_LIMIT)
                    if not part or len(received) > _HEAD_LIMIT:
                        return
                    received += part
                head, _, received = received.partition(b"\r\n\r\n")
                while self.fault == "hang":
                    await self._resumed.wait()
                keep, answer = self._exchange(head.decode("latin-1"))
                await loop.sock_sendall(connection, answer)

    def _exchange(self, head: str) -> tuple[bool, bytes]:
        """Whether the connection goes on after this request, and its answer."""
        request, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status, content_type, body = self._answer(request.split(" "))
        # A body that we would have to read to find the next request: no client of a metrics page sends one.
        keep = headers.get("connection", "").lower() != "close" and status != 400 and headers.get("content-length", "0") == "0"
        fields = f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n" + ("" if keep else "connection: close\r\n")
        return keep, f"HTTP/1.1 {status} {_REASONS[status]}\r\nserver: simulated\r\n{fields}\r\n".encode() + body

    def _answer(self, request: list[str]) -> _Answer:
        if len(request) != 3 or not request[2].startswith("HTTP/1."):
            return 400, "text/plain", b"Invalid HTTP request received."
        if self.fault == "error":
            return 500, "text/plain", b"Internal Server Error"
        if request[0] != "GET":
            return 405, "application/json", b'{"detail":"Method Not Allowed"}'
        return self._get(request[1])

    def _get(self, target: str) -> _Answer:
        url = urlsplit(target)
        if url.path in ("/metrics", "/metrics/"):
            if self.fault == "garbage":
                return 200, _TEXT, _GARBAGE
            names = parse_qs(url.query).get("name[]") if url.path.endswith("/") else None
            return 200, _TEXT, page(self.server, self._clock(), names)
        if url.path == "/health":
            return 200, "text/plain", b""
        found = {"/version": self._version, "/v1/models": self._models}.get(url.path)
        if found is None:
            return 404, "application/json", b'{"detail":"Not Found"}'
        return 200, "application/json", json.dumps(found()).encode()

    def _version(self) -> dict[str, Any]:
        return {"version": VERSION}

    def _models(self) -> dict[str, Any]:
        created = int(self.server.at(self._clock()).start_wall_s)
        model = {"id": self.server.model, "object": "model", "created": created, "owned_by": "vllm", "root": self.server.model}
        return {"object": "list", "data": [{**model, "max_model_len": 8192}]}


def _bound(port: int) -> socket.socket:
    """A socket on 127.0.0.1. SO_REUSEPORT lets the claim and the listener share a port; only those of the same user can."""
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", port))
    s.setblocking(False)
    return s


class HttpServers:
    """All servers of a node on the network, from construction to ``stop``. Its methods may be called from any thread but its own."""

    def __init__(self, servers: Sequence[SimulatedVllm], clock: Callable[[], int]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tokenwatt-demo", daemon=True)
        self._thread.start()
        self._endpoints: dict[str, _Endpoint] = {}
        try:
            for server in servers:
                self._endpoints[server.name] = endpoint = _Endpoint(server, clock)
                self._run(endpoint.listen())
        except OSError:
            self.stop()
            raise

    def url(self, name: str) -> str:
        """Where the server is."""
        return f"http://127.0.0.1:{self._endpoints[name].port}"

    def set_fault(self, name: str, fault: Fault | None) -> None:
        """From now on the server fails in this way; None: it works. Requests that hang are answered when the fault changes."""
        self._run(self._endpoints[name].set_fault(fault))

    def restart(self, name: str) -> None:
        """End the server's connections and start a new process, whose counters begin at zero, on the same port."""
        self._run(self._endpoints[name].restart())

    def stop(self) -> None:
        """Close all ports and connections and end the thread. Safe to call twice."""
        if self._loop.is_closed():
            return
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        for endpoint in self._endpoints.values():
            await endpoint.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()
