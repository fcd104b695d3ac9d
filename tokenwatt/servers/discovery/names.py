"""What servers that were found are called: ``ENGINE-PORT``, with -2, -3 ... where that is taken."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import count
from typing import Final

_REMEMBERED_MAX: Final = 1000


class Names:
    """Gives names, and takes them back. Names of the settings are never given, nor those that ``taken`` tells at that moment.

    A server that is gone leaves its name to the next of its engine and port: that is how one that was restarted, also in another container,
    goes on with its books. Of several that are gone, to the one with the same command line.
    """

    def __init__(self, configured: Iterable[str], taken: Callable[[], Collection[str]] = tuple) -> None:
        self._configured = frozenset(configured)
        self._taken = taken
        self._present: set[str] = set()
        self._last: dict[str, tuple[str, ...]] = {}

    def take(self, engine: str, port: int, words: tuple[str, ...]) -> str:
        """A name for a server that is there now. ``words``: its command line."""
        base = f"{engine}-{port}"
        unfree = self._configured | self._present | set(self._taken())
        free: list[str] = []
        for i in count(1):
            name = base if i == 1 else f"{base}-{i}"
            if name in unfree:
                continue
            free.append(name)
            if name not in self._last:  # nobody had this one, nor those after it
                break
        name = next((n for n in free if self._last.get(n) == words), free[0])
        self._present.add(name)
        self._last.pop(name, None)
        self._last[name] = words
        if len(self._last) > _REMEMBERED_MAX:
            oldest = next(n for n in self._last if n not in self._present or n == name)
            del self._last[oldest]
        return name

    def release(self, name: str) -> None:
        """Its server is gone."""
        self._present.discard(name)
