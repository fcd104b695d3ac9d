"""The time a server's counter needs, and windows that are shorter."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.accounting.node import Node
from tokenwatt.accounting.resolution import Buckets, Resolution, Stretches, quantile_s
from tokenwatt.accounting.server_spec import ServerSpec
from tokenwatt.snapshot import WindowFigures
from tokenwatt.types import SeriesKey, ServerReading

SECOND = 1_000_000_000
BOUNDS = (1.0, 5.0, 10.0, 60.0, math.inf)


def buckets(*counts: int) -> Buckets:
    return tuple(zip(BOUNDS, counts, strict=True))


class Needs:
    """A resolution and its clock."""

    def __init__(self) -> None:
        self.resolution = Resolution()
        self.t_ns = 0

    def read(self, seconds: float = 1, *, moved: bool = False, update: str = "completion", **of: Any) -> float | None:
        self.t_ns += round(seconds * SECOND)
        self.resolution.read(ServerReading("s", self.t_ns, "tgi", {}, update=update, **of), moved=moved)  # type: ignore[arg-type]
        needed_ns = self.resolution.needed_ns
        return None if needed_ns is None else needed_ns / SECOND


class TestQuantile:
    @pytest.mark.parametrize(
        ("counts", "expected"),
        [
            ((0, 0, 0, 0, 0), None),
            ((100, 100, 100, 100, 100), 0.95),
            ((0, 100, 100, 100, 100), 1 + 4 * 0.95),
            ((0, 90, 100, 100, 100), 5 + 5 * 0.5),
            ((0, 0, 0, 0, 10), 60.0),
            ((0, 0, 95, 95, 100), 10.0),
        ],
    )
    def test_it_is_interpolated_as_prometheus_does(self, counts: tuple[int, ...], expected: float | None) -> None:
        assert quantile_s(buckets(*counts), 0.95) == (expected if expected is None else pytest.approx(expected))

    def test_a_histogram_without_bounds_tells_nothing(self) -> None:
        assert quantile_s(((math.inf, 5),), 0.95) is None

    @given(st.lists(st.integers(0, 20), min_size=5, max_size=5).filter(any), st.floats(0.01, 1))
    def test_it_is_within_the_bucket_that_it_falls_into(self, observed: list[int], quantile: float) -> None:
        sums = [sum(observed[: n + 1]) for n in range(5)]
        found = quantile_s(buckets(*sums), quantile)
        assert found is not None
        at = next(n for n, total in enumerate(sums) if total >= quantile * sums[-1])
        low = 0.0 if at == 0 else BOUNDS[at - 1]
        assert low <= found <= (60.0 if at == 4 else BOUNDS[at])


class TestLatency:
    def test_what_the_server_did_before_we_came_counts_until_there_is_something_newer(self) -> None:
        needs = Needs()
        assert needs.read(latency=buckets(0, 0, 0, 100, 100), running=0) == pytest.approx(57.5)
        assert needs.read(latency=buckets(0, 0, 0, 100, 100), running=0) == pytest.approx(57.5)

    def test_requests_that_grow_short_are_noticed_within_ten_minutes(self) -> None:
        needs = Needs()
        for short in range(660):
            needed = needs.read(latency=buckets(short, short, short, 500 + short, 500 + short), running=0)
        assert needed == pytest.approx(0.95, abs=0.01)

    def test_a_quiet_night_changes_nothing(self) -> None:
        needs = Needs()
        for _ in range(2000):
            needed = needs.read(latency=buckets(0, 100, 100, 100, 100), running=0)
        assert needed == pytest.approx(4.8)

    def test_a_histogram_that_began_anew(self) -> None:
        needs = Needs()
        needs.read(latency=buckets(0, 0, 0, 100, 100), running=0)
        assert needs.read(latency=buckets(0, 10, 10, 10, 10), running=0) == pytest.approx(4.8)
        other = ((0.5, 3), (math.inf, 3))
        assert needs.read(latency=other, running=0) == pytest.approx(0.475)


class TestStretches:
    def test_the_longest_time_in_which_requests_ran_and_the_counter_stood(self) -> None:
        needs = Needs()
        for _ in range(20):
            needs.read(running=0)
        assert needs.read(running=0) is None
        for _ in range(31):
            needed = needs.read(running=1)
        assert needed == 30  # while it still runs
        assert needs.read(running=0, moved=True) == 31
        for _ in range(600):
            needed = needs.read(running=1, moved=True)
        assert needed == 31
        assert needs.read(running=1, moved=True) == 1

    def test_a_quiet_night_keeps_what_was_known(self) -> None:
        needs = Needs()
        for _ in range(13):
            needs.read(running=1)
        for _ in range(3000):
            needed = needs.read(running=0)
        assert needed == 13

    def test_where_requests_cannot_be_seen_a_pause_is_forgotten(self) -> None:
        needs = Needs()
        assert [needs.read() for _ in range(50)] == [None] * 50  # nothing moved yet: nothing is known
        needs.read(moved=True)
        assert needs.read(moved=True) == 50
        for _ in range(599):
            needed = needs.read(moved=True)
        assert needed == 50
        assert needs.read(moved=True) == 1
        assert needs.read(300) == 300
        for _ in range(5):
            needed = needs.read(3600)
        assert needed is None  # a night: then windows show that nothing is made
        assert needs.read(moved=True) is None
        assert needs.read(moved=True) == 1

    @given(st.lists(st.tuples(st.integers(1, 200), st.booleans(), st.integers(0, 1)), max_size=60))
    def test_it_is_the_longest_of_all_that_ended_in_ten_minutes_and_the_present_one(self, history: list[tuple[int, bool, int]]) -> None:
        stretches, t_ns, since = Stretches(), 0, None
        ended: list[tuple[int, int]] = []
        for seconds, moved, running in history:
            t_ns += seconds * SECOND
            stretches.read(t_ns, running=running, moved=moved)
            if since is not None and (moved or not running):
                ended.append((t_ns, t_ns - since))
                since = None
            if running and since is None:
                since = t_ns
            late = [length for end, length in ended if t_ns - end <= 600 * SECOND]
            expected = max((*late, t_ns - since if since is not None else 0), default=0)
            assert (stretches.longest_ns(t_ns, running=running) or 0) == expected


class TestUpdate:
    def test_a_counter_that_moves_at_each_step_needs_no_time(self) -> None:
        needs = Needs()
        needs.read(running=1, update="step")
        assert needs.read(30, running=1, update="step") == 0

    def test_what_a_counter_needs_that_moves_no_longer_at_each_step_is_not_known_yet(self) -> None:
        needs = Needs()
        assert needs.read(running=0, update="step") == 0
        assert needs.read(running=0) is None

    def test_tokens_in_flight_refine_it_and_without_them_it_is_as_before(self) -> None:
        needs = Needs()
        needs.read(running=1)
        assert needs.read(30, running=1) == 30
        assert needs.read(running=1, update="step") == 0
        assert needs.read(running=0, moved=True) == 32


class TestWindows:
    def figures(self, node: Node) -> dict[str, WindowFigures]:
        return dict(node.server("chat").models[0].windows)

    def test_a_window_shorter_than_the_counter_needs_has_no_figures_per_token(self) -> None:
        node = Node(1, [ServerSpec("chat", "http://chat", gpus=(0,))])
        key = SeriesKey("m", "generation", "")
        for second in range(120):
            node.run(1, read=())
            made = 4000 * (second // 40)  # a request every 40 s
            node.meter.server_reading(
                ServerReading("chat", node.t_ns, "tgi", {key: made}, 1, 0, process_start=1.0, update="completion", cached="unknown")
            )
        server, figures = node.server("chat"), self.figures(node)
        assert server.resolution_s == pytest.approx(40, abs=1)
        assert server.update == "completion"
        short, long = figures["10s"], figures["1m"]
        assert (short.tokens_per_second, short.tokens_per_joule, short.joules_per_token) == ({}, {}, {})
        assert short.covered
        assert short.power_watts == pytest.approx(100)
        assert short.coverage_ratio == 1
        assert "generation" in long.tokens_per_joule
        assert long.tokens_per_second
