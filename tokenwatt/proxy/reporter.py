"""Tells the meter what was used. Nothing is lost while the meter is away, and nothing counts twice."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from typing import Any, Final

from tokenwatt.proxy.post import Answer, Post
from tokenwatt.proxy.sums import Sum, Sums
from tokenwatt.proxy.tally import Tally, Unmetered
from tokenwatt.proxy.usage import Usage
from tokenwatt.types import Kind

log = logging.getLogger("tokenwatt.proxy")

EVERY_S: Final = 0.5
HEARTBEAT_S: Final = 10.0
_BACKOFF_S: Final = (0.5, 30.0)

_REFUSED_FOR_GOOD: Final = (400, 413, 422)
"""The report itself is wrong, and would be the next time. Any other refusal may be mended at the meter: then the report is still there."""


class Reporter:
    """The books of all connections (see :class:`tokenwatt.proxy.observer.Books`), and the task that empties them.

    A batch that was sent once is sent again with its keys until it is answered; what comes meanwhile waits as one sum per model and kind.
    """

    def __init__(self, post: Post, *, server: str, url: str, every_s: float = EVERY_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.tally = Tally()
        self._post = post
        self._who: dict[str, Any] = {"server": server, "url": url}
        self._every_s = every_s
        self._heartbeat_s = heartbeat_s
        self._sums = Sums()
        self._batch: bytes | None = None
        self._batch_tokens = 0
        self._running = 0
        self._changed = asyncio.Event()
        self._said: str | None = None

    # --- the books -----------------------------------------------------------------------------------------------------------------------

    def began(self) -> None:
        """A request that generates is in flight."""
        self._running += 1
        self._changed.set()

    def ended(self) -> None:
        """It is not any more."""
        self._running -= 1
        self._changed.set()

    def metered(self, usage: Usage, from_s: float, to_s: float) -> None:
        """An answer told its tokens."""
        self.tally.metered += 1
        self._sums.add(usage, from_s, to_s)
        self._changed.set()

    def missed(self, reason: Unmetered, detail: str = "") -> None:
        """Tokens are not known."""
        self.tally.miss(reason, detail)

    # --- the task ------------------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Report until cancelled. Sleeps while there is nothing to tell."""
        while True:
            await self._something_to_tell()
            await self._until_answered()
            await asyncio.sleep(self._every_s)

    async def last(self, timeout_s: float) -> None:
        """After ``run``: report what is left, once."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._batch is not None or self._sums or self._changed.is_set():
                    if self._batch is None:  # else this is one that was sent and not answered; the rest comes after it
                        self._changed.clear()
                    if self._prepare() and not await self._try():
                        break
        except TimeoutError:
            pass
        left = self._batch_tokens + self._sums.total()
        if left:
            log.error("The meter at %s did not take the last report: %d tokens are lost.", self._post.url, left)

    async def _something_to_tell(self) -> None:
        try:
            async with asyncio.timeout(self._heartbeat_s if self._running else None):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    async def _until_answered(self) -> None:
        delay_s, longest_s = _BACKOFF_S
        while self._prepare() and not await self._try():
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, longest_s)

    def _prepare(self) -> bool:
        """Have a batch. Returns whether there is one."""
        if self._batch is None and (reports := self._reports()):
            self._batch = json.dumps(reports).encode()
            self._batch_tokens = sum(report["count"] for report in reports)
        return self._batch is not None

    def _reports(self) -> list[dict[str, Any]]:
        if self._sums:
            return [self._report(*key, count=each.count, span=each.span()) for key, each in self._sums.take().items()]
        if self._sums.last_model is not None:  # a report needs a model's name, and a made-up one would stay in the meter's books
            return [self._report(self._sums.last_model, "generation", count=0, span=Sum(time.time()).span())]
        return []

    def _report(self, model: str, kind: Kind, *, count: int, span: dict[str, str]) -> dict[str, Any]:
        key = secrets.token_hex(16)
        return {**self._who, "model": model, "kind": kind, "count": count, **span, "idempotency_key": key, "running": self._running}

    async def _try(self) -> bool:
        """Send the batch. Returns whether it is settled."""
        assert self._batch is not None
        answer = await self._post(self._batch)
        settled = answer.status is not None and (200 <= answer.status < 300 or answer.status in _REFUSED_FOR_GOOD)
        self._say(answer)
        if settled:
            self._batch, self._batch_tokens = None, 0
        return settled

    def _say(self, answer: Answer) -> None:
        """Log what became of a report, where it is another thing than before."""
        if answer.status is not None and 200 <= answer.status < 300:
            if self._said is not None:
                log.info("The meter at %s takes reports again.", self._post.url)
            self._said = None
        elif answer.status in _REFUSED_FOR_GOOD:
            log.error("The meter at %s refused a report, %d tokens are lost: %s", self._post.url, self._batch_tokens, answer.text)
            self._said = answer.text
        elif answer.text != self._said:
            why = "cannot be reached" if answer.status is None else "does not take reports"
            log.warning("The meter at %s %s, tokens are kept until it does: %s", self._post.url, why, answer.text)
            self._said = answer.text
