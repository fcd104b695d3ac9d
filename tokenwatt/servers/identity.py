"""Which process answers for a server on this host, and whether it still is the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tokenwatt import procfs
from tokenwatt.servers.http.connection import Connection
from tokenwatt.servers.http.namespaces import tables_of
from tokenwatt.types import Listener

_LOOK_NS: Final = 5 * 10**9
"""How often a process is looked at while the connection to it is kept: its workers may serve on without it."""
_SEARCH_NS: Final = 60 * 10**9
"""After a search that found nobody: it looks through every process, and what hid them (rights, a namespace) rarely changes."""


class ListenerWatch:
    """Follows the process behind one server's port. For a server on another host it knows nothing, and says so."""

    def __init__(self, port: int, *, namespace: Path | None = None) -> None:
        """``namespace``: the network namespace where it listens (``/proc/PID/ns/net``), None ours."""
        self._port = port
        self._net = tables_of(namespace) if namespace else None
        self._holder: procfs.PortHolder | None = None
        self._opened = 0
        self._looked_ns = 0
        self._searched_ns: int | None = None

    def after_answer(self, connection: Connection, now_ns: int) -> Listener | None:
        """The process that gave the answer just read over ``connection``. None: on another host, or not to be seen."""
        if connection.local_address is None:
            self._forget()
            return None
        if self._another_may_answer(connection, now_ns):
            self._forget()
        if self._holder is None and (self._searched_ns is None or now_ns - self._searched_ns >= _SEARCH_NS):
            self._searched_ns = now_ns
            self._holder = procfs.port_holder(self._port, address=connection.local_address, net=self._net)
        return self._holder.listener if self._holder else None

    def exited(self) -> bool:
        """Whether the process known last is gone; a pid in use again is another process."""
        return self._holder is not None and procfs.start_ticks(self._holder.listener.pid) != self._holder.listener.start_ticks

    def after_failure(self) -> None:
        """Search anew at the next answer, if the process is gone."""
        if self.exited():
            self._forget()

    def _another_may_answer(self, connection: Connection, now_ns: int) -> bool:
        # Over a new connection, whoever listens now. Over the one kept, whoever took it, also where another listens meanwhile.
        if connection.opened != self._opened:
            self._opened, self._looked_ns = connection.opened, now_ns
            return self._holder is not None and not self._holder.holds()
        if now_ns - self._looked_ns < _LOOK_NS:
            return False
        self._looked_ns = now_ns
        return self.exited()

    def _forget(self) -> None:
        self._holder = None
        self._searched_ns = None
