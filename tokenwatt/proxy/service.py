"""The proxy as a whole: listen, connect each client to the upstream, report, and end in good order."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import ssl
from collections.abc import Callable
from typing import Final

from tokenwatt import listening
from tokenwatt.proxy.addresses import endpoint
from tokenwatt.proxy.aside import Aside, Copies
from tokenwatt.proxy.errors import why
from tokenwatt.proxy.observer import Observer
from tokenwatt.proxy.reporter import Reporter
from tokenwatt.proxy.tunnel import ClientEnd, UpstreamEnd
from tokenwatt.settings.addresses import split_address

log = logging.getLogger("tokenwatt.proxy")

CONNECT_S: Final = 10.0
DRAIN_S: Final = 10.0
LAST_REPORT_S: Final = 5.0
_BACKLOG: Final = 1024
_LOOK_S: Final = 0.05


class Proxy:
    """One listening address, one upstream. ``run`` in an event loop; ``stop`` ends it."""

    def __init__(self, upstream_url: str, reporter: Reporter, *, drain_s: float = DRAIN_S) -> None:
        self._url = upstream_url
        self._upstream = endpoint(upstream_url)
        self._tls = ssl.create_default_context() if self._upstream.tls else None
        self._reporter = reporter
        self._drain_s = drain_s
        self._aside = Aside()
        self._clients: set[ClientEnd] = set()
        self._stop = asyncio.Event()
        self._trouble: str | None = None

    def stop(self) -> None:
        """Take no more connections, let running requests finish, report, and return from ``run``."""
        self._stop.set()

    async def run(self, listen: str, on_listening: Callable[[int], None]) -> None:
        """Serve until ``stop``. ``on_listening`` is told the port.

        Raises:
            ListenError: the address is taken, forbidden or not known here.
        """
        loop = asyncio.get_running_loop()
        listener = listening.listen(*split_address(listen))
        server = await loop.create_server(self._client, sock=listener, backlog=_BACKLOG)
        reporting = loop.create_task(self._reporter.run())
        try:
            on_listening(listener.getsockname()[1])
            await self._stop.wait()
        finally:
            server.close()
            await self._drain()
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
            await self._reporter.last(LAST_REPORT_S)

    # --- connections ---------------------------------------------------------------------------------------------------------------------

    def _client(self) -> ClientEnd:
        client = ClientEnd(Copies(Observer(self._reporter), self._aside), self._connect, self._clients.discard)
        self._clients.add(client)
        return client

    def _connect(self, upstream: UpstreamEnd) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self._connected(upstream))

    async def _connected(self, upstream: UpstreamEnd) -> None:
        client = upstream.peer
        assert isinstance(client, ClientEnd)
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: upstream, self._upstream.host, self._upstream.port, ssl=self._tls, happy_eyeballs_delay=0.25
                )
        except OSError as e:  # a timeout is one
            self._say(why(e))
            client.refuse(f"tokenwatt proxy: the upstream {self._url} cannot be reached: {why(e)}")
        else:
            self._say(None)
            client.connected()

    def _say(self, trouble: str | None) -> None:
        """Log whether the upstream can be reached, where that changed."""
        if trouble != self._trouble:
            if trouble is None:
                log.info("The upstream %s can be reached again.", self._url)
            else:
                log.warning("The upstream %s cannot be reached: %s", self._url, trouble)
            self._trouble = trouble

    async def _drain(self) -> None:
        """Close what is idle, wait for the rest, and cut off what takes too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain_s
        while self._clients and loop.time() < deadline:
            for client in list(self._clients):
                if client.copies.idle:
                    client.close()
            await asyncio.sleep(_LOOK_S)
        if self._clients:
            log.warning("%d connections were cut off: they took longer than %g s to finish.", len(self._clients), self._drain_s)
            for client in list(self._clients):
                client.abort()
            await asyncio.sleep(_LOOK_S)  # both ends hear of it in the loop's next rounds


async def serve(proxy: Proxy, listen: str, on_listening: Callable[[int], None]) -> None:
    """Run a proxy until SIGTERM or SIGINT.

    Raises:
        ListenError: the address is taken, forbidden or not known here.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, proxy.stop)
    await proxy.run(listen, on_listening)


def allow_files() -> None:
    """Let this process have as many files as it may: each connection takes two, and shells allow 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
