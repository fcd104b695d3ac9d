"""Which of the candidates listen, and on what."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tokenwatt import procfs
from tokenwatt.procfs import ListenSocket, PortHolder
from tokenwatt.procfs.listing import listening_here
from tokenwatt.servers.discovery.candidates import Candidate
from tokenwatt.types import Listener

_RARELY_NS: Final = 30 * 10**9
"""How often another namespace's table is read where nothing seems to have changed: that takes milliseconds."""
_SOCKETS_MAX: Final = 4096


class Place(NamedTuple):
    """A port that a process listens on: what may be a server."""

    process: Listener
    port: int


class Listening(NamedTuple):
    """A socket that listens, and the candidate it belongs to: the topmost of those that hold it."""

    socket: ListenSocket
    holder: PortHolder
    candidate: Candidate

    @property
    def place(self) -> Place:
        """The process that holds it, and its port."""
        return Place(self.holder.listener, self.socket.port)


class Listeners:
    """The listening sockets of candidates, in all their network namespaces."""

    def __init__(self, root: Path = procfs.PROC) -> None:
        self._root = root
        self.here = procfs.net_namespace(root / "net")
        """Our own namespace."""
        self._namespaces: dict[int, _Namespace] = {}

    def scan(self, candidates: Mapping[int, Candidate], unsettled: Iterable[int]) -> list[Listening]:
        """Everything that candidates listen on. ``unsettled``: the processes that may still begin to."""
        by_namespace: dict[int, dict[int, Candidate]] = {}
        for pid, candidate in candidates.items():
            by_namespace.setdefault(candidate.namespace, {})[pid] = candidate
        watched = {candidates[pid].namespace for pid in unsettled if pid in candidates}
        for gone in self._namespaces.keys() - by_namespace.keys():
            del self._namespaces[gone]
        found: list[Listening] = []
        for number, inhabitants in by_namespace.items():
            if number not in self._namespaces:
                self._namespaces[number] = _Namespace(number, self._root, ours=number == self.here)
            found += self._namespaces[number].scan(inhabitants, watched=number in watched)
        return found

    def sockets(self, namespace: int) -> Collection[ListenSocket]:
        """All that listens in a namespace, whoever it belongs to."""
        return self._namespaces[namespace].sockets.values()

    def hidden(self) -> set[int]:
        """The candidates that do not let us see what they hold, where sockets are left whose holder is not known."""
        return {pid for each in self._namespaces.values() if each.unheld() for pid in each.hidden}


class _Namespace:
    """One network namespace. A socket known by its inode is not looked up again."""

    def __init__(self, number: int, root: Path, *, ours: bool) -> None:
        self._number = number
        self._root = root
        self._by_netlink = ours and root == procfs.PROC
        self.sockets: dict[int, ListenSocket] = {}
        self.hidden: set[int] = set()
        self._found: dict[int, Listening] = {}
        self._searched: set[int] = set()
        self._searched_in: set[Listener] = set()
        self._census: tuple[int, ...] | None = None
        self._read_ns: int | None = None

    def scan(self, candidates: Mapping[int, Candidate], *, watched: bool) -> list[Listening]:
        """What its candidates listen on."""
        by_netlink = self._by_netlink
        if (sockets := self._table(candidates, watched=watched)) is not None:
            self.sockets = sockets
        self._found = {
            inode: now
            for inode, each in self._found.items()
            # The table says that the socket is there; where it was not read now, its holder does.
            if inode in self.sockets and (now := _now(each, candidates)) is not None and (by_netlink or each.holder.holds())
        }
        self._search(candidates)
        return list(self._found.values())

    def unheld(self) -> set[int]:
        """The sockets whose holder is not known."""
        return self.sockets.keys() - self._found.keys()

    def _table(self, candidates: Mapping[int, Candidate], *, watched: bool) -> dict[int, ListenSocket] | None:
        """What listens there. None: it was not read this time."""
        if self._by_netlink:
            try:
                return listening_here(self.sockets)
            except OSError:
                self._by_netlink = False
        nets = (self._root / str(pid) / "net" for pid in candidates)
        net = next((net for net in nets if procfs.net_namespace(net) == self._number), None)
        if net is None:  # all of them went just now
            return None
        now_ns = time.monotonic_ns()
        census = procfs.census(net=net) if watched else self._census
        due = self._read_ns is None or now_ns - self._read_ns >= _RARELY_NS
        if not due and census == self._census and (census is not None or not watched):
            return None
        self._census, self._read_ns = census, now_ns
        return {s.inode: s for s in procfs.listening(net=net)[:_SOCKETS_MAX]}

    def _search(self, candidates: Mapping[int, Candidate]) -> None:
        """For the holders of sockets that are new, among all; of those still without a holder, among who is new."""
        unheld = self.unheld()
        everybody = {Listener(pid, c.process.start_ticks) for pid, c in candidates.items()}
        among = everybody if unheld - self._searched else everybody - self._searched_in
        self._searched, self._searched_in = unheld, everybody
        self.hidden &= candidates.keys()
        if not unheld or not among:
            return
        links: dict[int, dict[int, str]] = {}
        for pid, _ in among:
            try:
                held = procfs.sockets_held(pid, unheld, root=self._root)
                self.hidden.discard(pid)
            except PermissionError:
                self.hidden.add(pid)
                held = {inode: "" for inode in unheld if _tells(candidates[pid], self.sockets[inode], self._root)}
            for inode, link in held.items():
                links.setdefault(inode, {})[pid] = link
        for inode, by_pid in links.items():
            if (top := procfs.topmost(set(by_pid), self._root)) is not None:
                listener, seen = Listener(top, candidates[top].process.start_ticks), by_pid[top]
                holder = PortHolder(listener, seen, f"socket:[{inode}]") if seen else PortHolder(listener, None, "")
                self._found[inode] = Listening(self.sockets[inode], holder, candidates[top])


def _now(found: Listening, candidates: Mapping[int, Candidate]) -> Listening | None:
    """The same, with its process as it is now. None: that is gone."""
    candidate = candidates.get(found.holder.listener.pid)
    if candidate is None or candidate.process.start_ticks != found.holder.listener.start_ticks:
        return None
    return found if candidate is found.candidate else found._replace(candidate=candidate)


def _tells(candidate: Candidate, socket: ListenSocket, root: Path) -> bool:
    """Whether a process that hides what it holds tells by its command line, or by its name, that a socket of its user is its own."""
    if procfs.user(candidate.process.pid, root=root) != socket.uid:
        return False
    named = procfs.names_port(candidate.process.words, socket.port)
    return named or (candidate.program.standing == "serves" and socket.port in candidate.program.ports)
