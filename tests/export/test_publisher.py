"""The slot: the last snapshot, its age, and subscribers that are never queued for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.export.snapshots import SECOND_NS, node
from tokenwatt.export.publisher import Publisher, Subscription, TooManySubscribers


def test_fresh_until_it_is_older_than_ten_seconds() -> None:
    publisher = Publisher()
    assert publisher.current is None
    assert publisher.fresh(0) is None
    snapshot = node(0, 0, t_ns=5 * SECOND_NS)
    publisher.publish(snapshot)
    assert publisher.current is snapshot
    assert publisher.fresh(15 * SECOND_NS) is snapshot
    assert publisher.fresh(15 * SECOND_NS + 1) is None
    assert publisher.current is snapshot


def test_a_subscriber_gets_each_snapshot_of_a_writer_thread() -> None:
    publisher = Publisher()
    sent = [node(0, 0, t_ns=i) for i in range(200)]
    given = threading.Semaphore(0)

    def write() -> None:
        for snapshot in sent:
            publisher.publish(snapshot)
            assert given.acquire(timeout=10)

    async def read() -> list[int]:
        subscription, got = publisher.changes(), []
        writer = threading.Thread(target=write)
        writer.start()
        async for snapshot in subscription:
            got.append(snapshot.t_ns)
            if len(got) == len(sent):
                subscription.close()
            given.release()
        writer.join()
        return got

    assert asyncio.run(asyncio.wait_for(read(), 20)) == [s.t_ns for s in sent]


def test_a_slow_subscriber_goes_on_with_the_newest() -> None:
    async def run() -> None:
        publisher = Publisher()
        subscription = publisher.changes()
        for t_ns in range(3):
            publisher.publish(node(0, 0, t_ns=t_ns))
        assert (await anext(subscription)).t_ns == 2
        assert await _nothing_comes(subscription)
        publisher.publish(node(0, 0, t_ns=3))
        assert (await anext(subscription)).t_ns == 3

    asyncio.run(run())


def test_a_cancelled_wait_loses_nothing() -> None:
    async def run() -> None:
        publisher = Publisher()
        subscription = publisher.changes()
        assert await _nothing_comes(subscription)
        publisher.publish(node(0, 0, t_ns=1))
        assert (await anext(subscription)).t_ns == 1

    asyncio.run(run())


def test_places_are_bounded_and_given_back() -> None:
    async def run() -> None:
        publisher = Publisher(max_subscribers=2)
        first, second = publisher.changes(), publisher.changes()
        with pytest.raises(TooManySubscribers, match="All 2 streams"):
            publisher.changes()
        first.close()
        first.close()
        third = publisher.changes()
        publisher.close_subscriptions()
        for ended in (first, second, third):
            assert [s async for s in ended] == []
        publisher.changes().close()

    asyncio.run(run())


def test_a_subscriber_whose_loop_is_gone_does_not_hold_the_writer_up() -> None:
    publisher = Publisher()

    async def leave_open() -> Subscription:
        return publisher.changes()

    left = asyncio.run(leave_open())
    snapshot = node(0, 0)
    publisher.publish(snapshot)
    assert publisher.current is snapshot
    left.close()


async def _nothing_comes(subscription: Subscription) -> bool:
    try:
        async with asyncio.timeout(0.02):
            await anext(subscription)
    except TimeoutError:
        return True
    return False
