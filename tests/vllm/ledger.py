"""Books of what a poller reads of a real server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from tests.vllm.server import Tokens
from tokenwatt.servers.polling.poller import Poller
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import Kind, SeriesKind, ServerFailure, ServerReading

_KINDS: Final[Mapping[SeriesKind, Kind]] = {
    "prompt": "prompt_computed",
    "prompt_computed": "prompt_computed",
    "prompt_cached": "prompt_cached",
    "generation": "generation",
}


class Ledger:
    """Tokens since the first reading, by kind, through restarts: each series by itself, from zero where it is new or began anew."""

    def __init__(self) -> None:
        self.tokens: Tokens = Counter()
        self.readings: list[ServerReading] = []
        self.failures: list[ServerFailure] = []
        self._changed = threading.Condition()

    def __call__(self, result: ServerReading | ServerFailure) -> None:
        with self._changed:
            if isinstance(result, ServerFailure):
                self.failures.append(result)
            else:
                self._book(result)
                self.readings.append(result)
            self._changed.notify_all()

    def wait(self, condition: Callable[[], bool], timeout_s: float = 30) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def agrees(self, usage: Tokens) -> None:
        """The books come to the usage, and stay there."""
        self.wait(lambda: +self.tokens == +usage)
        seen = len(self.readings)
        assert self.wait(lambda: len(self.readings) >= seen + 3)
        assert +self.tokens == +usage

    def _book(self, reading: ServerReading) -> None:
        if not self.readings:
            return
        before = self.readings[-1]
        last = before.counters if before.process_start == reading.process_start else {}
        for key, value in reading.counters.items():
            rose = value - last.get(key, 0)
            self.tokens[_KINDS[key.kind]] += rose
            if key.kind == "prompt_cached" and _holds_cached(reading):
                self.tokens["prompt_computed"] -= rose


def _holds_cached(reading: ServerReading) -> bool:
    """Whether its prompt tokens are all of them, those from the cache too."""
    return any(key.kind == "prompt" for key in reading.counters)


@contextmanager
def followed(url: str) -> Iterator[Ledger]:
    """Books of a server from now on, read five times a second."""
    book = Ledger()
    poller = Poller(ServerTarget("tiny", url), period_ns=200_000_000, deliver=book)
    poller.start()
    try:
        assert book.wait(lambda: bool(book.readings)), book.failures
        yield book
    finally:
        poller.stop()
