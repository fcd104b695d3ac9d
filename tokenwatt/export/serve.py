"""The HTTP server: one listening socket, one event loop, in the thread that calls ``run``."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from tokenwatt.listening import listen

_SEND_BUFFER_BYTES: Final = 65_536

_GRACE_S: Final = 1
"""How long an answer may still be sent when the server stops."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

class HttpServer:
    """Serves an app. It listens from the moment it is made, and answers while ``run`` runs.

    Raises:
        ListenError: the address is taken, forbidden or not known here.
    """

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        self._socket = listen(host, port)
        # Connections inherit it. The kernel would else keep megabytes of old events for a subscriber that does not read.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._server = _Server(app)

    @property
    def port(self) -> int:
        """The port it listens on, also where 0 was asked for."""
        port: int = self._socket.getsockname()[1]
        return port

    def run(self) -> None:
        """Answer until ``stop``, SIGINT or SIGTERM (these two only in the main thread). Open streams end at once, the rest within 2 s."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def close(self) -> None:
        """Listen no more, where ``run`` was never called."""
        self._socket.close()

    def stop(self) -> None:
        """Make ``run`` return. From any thread."""
        self._server.stop()


def serve(app: FastAPI, host: str, port: int, *, on_listening: Callable[[int], None] | None = None) -> None:
    """Serve ``app`` until SIGINT or SIGTERM. ``on_listening`` is told the port, before the first answer.

    Raises:
        ListenError: the address is taken, forbidden or not known here.
    """
    server = HttpServer(app, host, port)
    if on_listening is not None:
        on_listening(server.port)
    server.run()


class _Server(uvicorn.Server):
    """uvicorn, made for a daemon: it sleeps when nothing happens, ends streams when it stops, and leaves the exit status to its caller."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http="h11",
                ws="none",
                interface="asgi3",
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                # Longer than any usual scrape interval, so that a scraper keeps its connection.
                timeout_keep_alive=75,
                timeout_graceful_shutdown=2 * _GRACE_S,
                limit_concurrency=512,
            )
        )
        self._publisher = app.state.publisher
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exit = asyncio.Event()

    async def main_loop(self) -> None:
        """Wait for the end. uvicorn's own loop wakes ten times a second, for a Date header that nobody here needs."""
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            await self._exit.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams first, uvicorn would wait for them; and cut off who does not take the rest of an answer."""
        self._publisher.close_subscriptions()
        cut_off = asyncio.get_running_loop().call_later(_GRACE_S, self._cut_off)
        await super().shutdown(sockets)
        cut_off.cancel()

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    def stop(self) -> None:
        """Leave the main loop. From any thread, and from a signal handler."""
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._exit.set)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The second signal does not wait for open requests."""
        self.force_exit = self.should_exit
        self.stop()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but without raising the signal once more at the end: that would kill the process before its store is closed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in _SIGNALS}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
