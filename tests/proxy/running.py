"""A proxy that runs in a thread of the test."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType

from tokenwatt.proxy.post import Post
from tokenwatt.proxy.reporter import Reporter
from tokenwatt.proxy.service import Proxy


class Running:
    """Listens from the start. Reports come after ``every_s``, so that tests need not wait for half a second."""

    def __init__(
        self, upstream: str, meter: str = "http://127.0.0.1:9", *, every_s: float = 0.02, heartbeat_s: float = 10, drain_s: float = 5
    ) -> None:
        self.port = 0
        self._options = upstream, meter, every_s, heartbeat_s, drain_s
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as e:
            self._error = e
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        upstream, meter, every_s, heartbeat_s, drain_s = self._options
        self._loop = asyncio.get_running_loop()
        self.reporter = Reporter(Post(meter, None), server="ollama", url=upstream, every_s=every_s, heartbeat_s=heartbeat_s)
        self.proxy = Proxy(upstream, self.reporter, drain_s=drain_s)
        await self.proxy.run("127.0.0.1:0", self._listening)

    def _listening(self, port: int) -> None:
        self.port = port
        self._ready.set()

    @property
    def clients(self) -> int:
        """Connections that are there now."""
        return len(self.proxy._clients)

    def stop(self) -> None:
        """As SIGTERM does; returns when it has ended."""
        self._loop.call_soon_threadsafe(self.proxy.stop)
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
