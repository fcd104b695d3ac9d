"""Asks one server at a steady rhythm, in a thread of its own."""

from __future__ import annotations

import logging
import random
import threading
import time
import zlib
from collections.abc import Callable
from typing import Final

from tokenwatt.servers.scrape import Scraper
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import ServerFailure, ServerReading

BACKOFF_LIMIT_NS: Final = 5 * 10**9
"""After failures a server is asked at least this often (by the contract), unless its period is longer."""

_STOP_LIMIT_S: Final = 0.9

_log = logging.getLogger("tokenwatt.servers")


class Poller:
    """One server's readings and failures, handed to ``deliver`` in the poller's own thread, which must not take long over them.

    Raises:
        ValueError: the target's url or engine is none.
    """

    def __init__(self, target: ServerTarget, *, period_ns: int, deliver: Callable[[ServerReading | ServerFailure], None]) -> None:
        self._name = target.name
        self._period_ns = period_ns
        # One after the other in a small part of the period: all at once they would wait for each other, and far apart each would find
        # the processor's caches cold, which takes twice the time.
        self._phase_ns = zlib.crc32(target.name.encode()) * (period_ns // 20) >> 32
        self._deliver = deliver
        self._scraper = Scraper(target)
        self._failures = 0
        self._state: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"server-{target.name}", daemon=True)

    def start(self) -> None:
        """Ask at once, and then every period."""
        self._thread.start()

    def stop(self) -> None:
        """End it within a second, also while the server lets us wait. Nothing is delivered any more. Safe to call twice, and unstarted."""
        self._stopping.set()
        self._scraper.abort()
        if self._thread.ident is not None:
            self._thread.join(_STOP_LIMIT_S)

    def _run(self) -> None:
        due_ns = time.monotonic_ns()
        while not self._stopping.wait(max(0, due_ns - time.monotonic_ns()) / 1e9):
            started_ns = time.monotonic_ns()
            result = self._ask()
            if self._stopping.is_set():  # then it is the stop that failed
                break
            self._failures = self._failures + 1 if isinstance(result, ServerFailure) else 0
            self._log_change(result)
            self._hand_over(result)
            due_ns = self._next_due(started_ns)
        self._scraper.close()

    def _next_due(self, started_ns: int) -> int:
        """The next point of the grid; after failures a random instant, later with each one, so that servers do not come back in step."""
        if self._failures == 0:
            now_ns = time.monotonic_ns()
            return now_ns + self._period_ns - (now_ns - self._phase_ns) % self._period_ns
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

    def _hand_over(self, result: ServerReading | ServerFailure) -> None:
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
