"""The thread that looks every other second who listens, has the new ones asked, and tells what was found and what is gone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from tokenwatt import procfs
from tokenwatt.servers.discovery.asking import Askers, Inquiry, Outcome
from tokenwatt.servers.discovery.candidates import Candidates
from tokenwatt.servers.discovery.configured import Configured
from tokenwatt.servers.discovery.due import LONGEST_PAUSE_NS, Due, beside_it, is_young, since_boot_ns
from tokenwatt.servers.discovery.fronts import part_of
from tokenwatt.servers.discovery.known import Known, passes_on, tells_for
from tokenwatt.servers.discovery.listeners import Listeners, Listening, Place
from tokenwatt.servers.discovery.names import Names
from tokenwatt.servers.discovery.notices import Notices, not_read, set_aside
from tokenwatt.servers.discovery.reach import Way
from tokenwatt.servers.discovery.repetition import REPEATING
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import Listener, ServerReading

PERIOD_NS: Final = 2 * 10**9
FIRST_PAUSE_NS: Final = 5 * 10**9
NAMES_LIMIT_NS: Final = 3 * 10**9
"""How long the names in the settings may take to be resolved before anybody is asked."""

_STOP_LIMIT_S: Final = 0.9

_log = logging.getLogger("tokenwatt.servers")


class Discovery:
    """Finds inference servers on this host until it is stopped.

    All functions are called from its one thread, and must not take long:

    - ``found`` with a server that is there now, its engine recognised. A server that comes back has the name it had.
    - ``gone`` with the name of one whose process or socket is not there any more, or that is not to be counted any more.
    - ``notice`` with a key and a text for people, once per change; with None when it does not hold any more.
    - ``taken``: names that others have now (servers whose tokens are pushed), and which are not given.
    - ``reported``: urls of servers that report their tokens themselves: that they cannot be metered need not be told.
    - ``gpu_pids``: the processes that hold a GPU, as NVML tells them.
    """

    def __init__(
        self,
        *,
        configured: Sequence[ServerTarget],
        found: Callable[[ServerTarget], None],
        gone: Callable[[str], None],
        notice: Callable[[str, str | None], None],
        gpu_pids: Callable[[], Collection[int]],
        taken: Callable[[], Collection[str]] = tuple,
        reported: Callable[[], Collection[str]] = tuple,
        root: Path = procfs.PROC,
    ) -> None:
        self._found, self._gone, self._gpu_pids, self._reported = found, gone, gpu_pids, reported
        self._configured = Configured(configured)
        self._names = Names((target.name for target in configured), taken)
        self._candidates = Candidates(root)
        self._listeners = Listeners(root)
        self._due = Due(self._candidates, self._listeners, self._configured, root)
        self._known: dict[Place, Known] = {}
        self._listening: list[Listening] = []
        self._notices = Notices(notice)
        self._outcomes: SimpleQueue[Outcome | None] = SimpleQueue()
        self._askers = Askers(self._outcomes.put)
        self._stopping = threading.Event()
        self._begun_ns = 0
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)

    def start(self) -> None:
        """Look at once, and then every two seconds."""
        self._thread.start()

    def stop(self) -> None:
        """End it within a second. Nothing is told any more. Safe to call twice, and unstarted."""
        self._stopping.set()
        self._outcomes.put(None)
        self._askers.stop()
        if self._thread.ident is not None:
            self._thread.join(_STOP_LIMIT_S)

    def _run(self) -> None:
        self._begun_ns = due_ns = time.monotonic_ns()
        while not self._stopping.is_set():
            try:
                self._look()
            except Exception:  # a mistake of ours; the servers known go on being read
                _log.exception("Could not look for servers")
            due_ns = max(due_ns + PERIOD_NS, time.monotonic_ns() + PERIOD_NS // 2)
            self._take_outcomes(due_ns)

    def _take_outcomes(self, until_ns: int) -> None:
        while not self._stopping.is_set() and (left_ns := until_ns - time.monotonic_ns()) > 0:
            try:
                outcome = self._outcomes.get(timeout=left_ns / 1e9)
            except Empty:
                return
            if outcome is not None and not self._stopping.is_set():
                try:
                    self._take(outcome)
                except Exception:
                    _log.exception("What process %d answered was lost", outcome.inquiry.process.pid)

    # --- who is there --------------------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """One scan."""
        self._askers.abort_slow()
        candidates = self._candidates.scan(self._gpu_pids())
        settled = {place.process.pid for place, known in self._known.items() if known.settles_its_process}
        now_ns = since_boot_ns()
        young = [pid for pid, c in candidates.items() if pid not in settled and is_young(c, now_ns)]
        listening = self._listeners.scan(candidates, young)
        if listening != self._listening:
            self._update(listening)
            self._listening = listening
        self._notices.metered_otherwise(self._reported())
        self._notices.tell_hidden([candidates[pid] for pid in self._listeners.hidden()], {place.process.pid for place in self._known})
        if self._configured.resolve() or time.monotonic_ns() - self._begun_ns > NAMES_LIMIT_NS:
            for inquiry in self._due.inquiries(self._known):
                self._askers.submit(inquiry)

    def _update(self, listening: list[Listening]) -> None:
        by_place: dict[Place, dict[int, Listening]] = {}
        for each in listening:
            by_place.setdefault(each.place, {})[each.socket.inode] = each
        gone = self._known.keys() - by_place.keys()
        for place in gone:
            self._lose(place, self._known.pop(place))
        for place, sockets in by_place.items():
            candidate = next(iter(sockets.values())).candidate
            known = self._known.setdefault(place, Known(candidate))
            known.candidate = candidate
            if not sockets.keys() <= known.listening.keys():
                known.next_ns = known.tries = 0
            if gone and known.spared:
                known.next_ns = 0
            known.listening = sockets
            if known.name is not None and known.inode not in sockets:
                self._lose(place, known)

    def _lose(self, place: Place, known: Known) -> None:
        """Its listener is away, or it is not to be counted any more."""
        self._notices.tell(place, None)
        if known.name is not None:
            self._names.release(known.name)
            self._gone(known.name)
        known.name = known.part = None
        known.in_doubt = False
        for each in self._ports(place.process).values():
            if each.repeats == place.port:
                each.repeats = None
                each.next_ns = each.tries = 0

    def _ports(self, process: Listener) -> dict[int, Known]:
        return {place.port: known for place, known in self._known.items() if place.process == process}

    # --- what they say -------------------------------------------------------------------------------------------------------------------

    def _take(self, outcome: Outcome) -> None:
        questions = outcome.inquiry.questions
        for i, question in enumerate(questions):
            if (known := self._known.get(question.listening.place)) is not None:  # else it is gone meanwhile
                known.being_asked = False
                if i < outcome.asked:
                    known.tries += 1
                    known.next_ns = time.monotonic_ns() + min(FIRST_PAUSE_NS << min(known.tries - 1, 16), LONGEST_PAUSE_NS)
        if outcome.reading is not None and outcome.listening is not None and outcome.way is not None:
            known = self._known.get(outcome.listening.place)
            if known is not None and outcome.listening.socket.inode in known.listening:
                self._take_server(known, outcome.reading, outcome.listening, outcome.way, outcome)
        else:
            self._tell_not_read(outcome)

    def _tell_not_read(self, outcome: Outcome) -> None:
        place = outcome.inquiry.questions[0].listening.place
        known = self._known.get(place)
        if known is None or known.name is not None:
            return
        is_server = any(each.name is not None for each in self._ports(place.process).values())
        if outcome.not_metered is not None or not is_server:
            url = outcome.way.url if outcome.not_metered is not None and outcome.way is not None else None
            self._notices.tell(place, not_read(outcome, known.candidate, known.tries), url=url)

    def _take_server(self, known: Known, reading: ServerReading, listening: Listening, way: Way, outcome: Outcome) -> None:
        if known.aside:
            return
        place = listening.place
        ports = {port: each for port, each in self._ports(place.process).items() if each is not known}
        beside = beside_it(place.process, reading.engine, ports)
        if beside and reading.engine in REPEATING:
            self._set_repeated(place, known, beside[0][0].port)
            return
        if beside and outcome.inquiry.beside != beside:
            self._compare(known, outcome, beside)
            return
        if outcome.repeats is not None and not outcome.nothing_counted:
            self._set_repeated(place, known, outcome.repeats.port)
            return
        known.in_doubt = outcome.repeats is not None
        if known.name is None:
            known.engine, known.way, known.inode = reading.engine, way, listening.socket.inode
            known.part = part_of(known.candidate.process, reading)
            self._add(place, known)

    def _compare(self, known: Known, outcome: Outcome, beside: tuple[tuple[Place, Way], ...]) -> None:
        """Ask it again, with the servers that its process is on other ports: it may be one of them."""
        known.being_asked = True
        questions = tuple(q for q in outcome.inquiry.questions if q.listening is outcome.listening)
        self._askers.submit(Inquiry(outcome.inquiry.process, questions, 0, again=False, beside=beside))

    def _set_repeated(self, place: Place, known: Known, port: int) -> None:
        """For as long as both listen."""
        if known.name is not None:
            self._lose(place, known)
        known.repeats = port
        self._notices.tell(place, None)

    def _add(self, place: Place, known: Known) -> None:
        assert known.way is not None
        others = {other: each for other, each in self._known.items() if each.name is not None}
        if (worker := next((each for each in others.values() if passes_on(known, each)), None)) is not None:
            self._set_aside(place, known, worker.name or "")
            return
        if any(tells_for(each, known) for each in others.values()):
            known.aside = True
            return
        known.name = self._names.take(known.engine, place.port, known.candidate.process.words)
        for port in self._ports(place.process):
            self._notices.tell(place._replace(port=port), None)
        self._found(ServerTarget(name=known.name, url=known.way.url, engine=known.engine, namespace=known.way.namespace))
        for other, each in others.items():
            if passes_on(each, known):
                self._lose(other, each)
                self._set_aside(other, each, known.name)
            elif tells_for(known, each):
                self._lose(other, each)
                each.aside = True

    def _set_aside(self, place: Place, known: Known, worker: str) -> None:
        """For as long as it listens: what it counted meanwhile, its workers counted too."""
        known.aside = True
        self._notices.tell(place, set_aside(known.candidate, worker))
