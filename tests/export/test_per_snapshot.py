"""One render a snapshot and key, off the event loop, shared by all who ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

from tests.export.snapshots import node
from tokenwatt.export.per_snapshot import PerSnapshot


class Renders:
    """A render that waits for leave, and counts."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.leave = threading.Event()

    def __call__(self) -> bytes:
        self.threads.append(threading.current_thread())
        assert self.leave.wait(10)
        return b"page %d" % len(self.threads)


def _run(test: Callable[[PerSnapshot, Renders], Awaitable[None]]) -> None:
    async def run() -> None:
        per_snapshot, renders = PerSnapshot(), Renders()
        try:
            await test(per_snapshot, renders)
        finally:
            renders.leave.set()
            per_snapshot.close()

    asyncio.run(run())


def test_all_who_ask_for_a_snapshot_share_one_render_in_another_thread() -> None:
    async def test(per_snapshot: PerSnapshot, renders: Renders) -> None:
        snapshot = node(0, 0)
        asked = [asyncio.create_task(per_snapshot.get(snapshot, "metrics", renders)) for _ in range(50)]
        await asyncio.sleep(0)
        renders.leave.set()
        assert set(await asyncio.gather(*asked)) == {b"page 1"}
        assert await per_snapshot.get(snapshot, "metrics", renders) == b"page 1"
        assert threading.current_thread() not in renders.threads

    _run(test)


def test_another_key_or_snapshot_is_rendered_anew() -> None:
    async def test(per_snapshot: PerSnapshot, renders: Renders) -> None:
        renders.leave.set()
        snapshot = node(0, 0)
        assert await per_snapshot.get(snapshot, "metrics", renders) == b"page 1"
        assert await per_snapshot.get(snapshot, "gpus", renders) == b"page 2"
        assert await per_snapshot.get(node(0, 0), "metrics", renders) == b"page 3"

    _run(test)


def test_a_client_that_leaves_does_not_take_the_render_away() -> None:
    async def test(per_snapshot: PerSnapshot, renders: Renders) -> None:
        snapshot = node(0, 0)
        first, second = (asyncio.create_task(per_snapshot.get(snapshot, "metrics", renders)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        renders.leave.set()
        assert await second == b"page 1"
        assert first.cancelled()

    _run(test)
