"""The one slot between the single writer and the views.

The writer thread puts each snapshot in; HTTP handlers, on the event loop, take the last one out. Nothing is copied and nothing is queued: a
snapshot is immutable, and a view that was slow goes on with the newest.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Final

from tokenwatt.snapshot import Snapshot

MAX_AGE_NS: Final = 10_000_000_000
"""A snapshot older than this is not served: a dead writer must not look like an idle node."""

MAX_SUBSCRIBERS: Final = 100
"""A client that stopped reading keeps up to a socket buffer and one event, together about 150 KiB: this many keep below 16 MiB."""


class TooManySubscribers(Exception):
    """Every place is taken. Said in one sentence for people."""


class Subscription:
    """Snapshots as they come: an async iterator that gives the newest one it has not given yet, at first the current one.

    It lives on the event loop that made it, and is used only there. A cancelled ``anext`` loses nothing.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._changed = asyncio.Event()
        self._given: Snapshot | None = None
        self._ended = False

    def wake(self) -> None:
        """There may be a new snapshot."""
        self._changed.set()

    def close(self) -> None:
        """End the iteration, and give the place back. Safe to call twice."""
        self._ended = True
        self._changed.set()
        self._publisher.forget(self)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Snapshot:
        while not self._ended:
            # Cleared before the look: a snapshot that comes after the look sets it again.
            self._changed.clear()
            snapshot = self._publisher.current
            if snapshot is not None and snapshot is not self._given:
                self._given = snapshot
                return snapshot
            await self._changed.wait()
        raise StopAsyncIteration


class Publisher:
    """Holds the last snapshot.

    ``publish`` is for the one writer thread, ``current`` and ``fresh`` are for any thread, the rest is for event loops.
    """

    def __init__(self, *, max_subscribers: int = MAX_SUBSCRIBERS) -> None:
        self._max_subscribers = max_subscribers
        self._current: Snapshot | None = None
        self._lock = threading.Lock()
        self._subscriptions: dict[Subscription, asyncio.AbstractEventLoop] = {}

    @property
    def current(self) -> Snapshot | None:
        """The last snapshot, however old. None: there was none yet."""
        return self._current

    def fresh(self, now_ns: int) -> Snapshot | None:
        """The last snapshot, unless it is older than 10 s. ``now_ns`` is of ``time.monotonic_ns``."""
        snapshot = self._current
        if snapshot is None or now_ns - snapshot.t_ns > MAX_AGE_NS:
            return None
        return snapshot

    def publish(self, snapshot: Snapshot) -> None:
        """Make this the last snapshot and wake who waits for one. Never blocks on a reader."""
        self._current = snapshot
        if not self._subscriptions:
            return
        with self._lock:
            loops = set(self._subscriptions.values())
        for loop in loops:
            with suppress(RuntimeError):  # a loop that was closed with subscriptions open: nobody waits there any more
                loop.call_soon_threadsafe(self._wake, loop)

    def changes(self) -> Subscription:
        """A subscription to all snapshots from the current one on, for the running event loop.

        Raises:
            TooManySubscribers: as many as are allowed are open.
        """
        subscription = Subscription(self)
        with self._lock:
            if len(self._subscriptions) >= self._max_subscribers:
                raise TooManySubscribers(f"All {self._max_subscribers} streams are taken. Try again later.")
            self._subscriptions[subscription] = asyncio.get_running_loop()
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Give a subscription's place back."""
        with self._lock:
            self._subscriptions.pop(subscription, None)

    def close_subscriptions(self) -> None:
        """End all subscriptions of the running event loop."""
        for subscription in self._of(asyncio.get_running_loop()):
            subscription.close()

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        for subscription in self._of(loop):
            subscription.wake()

    def _of(self, loop: asyncio.AbstractEventLoop) -> list[Subscription]:
        with self._lock:
            return [s for s, own in self._subscriptions.items() if own is loop]
