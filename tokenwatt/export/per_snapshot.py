"""What is made of a snapshot is made once, off the event loop, however many ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor

from tokenwatt.snapshot import Snapshot


class PerSnapshot:
    """A cache of what was rendered of the last snapshot asked for. Only for one event loop; ``close`` ends its thread."""

    def __init__(self) -> None:
        # One thread: renders would only compete for the interpreter, and each more keeps its own malloc arena.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenwatt-render")
        self._snapshot: Snapshot | None = None
        self._renders: dict[Hashable, asyncio.Future[bytes]] = {}

    async def get(self, snapshot: Snapshot, key: Hashable, render: Callable[[], bytes]) -> bytes:
        """``render()``, called at most once for this snapshot and key. Who asks while it runs waits for the same one."""
        if snapshot is not self._snapshot:
            self._snapshot, self._renders = snapshot, {}
        if key not in self._renders:
            self._renders[key] = asyncio.get_running_loop().run_in_executor(self._executor, render)
        # A client that leaves must not take the render away from the others.
        return await asyncio.shield(self._renders[key])

    def close(self) -> None:
        """Wait for what is being rendered, and end the thread."""
        self._executor.shutdown()
