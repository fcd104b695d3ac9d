"""Tokens in flight: published is the counter and what runs, never falls, and is the counter again once nothing runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tests.accounting.pages import Meterings


@dataclass
class Server:
    """Counts generation at the end of each request, as llama-server does."""

    counter: int = 0
    running: dict[int, int] = field(default_factory=dict)
    made: int = 0

    def make(self, slot: int, count: int) -> None:
        self.running[slot] = self.running.get(slot, 0) + count
        self.made += count

    def end(self, slot: int) -> None:
        self.counter += self.running.pop(slot, 0)

    @property
    def in_flight(self) -> dict[str, int]:
        return {"m": sum(self.running.values())} if self.running else {}


slots = st.integers(0, 2)
moves = st.one_of(st.tuples(st.just("make"), slots, st.integers(1, 100)), st.tuples(st.just("end"), slots, st.just(0)))
reads = st.sampled_from(("both", "end between", "make between", "unknown", "none"))


@given(st.lists(moves, max_size=4), st.lists(st.tuples(moves, reads), max_size=40))
def test_published_is_what_was_made_whenever_that_can_be_known(before: list, history: list) -> None:  # type: ignore[type-arg]
    metered, server = Meterings(), Server()

    def move(what: str, slot: int, count: int) -> None:
        server.make(slot, count) if what == "make" else server.end(slot)

    for each in before:
        move(*each)
    counted_at_first, made_at_first = server.counter, server.made
    metered.read(server.counter, in_flight=server.in_flight, process_start=1.0)
    for each, read in history:
        move(*each)
        counter = server.counter
        if read == "end between":
            server.end(0)  # on neither page: it runs no more, and the counter was read before
        elif read == "make between":
            server.make(0, 5)
        if read != "none":
            metered.read(counter, in_flight=None if read == "unknown" else server.in_flight, process_start=1.0)
            assert metered.generation <= server.made - made_at_first
            assert metered.generation >= counter - made_at_first
            if read == "both":
                assert metered.generation == server.made - made_at_first
    for slot in range(3):
        server.end(slot)
    metered.read(server.counter, in_flight={}, process_start=1.0)
    assert metered.generation == server.counter - made_at_first == server.made - made_at_first
    assert counted_at_first <= made_at_first


@given(st.lists(st.tuples(st.integers(0, 50), st.none() | st.integers(0, 100)), max_size=40))
def test_any_numbers_at_all_never_fall_and_are_never_below_the_counter(readings: list[tuple[int, int | None]]) -> None:
    metered, counter, highest = Meterings(), 0, 0
    metered.read(0, in_flight={}, process_start=1.0)
    for rise, in_flight in readings:
        counter += rise
        highest = max(highest, counter + (in_flight or 0))
        metered.read(counter, in_flight=None if in_flight is None else {"m": in_flight}, process_start=1.0)
        assert metered.generation == highest


def test_what_a_restart_lost_stays_counted() -> None:
    metered = Meterings()
    metered.read(0, in_flight={}, process_start=1.0)
    metered.read(10, in_flight={"m": 40}, process_start=1.0)
    assert metered.generation == 50
    metered.read(0, in_flight={"m": 3}, process_start=2.0)
    assert metered.generation == 53
    metered.read(7, in_flight={}, process_start=2.0)
    assert metered.generation == 57


def test_what_ran_before_the_first_reading_is_not_ours() -> None:
    metered = Meterings()
    metered.read(0, in_flight={"m": 400}, process_start=1.0)
    metered.read(0, in_flight={"m": 420}, process_start=1.0)
    assert metered.generation == 20
    metered.read(430, in_flight=None, process_start=1.0)
    assert metered.generation == 30


def test_models_are_apart_from_one_another_and_prompt_tokens_untouched() -> None:
    metered = Meterings()
    metered.read(0, in_flight={}, process_start=1.0)
    deltas = metered.read(5, in_flight={"m": 1, "n": 7}, process_start=1.0)
    assert deltas.tokens == {("m", "generation"): 6, ("n", "generation"): 7}
