"""All servers that are asked, as they come and go."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Final, Literal

from tokenwatt.servers.polling.poller import STOP_LIMIT_S, Deliver, Poller
from tokenwatt.servers.polling.rounds import Round, seats
from tokenwatt.servers.target import ServerTarget

_ROUND_STOP_LIMIT_S: Final = 0.4


class Pollers:
    """All servers' readings and failures, handed to ``deliver``, from several threads at once; it must not take long over them.

    Servers may come and go at any time, by the word of any thread.
    """

    def __init__(self, *, period_ns: int, deliver: Deliver) -> None:
        self._period_ns = period_ns
        self._deliver = deliver
        self._changing = threading.Lock()
        self._rounds: list[Round] = []
        self._pollers: dict[str, tuple[Poller, Round]] = {}
        self._leaving: list[Poller] = []
        self._state: Literal["new", "started", "stopped"] = "new"

    def add(self, target: ServerTarget) -> None:
        """Ask this server too: at once, if all were started. After ``stop`` it is not asked any more.

        Raises:
            ValueError: its url or engine is none, or there is one of its name.
        """
        with self._changing:
            if self._state == "stopped":
                return
            if target.name in self._pollers:
                raise ValueError(f"there are two servers of the name {target.name}")
            shared = self._round_with_a_seat()
            poller = Poller(target, period_ns=self._period_ns, deliver=self._deliver, shared=shared)
            self._pollers[target.name] = poller, shared
            if self._state == "started":
                poller.start()

    def remove(self, name: str) -> None:
        """Ask this server no more. Once this returns, nothing of it is delivered. It waits for no server. Unknown names are none's."""
        with self._changing:
            poller, _ = self._pollers.pop(name, (None, None))
            if poller is not None:
                poller.leave()
                self._leaving = [p for p in (*self._leaving, poller) if p.runs()]

    def start(self) -> None:
        """Ask each server at once, and then every period."""
        with self._changing:
            self._state = "started"
            for each in self._rounds:
                each.start()
            for poller, _ in self._pollers.values():
                poller.start()

    def stop(self) -> None:
        """End all within a second, also while servers let us wait. Nothing is delivered any more. Safe to call twice, and unstarted."""
        end_s = time.monotonic() + STOP_LIMIT_S
        with self._changing:
            self._state = "stopped"
            pollers = [*(poller for poller, _ in self._pollers.values()), *self._leaving]
            for poller in pollers:
                poller.stop_delivering()
            # The rounds first: a poller that ends closes its connection, and a round must not be reading from it.
            for each in self._rounds:
                each.stop(_ROUND_STOP_LIMIT_S)
            for poller in pollers:
                poller.abort()
            for poller in pollers:
                poller.join(max(0.0, end_s - time.monotonic()))

    def _round_with_a_seat(self) -> Round:
        taken = Counter(id(shared) for _, shared in self._pollers.values())
        for each in self._rounds:
            if taken[id(each)] < seats(self._period_ns):
                return each
        self._rounds.append(Round(self._period_ns))
        if self._state == "started":
            self._rounds[-1].start()
        return self._rounds[-1]
