"""Generation tokens of running requests, counted before the server's counter has them."""

from __future__ import annotations

from collections.abc import Mapping

from tokenwatt.accounting.folding import Tokens

NONE: Mapping[str, int] = {}


class InFlight:
    """Per model, how far what was published is ahead of the counter.

    Published is the counter and what runs, and it never falls: a request that ends moves from the one to the other, and the two are not
    read at the same instant. Once nothing runs and the counter has it all, published is the counter.
    """

    def __init__(self) -> None:
        self._ahead: dict[str, int] = {}

    def begin(self, in_flight: Mapping[str, int] | None) -> None:
        """The baseline: what runs now was made before, though the counter will have it only later."""
        self._ahead = dict(in_flight or NONE)

    def lost(self) -> None:
        """The counter began anew, and will never have what ran. It was made all the same: it stays counted."""
        self._ahead.clear()

    def rise(self, counted: int, model: str, in_flight: Mapping[str, int]) -> int:
        """What is to be published of a model whose counter rose by ``counted``, and what of it is ahead of the counter now."""
        ahead = self._ahead.get(model, 0)
        rose = max(counted + in_flight.get(model, 0) - ahead, 0)
        self._ahead[model] = ahead + rose - counted
        if not self._ahead[model]:
            del self._ahead[model]
        return rose

    def refine(self, tokens: Tokens, in_flight: Mapping[str, int] | None) -> Tokens:
        """The same tokens with those in flight. ``in_flight`` None: not known at this reading."""
        running = in_flight or NONE
        if not running and not self._ahead:
            return tokens
        refined: Tokens = {of: count for of, count in tokens.items() if of[1] != "generation"}
        counted = {model: count for (model, kind), count in tokens.items() if kind == "generation"}
        for model in dict.fromkeys((*counted, *running, *self._ahead)):
            if rose := self.rise(counted.get(model, 0), model, running):
                refined[model, "generation"] = rose
        return refined
