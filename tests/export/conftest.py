"""The app on a real socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import anyio
import anyio._backends._asyncio
import pytest

from tokenwatt.export.api import create_app
from tokenwatt.export.publisher import Publisher
from tokenwatt.export.serve import HttpServer

# pytest rewrites anyio's modules as they are imported (anyio has a plugin), by way of their syntax trees, and anyio imports most of them
# when they are first used: in the server's thread. CPython 3.11 cannot make syntax trees in two threads at once ("AST constructor recursion
# depth mismatch"), so all of them are imported here.
for _name in dir(anyio):
    getattr(anyio, _name)


class Served:
    """An app that answers on 127.0.0.1, with the publisher behind it."""

    def __init__(self, *, simulated: bool = False, max_subscribers: int = 100, host: str = "127.0.0.1", **push: Any) -> None:
        """``push``: what the app is to do with tokens that are pushed, as ``create_app`` has it."""
        self.publisher = Publisher(max_subscribers=max_subscribers)
        self.app = create_app(self.publisher, simulated=simulated, **push)
        self.server = HttpServer(self.app, host, 0)
        self._thread = threading.Thread(target=self.server.run)
        self._connections: list[HTTPConnection] = []
        self._sockets: list[socket.socket] = []
        self._thread.start()

    def request(
        self, path: str, method: str = "GET", *, body: Any = None, headers: Mapping[str, str] | None = None, host: str = "127.0.0.1"
    ) -> tuple[HTTPResponse, bytes]:
        """One request on a connection of its own: the answer and its whole body."""
        connection = HTTPConnection(host, self.server.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def json(self, path: str, status: int = 200) -> Any:
        """The body of an answer of this status, as JSON that holds no NaN and no infinity."""
        response, body = self.request(path)
        assert response.status == status, body
        assert response.headers["content-type"] == "application/json"
        return json.loads(body, parse_constant=_refuse)

    def open(self, path: str) -> HTTPResponse:
        """An answer whose body comes bit by bit. Closed with this."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        self._connections.append(connection)
        connection.request("GET", path)
        return connection.getresponse()

    def open_raw(self, path: str) -> socket.socket:
        """A connection that has asked, and has a small receive buffer. Closed with this."""
        client = socket.socket()
        self._sockets.append(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(("127.0.0.1", self.server.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return client

    def stop(self) -> None:
        """Stop the server, as a signal would, and wait for its end."""
        self.server.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self.stop()
        for connection in self._connections:
            connection.close()
        for client in self._sockets:
            client.close()


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture
def served() -> Iterator[Served]:
    """The app of a real node, before the first snapshot."""
    s = Served()
    yield s
    s.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    """The same for all tests of a file, each of which publishes before it asks."""
    s = Served()
    yield s
    s.close()


@pytest.fixture
def demo() -> Iterator[Served]:
    """The app of a simulated node, which takes two subscribers."""
    s = Served(simulated=True, max_subscribers=2)
    yield s
    s.close()
