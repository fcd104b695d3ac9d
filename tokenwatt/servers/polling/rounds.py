"""One thread that asks many servers in passing, one after the other."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final, Protocol

QUICK_LIMIT_NS: Final = 50_000_000
"""What one server may hold the others of its round up."""


def seats(period_ns: int) -> int:
    """How many servers a round can take, so that it ends within ``period_ns`` also when all of them let it wait at once."""
    return max(1, period_ns // QUICK_LIMIT_NS)


class Guest(Protocol):
    """One server in a round."""

    def ask_quickly(self) -> bool:
        """Ask it, in ``QUICK_LIMIT_NS`` at most. False: that did not do, and it leaves the round."""

    def take_back(self) -> None:
        """The round lets go of it, and will not touch it any more."""


class Round:
    """Asks its guests at each multiple of the period.

    Eight servers asked in a row take half the CPU time of eight threads, each of which is woken twice and finds the caches cold.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._joining: deque[Guest] = deque()
        self._guests: list[Guest] = []
        self._called = threading.Event()
        """Somebody joins, or all ends: an empty round sleeps until then."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="servers", daemon=True)

    def join(self, guest: Guest) -> None:
        """Ask ``guest`` from the next round on. May be called from any thread."""
        self._joining.append(guest)
        self._called.set()

    def start(self) -> None:
        """Begin with the next multiple of the period."""
        self._thread.start()

    def stop(self, limit_s: float) -> None:
        """End after the server that is being asked, which takes no longer than ``QUICK_LIMIT_NS``. Safe to call twice, and unstarted."""
        self._stopping.set()
        self._called.set()
        if self._thread.ident is not None:
            self._thread.join(limit_s)

    def _run(self) -> None:
        while not self._stopping.wait(self._until_next_s()):
            if not self._guests:
                self._called.wait()
            self._called.clear()
            while self._joining:
                self._guests.append(self._joining.popleft())
            self._guests = [guest for guest in self._guests if self._stays(guest)]

    def _stays(self, guest: Guest) -> bool:
        if self._stopping.is_set() or guest.ask_quickly():
            return True
        guest.take_back()
        return False

    def _until_next_s(self) -> float:
        """Points of the grid that passed meanwhile are left out, not made up for in a bunch."""
        return (self._period_ns - time.monotonic_ns() % self._period_ns) / 1e9
