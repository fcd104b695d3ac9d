"""Asks a server once a period: those that are well in a shared thread, each of the others in a thread of its own.

A server belongs to one thread at a time, and begins with its own, which has all patience and says what is wrong. After some prompt readings
in a row it goes to the shared thread, and its own waits without waking. There it gets one short exchange over the connection that is kept
open, so that it can hold the others up only that long. An exchange that brings no reading, for whatever reason, is no failure yet: its own
thread takes the server back and asks it again at once. Whoever comes back so must be prompt for longer before it may go again, since it is
asked twice each time, until it has stayed a while.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import zlib
from collections.abc import Callable
from typing import Final

from tokenwatt.servers.polling.rounds import QUICK_LIMIT_NS, Round
from tokenwatt.servers.scrape import Scraper
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import ServerFailure, ServerReading

BACKOFF_LIMIT_NS: Final = 5 * 10**9
"""After failures a server is asked at least this often (by the contract), unless its period is longer."""

PROMPT_NS: Final = QUICK_LIMIT_NS // 2
"""An answer within this is prompt."""
FIRST_PROOF: Final = 4
LONGEST_PROOF: Final = 64
"""So many prompt readings in a row bring a server to the shared thread, at first and at most. Four times as many after each return."""

STOP_LIMIT_S: Final = 0.9

_log = logging.getLogger("tokenwatt.servers")

Deliver = Callable[[ServerReading | ServerFailure], None]


class Poller:
    """One server's readings and failures, handed to ``deliver``: by the poller's own thread, or by the one of the round it is a guest of.

    Raises:
        ValueError: the target's url or engine is none.
    """

    def __init__(self, target: ServerTarget, *, period_ns: int, deliver: Deliver, shared: Round | None = None) -> None:
        """Without ``shared`` the own thread always asks."""
        self._name = target.name
        self._period_ns = period_ns
        # Apart from each other: hundreds at once would wait for each other, and none would be prompt. In the first half of the period, so
        # that who comes from a round, at the period's begin, is not asked again in the same one.
        self._phase_ns = zlib.crc32(target.name.encode()) * (period_ns // 2) >> 32
        self._deliver = deliver
        self._shared = shared
        self._scraper = Scraper(target)
        self._failures = 0
        self._prompt = 0
        self._proof = FIRST_PROOF
        self._stayed = 0
        self._state: str | None = None
        self._back = threading.Event()
        self._stopping = threading.Event()
        self._delivering = threading.RLock()  # a receiver may remove the server that it hears of
        self._thread = threading.Thread(target=self._run, name=f"server-{target.name}", daemon=True)

    def start(self) -> None:
        """Ask at once, and then every period."""
        self._thread.start()

    def stop(self) -> None:
        """End it within a second, also while the server lets us wait. Nothing is delivered any more. Safe to call twice, and unstarted."""
        self.stop_delivering()
        self.abort()
        self.join(STOP_LIMIT_S)

    def stop_delivering(self) -> None:
        """First part of ``stop``: what is asked still is thrown away."""
        with self._delivering:
            self._stopping.set()

    def leave(self) -> None:
        """Stop without waiting. Nothing is delivered any more; what is asked still ends, and then the thread."""
        self.stop_delivering()
        # A round that has it finds out by itself, and lets go of it: until then the connection is the round's to close.
        self._scraper.abort()

    def runs(self) -> bool:
        """Whether its own thread is still there."""
        return self._thread.is_alive()

    def abort(self) -> None:
        """Second part: end every wait. A round that asks this server must have ended."""
        self._scraper.abort()
        self._back.set()

    def join(self, limit_s: float) -> None:
        """Last part: wait for the end of the own thread, which closes the connection."""
        if self._thread.ident is not None:
            self._thread.join(limit_s)

    # --- in the shared thread ------------------------------------------------------------------------------------------------------------

    def ask_quickly(self) -> bool:
        """One short exchange. Only a reading counts; what else comes of it is for the own thread to find out."""
        if self._stopping.is_set():
            return False
        try:
            reading = self._scraper.scrape_quickly(QUICK_LIMIT_NS / 1e9)
        except Exception:
            _log.exception("%s could not be asked quickly", self._name)
            reading = None
        if reading is None:
            return False
        self._stayed += 1
        self._take(reading)
        return True

    def take_back(self) -> None:
        """Wake the own thread, whose server it is again."""
        before = self._proof if self._stayed < LONGEST_PROOF else FIRST_PROOF
        self._proof = min(4 * before, LONGEST_PROOF)
        self._back.set()

    # --- in the own thread ---------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        due_ns = time.monotonic_ns()
        while not self._stopping.wait(max(0, due_ns - time.monotonic_ns()) / 1e9):
            started_ns = time.monotonic_ns()
            result = self._ask()
            prompt = isinstance(result, ServerReading) and result.duration_ns <= PROMPT_NS
            self._prompt = self._prompt + 1 if prompt else 0
            self._take(result)
            due_ns = self._next_due(started_ns)
            if self._shared is not None and self._prompt >= self._proof:
                self._lend(self._shared)
                due_ns = time.monotonic_ns()
        self._scraper.close()

    def _lend(self, shared: Round) -> None:
        """Until the server is back, or all ends."""
        self._prompt = self._stayed = 0
        shared.join(self)
        self._back.wait()
        self._back.clear()

    def _next_due(self, started_ns: int) -> int:
        """The next point of the grid; after failures a random instant, later with each one, so that servers do not come back in step."""
        if self._failures == 0:
            # Not right after it was asked out of turn: at the start, and back from a round.
            soonest_ns = max(time.monotonic_ns(), started_ns + self._period_ns // 2)
            return soonest_ns + (self._phase_ns - soonest_ns) % self._period_ns
        limit_ns = max(BACKOFF_LIMIT_NS, self._period_ns)
        longest_ns = min(limit_ns, self._period_ns << min(self._failures, 16))
        return started_ns + random.randint(self._period_ns, longest_ns)

    def _ask(self) -> ServerReading | ServerFailure:
        try:
            return self._scraper.scrape()
        except Exception:  # a mistake of ours; a thread that ended would look like a server that is fine
            _log.exception("%s could not be asked", self._name)
            self._scraper.close()
            return ServerFailure(self._name, time.monotonic_ns(), "a mistake of tokenwatt, see its log")

    # --- in the one that asked -----------------------------------------------------------------------------------------------------------

    def _take(self, result: ServerReading | ServerFailure) -> None:
        with self._delivering:
            if self._stopping.is_set():  # then it is the stop that failed
                return
            self._failures = self._failures + 1 if isinstance(result, ServerFailure) else 0
            self._log_change(result)
            try:
                self._deliver(result)
            except Exception:  # the next one may be taken again
                _log.exception("%s: a reading was lost", self._name)

    def _log_change(self, result: ServerReading | ServerFailure) -> None:
        if isinstance(result, ServerFailure):
            level, state = logging.WARNING, f"is down: {result.reason}"
        else:
            level, state = logging.INFO, f"is up: {result.engine} {result.version}"
        if state != self._state:
            self._state = state
            _log.log(level, "%s %s", self._name, state)
