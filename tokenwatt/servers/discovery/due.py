"""Whom to ask now: the ports whose time has come, and which of them may be asked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tokenwatt import procfs
from tokenwatt.servers.discovery.asking import Inquiry, Question
from tokenwatt.servers.discovery.candidates import Candidate, Candidates
from tokenwatt.servers.discovery.configured import Configured
from tokenwatt.servers.discovery.known import Known
from tokenwatt.servers.discovery.listeners import Listeners, Listening, Place
from tokenwatt.servers.discovery.order import ephemeral_ports, in_order
from tokenwatt.servers.discovery.reach import Way, served, ways_here, ways_there
from tokenwatt.types import Listener

LONGEST_PAUSE_NS: Final = 300 * 10**9
YOUNG_NS: Final = 1800 * 10**9
"""As long as a process is younger, it may still load its model: who is no server yet is asked again."""

_TICKS_NS: Final = 10**9 // os.sysconf("SC_CLK_TCK")


class Due:
    """Makes inquiries of what is known."""

    def __init__(self, candidates: Candidates, listeners: Listeners, configured: Configured, root: Path = procfs.PROC) -> None:
        self._candidates, self._listeners, self._configured, self._root = candidates, listeners, configured, root
        self._ephemeral = ephemeral_ports()
        self._addresses: dict[int, tuple[procfs.Address, ...]] = {}

    def inquiries(self, known: Mapping[Place, Known]) -> Iterator[Inquiry]:
        """Of the ports that may be asked. Those that need not be are put off."""
        now_ns = time.monotonic_ns()
        due = {place.process for place, each in known.items() if each.may_be_asked(now_ns)}
        if not due:
            return
        self._addresses.clear()
        by_process: dict[Listener, dict[int, Known]] = {}
        for place, each in known.items():
            by_process.setdefault(place.process, {})[place.port] = each
        of_settings = self._of_settings(known.values())
        for process in sorted(due, key=lambda p: p.start_ticks):
            yield from self._of_process(process, by_process[process], of_settings, now_ns)

    def _of_process(self, process: Listener, ports: Mapping[int, Known], of_settings: set[int], now_ns: int) -> Iterator[Inquiry]:
        serves = (candidate := next(iter(ports.values())).candidate).program.standing == "serves"
        if serves and any(each.settles_its_process or each.being_asked for each in ports.values()):
            return
        due = {port: each for port, each in ports.items() if each.may_be_asked(now_ns)}
        questions = []
        if not of_settings or not of_settings & set(procfs.ancestors(process.pid, root=self._root)):
            questions = list(self._questions(candidate, ports, due))
        for question in questions:
            due.pop(question.listening.socket.port).being_asked = True
        for spared in due.values():
            spared.spared, spared.next_ns = True, now_ns + LONGEST_PAUSE_NS
        # One that is known to serve is one server: it is asked port by port until that is found.
        for together in [questions] if serves and questions else [[each] for each in questions]:
            yield _inquiry(process, together, ports)

    def _questions(self, candidate: Candidate, ports: Mapping[int, Known], due: Mapping[int, Known]) -> Iterator[Question]:
        """What to ask, in order."""
        sockets = [listening for each in ports.values() for listening in each.listening.values()]
        young = is_young(candidate, since_boot_ns())
        for each in in_order(sockets, self._ephemeral, lambda: self._candidates.may_be_rank(candidate)):
            known = due.get(each.socket.port)
            if known is not None and (young or known.tries == 0 or known.in_doubt) and (ways := self._ways(each)):
                known.spared = False
                yield Question(each, ways)

    def _ways(self, each: Listening) -> tuple[Way, ...]:
        """None for the servers that the settings name."""
        here, own = self._own_addresses(each)
        if self._covers(each, own, here=here):
            return ()
        others = self._listeners.sockets(each.candidate.namespace)
        if here:
            return ways_here(each.socket, others, own)
        return ways_there(each.socket, others, own, self._root / str(each.candidate.process.pid) / "ns" / "net")

    def _of_settings(self, known: Iterable[Known]) -> set[int]:
        """The processes behind servers that the settings name: their other ports, and the servers that they start, are parts of them.

        Where that is no program known to serve, it may start servers that have nothing to do with its own.
        """
        if not self._configured:
            return set()
        sockets = (s for each in known if each.candidate.program.standing == "serves" for s in each.listening.values())
        return {each.holder.listener.pid for each in sockets if self._is_of_settings(each)}

    def _is_of_settings(self, each: Listening) -> bool:
        here, own = self._own_addresses(each)
        return self._covers(each, own, here=here)

    def _covers(self, each: Listening, own: Iterable[procfs.Address], *, here: bool) -> bool:
        return self._configured.covers(served(each.socket, own, here=here), each.socket.port, self._candidates.forwarders())

    def _own_addresses(self, each: Listening) -> tuple[bool, tuple[procfs.Address, ...]]:
        """Whether it is in our namespace, and the addresses of the one that it is in."""
        number = each.candidate.namespace
        here = number == self._listeners.here
        if number not in self._addresses:
            net = self._root / "net" if here else self._root / str(each.candidate.process.pid) / "net"
            self._addresses[number] = procfs.local_addresses(net=net)
        return here, self._addresses[number]


def _inquiry(process: Listener, questions: list[Question], ports: Mapping[int, Known]) -> Inquiry:
    asked = [ports[each.listening.socket.port] for each in questions]
    again = all(each.tries > 0 for each in asked)
    first = asked[0].candidate
    rank = (not (first.holds_gpu or first.program.standing == "serves")) + 2 * again
    # Where it is a server already that it is still to be told from, that is compared again.
    beside = beside_it(process, asked[0].engine, ports) if asked[0].in_doubt else ()
    return Inquiry(process, tuple(questions), rank, again, beside)


def beside_it(process: Listener, engine: str, ports: Mapping[int, Known]) -> tuple[tuple[Place, Way], ...]:
    """The servers of an engine that a process is, none that is in doubt itself."""
    return tuple(
        (Place(process, port), each.way)
        for port, each in ports.items()
        if each.name is not None and each.way is not None and each.engine == engine and not each.in_doubt
    )


def since_boot_ns() -> int:
    """Now, on the clock that the starts of processes are told by."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def is_young(candidate: Candidate, now_ns: int) -> bool:
    """Whether a process may still load its model. ``now_ns`` since boot."""
    return now_ns - candidate.process.start_ticks * _TICKS_NS < YOUNG_NS
