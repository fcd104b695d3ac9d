"""Counters that go up and down: a restart that nobody saw loses nothing, and workers that answer in turn are never summed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.accounting.node import Node, assert_conserved
from tests.accounting.pages import SECOND, Meterings
from tokenwatt.accounting.server_spec import ServerSpec
from tokenwatt.types import Listener, SeriesKey

PROMPT, GENERATION = SeriesKey("m", "prompt_computed", ""), SeriesKey("m", "generation", "")


@dataclass
class Worker:
    counters: dict[SeriesKey, int]
    rises: dict[SeriesKey, int] = field(default_factory=lambda: {PROMPT: 0, GENERATION: 0})

    def work(self, prompt: int, generation: int) -> None:
        for key, count in ((PROMPT, prompt), (GENERATION, generation)):
            self.counters[key] += count
            self.rises[key] += count


count = st.integers(0, 10_000)
rise = st.integers(0, 200)
workers = st.tuples(count, count).map(lambda c: Worker({PROMPT: c[0], GENERATION: c[1]}))
Shift = tuple[int, int, int, int]
shifts = st.tuples(rise, rise, rise, rise)


def answer_in_turn(metered: Meterings, two: tuple[Worker, Worker], turns: list[int], work: list[Shift]) -> None:
    """Both work all the time; of each turn one answers."""
    for turn, (a, b, c, d) in zip(turns, work, strict=True):
        metered.read(two[turn].counters)
        two[0].work(a, b)
        two[1].work(c, d)


@given(workers, workers, st.lists(shifts, min_size=2, max_size=40))
def test_two_workers_strictly_in_turn_publish_at_most_what_one_of_them_made(a: Worker, b: Worker, work: list[Shift]) -> None:
    metered = Meterings()
    answer_in_turn(metered, (a, b), [n % 2 for n in range(len(work))], work)
    for key in (PROMPT, GENERATION):
        assert metered.published.get(key.kind, 0) <= max(a.rises[key], b.rises[key])


@given(workers, workers, st.lists(st.tuples(st.integers(0, 1), shifts), min_size=2, max_size=60))
def test_two_workers_at_random_publish_at_most_three_times_what_one_shows(a: Worker, b: Worker, turns: list[tuple[int, Shift]]) -> None:
    """What can get in before the third fall: two ways up from the lower to the higher one that look like work, or like restarts, and one
    before the first fall."""
    metered = Meterings()
    answer_in_turn(metered, (a, b), [turn for turn, _ in turns], [work for _, work in turns])
    for key in (PROMPT, GENERATION):
        assert metered.published.get(key.kind, 0) <= 3 * max(a.counters[key], b.counters[key])


@pytest.mark.parametrize("seed", range(5))
def test_at_random_it_stops_within_a_minute(seed: int) -> None:
    chance, metered = random.Random(seed), Meterings()
    low, high = Worker({PROMPT: 10, GENERATION: 10}), Worker({PROMPT: 5000, GENERATION: 5000})
    answer_in_turn(metered, (low, high), [chance.randrange(2) for _ in range(60)], [(1, 1, 1, 1)] * 60)
    assert metered.counters.unreliable is not None


@given(st.integers(1, 10_000), st.lists(rise, min_size=1, max_size=10), st.lists(rise, min_size=3, max_size=10))
def test_a_restart_that_nobody_saw_loses_nothing(before: int, made: list[int], after: list[int]) -> None:
    metered = Meterings()
    value = before
    for more in (0, *made):
        metered.read(value := value + more)
    metered.read(value)
    true = value - before
    value = 0
    for n, more in enumerate(after):
        value += min(more, (before + true - 1) // len(after))  # it does not jump over what it held before
        deltas = metered.read(value)
        assert deltas.reset == (n == 0)
    assert metered.generation == true + value
    assert metered.counters.resets == 1


def test_what_is_held_counts_with_the_second_reading_after_the_fall() -> None:
    metered = Meterings()
    metered.read_all((1000, 1000, 1100))
    assert metered.generation == 100
    deltas = metered.read(30)
    assert (deltas.tokens, deltas.reset, deltas.in_doubt) == ({}, True, True)
    assert metered.read(35).tokens == {}
    assert metered.read(50).tokens == {("m", "generation"): 50}
    assert metered.read(51).tokens == {("m", "generation"): 1}


def test_one_page_of_another_worker_is_dropped_and_what_was_made_meanwhile_counts() -> None:
    metered = Meterings()
    metered.read_all((1000, 1100, 1200, 30, 1400, 1500, 1600))
    assert metered.generation == 600


def test_nor_are_two_such_pages_a_reason_to_lose_anything() -> None:
    metered = Meterings()
    metered.read_all((1000, 1100, 1200, 30, 1300, 31, 1400, 1500, 1600))
    assert metered.generation == 600
    assert metered.counters.unreliable is None


def test_falls_that_are_rare_are_restarts() -> None:
    metered = Meterings()
    metered.read_all((100, 100))
    for _ in range(5):
        metered.read(7, seconds=31)
        metered.read_all((7, 7, 90))
    assert metered.counters.unreliable is None
    assert metered.generation == 5 * 90


class TestProcessStarts:
    def test_a_restart_loop_that_is_seen_is_no_sawtooth(self) -> None:
        metered = Meterings()
        metered.read(1000, process_start=0.0, process_start_ns=metered.t_ns)
        for life in range(1, 40):
            metered.read(5, process_start=float(life), process_start_ns=metered.t_ns + SECOND // 2)
        assert metered.generation == 39 * 5
        assert (metered.counters.resets, metered.counters.unreliable) == (39, None)

    def test_one_that_is_seen_gone_and_back_each_time_is_none_either(self) -> None:
        metered = Meterings()
        metered.read(1000)
        for _ in range(10):
            metered.read(5, started_since_ns=metered.t_ns)
        assert metered.generation == 10 * 5
        assert metered.counters.unreliable is None

    def test_a_start_that_returns_is_another_worker(self) -> None:
        metered = Meterings()
        old = metered.t_ns - 900 * SECOND
        for start in (1.0, 2.0, 1.0):
            deltas = metered.read(1000 + round(start), process_start=start, process_start_ns=old)
        assert deltas.unreliable
        assert metered.published == {}

    def test_a_start_before_the_last_reading_is_no_restart_until_it_lasts(self) -> None:
        metered = Meterings()
        metered.read(1000, process_start=1.0)
        metered.read(1100, process_start=1.0, seconds=60)
        metered.read(40, process_start=2.0, process_start_ns=metered.t_ns - 20 * SECOND)
        assert metered.generation == 100
        metered.read_all((50, 60), process_start=2.0)
        assert metered.generation == 160

    def test_what_a_process_held_that_was_there_before_us_is_not_ours(self) -> None:
        """Workers that answer for minutes each, since the connection to one is kept."""
        metered = Meterings()
        old = metered.t_ns - 900 * SECOND
        metered.read_all((1000, 1100), process_start=1.0, process_start_ns=old)
        metered.read_all((70_000, 70_010, 70_020, 70_030), process_start=2.0, process_start_ns=old)
        assert metered.generation == 130
        metered.read(1200, process_start=1.0, process_start_ns=old)
        assert metered.counters.unreliable is not None
        assert metered.generation == 130

    def test_a_fall_that_is_followed_by_a_restart_that_was_seen_counts(self) -> None:
        metered = Meterings()
        metered.read_all((1000, 1100, 40), process_start=1.0)
        metered.read(3, process_start=2.0)
        assert metered.generation == 143


class TestUnreliable:
    def metered(self) -> Meterings:
        metered = Meterings()
        metered.read_all((1000, 10, 1001, 11, 1002, 12), listener=Listener(1, 1))
        assert metered.counters.unreliable is not None
        return metered

    def test_nothing_is_counted_from_then_on(self) -> None:
        metered = self.metered()
        for n in range(300):
            assert metered.read(1000 + n if n % 2 else n).unreliable
        assert metered.published == {}

    def test_it_ends_after_ten_minutes_without_a_fall_with_a_new_baseline(self) -> None:
        metered = self.metered()
        metered.read_all(range(100, 700))
        assert metered.counters.unreliable is not None
        metered.read(700)
        assert metered.counters.unreliable is None
        metered.read_all((705, 710))
        assert metered.generation == 10

    @pytest.mark.parametrize("gone", [False, True])
    def test_it_ends_where_another_process_listens_or_none_did(self, gone: bool) -> None:
        metered = self.metered()
        metered.read(700, listener=Listener(1 if gone else 2, 1), started_since_ns=metered.t_ns if gone else None)
        assert metered.counters.unreliable is None
        metered.read_all((705, 710), listener=Listener(1 if gone else 2, 1))
        assert metered.generation == 10

    def test_what_the_snapshot_says(self) -> None:
        node = Node(1, [ServerSpec("chat", "http://chat", gpus=(0,))])
        chat = node.servers["chat"]
        chat.process_start = None
        high, low = {GENERATION: 5000}, {GENERATION: 10}
        for n in range(40):
            chat.counters = low if n % 2 else high
            chat.counters[GENERATION] += 3
            node.run(1)
        server = node.server("chat")
        assert not server.up
        assert "several workers answer in turn" in (server.reason or "")
        assert any("Server chat: " in problem and "several workers" in problem for problem in node.snapshot().problems)
        assert server.windows["10s"].coverage_ratio == 0
        assert server.models[0].windows["10s"].tokens_per_second == {}
        # Its energy stays its own.
        assert node.energy_uj("chat")["unobserved"] > 30 * 100_000_000
        assert node.unattributed_uj(0) == 90_000_000
        assert_conserved(node.snapshot())
