"""What pollers delivered, and in which thread, to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tokenwatt.types import ServerFailure, ServerReading

Result = ServerReading | ServerFailure


class Delivered:
    """A receiver. ``threads`` has the thread's name of each of ``results``."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.threads: list[str] = []
        self._changed = threading.Condition()

    def __call__(self, result: Result) -> None:
        with self._changed:
            self.results.append(result)
            self.threads.append(threading.current_thread().name)
            self._changed.notify_all()

    def wait(self, condition: Callable[[list[Result]], bool]) -> list[Result]:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.results), 10), self.results
            return list(self.results)

    def of(self, server: str) -> list[tuple[Result, str]]:
        """One server's results, each with its thread."""
        return [(result, thread) for result, thread in zip(self.results, self.threads, strict=True) if result.server == server]

    def last_by(self, thread: str, server: str, count: int = 3) -> bool:
        """Whether the last results of ``server`` are from ``thread``."""
        return [t for _, t in self.of(server)[-count:]] == [thread] * count
