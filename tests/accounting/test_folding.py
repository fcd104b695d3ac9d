"""Series folded: ranks count the same tokens, cached tokens are part of the prompt's, and nothing published falls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.accounting.pages import Meterings
from tokenwatt.types import SeriesKey

RANKS = ("0", "1", "2")


def series(rank: str, labels: str = "", model: str = "m") -> SeriesKey:
    return SeriesKey(model, "generation", labels, rank)


steps = st.lists(st.integers(0, 50), min_size=1, max_size=30)
subsets = st.sets(st.sampled_from(RANKS), min_size=1)


@given(st.integers(0, 1000), steps, st.data())
def test_ranks_that_move_one_after_the_other_count_once(before: int, made: list[int], data: st.DataObject) -> None:
    """Each rank shows a count of some moments ago; any of them may be missing on a page, but not all of them."""
    metered = Meterings()
    metered.read({series(rank): before for rank in RANKS}, process_start=1.0)
    true, shown = before, dict.fromkeys(RANKS, before)
    for count in made:
        true += count
        for rank in RANKS:
            shown[rank] = data.draw(st.integers(shown[rank], true))
        there = data.draw(subsets)
        metered.read({series(rank): shown[rank] for rank in there}, process_start=1.0)
        assert metered.generation <= true - before
    metered.read({series(rank): true for rank in RANKS}, process_start=1.0)
    assert metered.generation == true - before


@given(st.integers(0, 1000), steps, st.data())
def test_a_rank_that_appears_late_changes_nothing(before: int, made: list[int], data: st.DataObject) -> None:
    metered, true = Meterings(), before
    metered.read({series("0"): before}, process_start=1.0)
    late, counts_from = data.draw(st.integers(0, len(made))), 0
    for n, count in enumerate(made):
        true += count
        page = {series("0"): true}
        if n == late:
            # It shows what the first one shows, or counts from here on; and it may be a step behind.
            counts_from = data.draw(st.sampled_from((0, true - count)))
            page[series("1")] = true - counts_from - data.draw(st.sampled_from((0, count)))
        elif n > late:
            page[series("1")] = true - counts_from
        metered.read(page, process_start=1.0)
        assert metered.generation == true - before


def test_stages_that_move_at_different_instants_are_not_counted_twice() -> None:
    metered = Meterings()
    metered.read_all(({series("0"): a, series("1"): b} for a, b in ((0, 0), (10, 0), (10, 10), (20, 10), (20, 20))), process_start=1.0)
    assert metered.generation == 20


def test_everything_but_the_rank_is_summed() -> None:
    metered = Meterings()
    for scale in (0, 1, 2):
        page = {series(rank, labels, model): 10 * scale for rank in ("0", "1") for labels in ("dp=0", "dp=1") for model in ("m", "n")}
        metered.read(page, process_start=1.0)
    assert metered.generation == 2 * 10 * 2 * 2


def test_other_ranks_after_a_restart_go_on_from_the_same_count() -> None:
    metered = Meterings()
    metered.read({series("0"): 100, series("1"): 100}, process_start=1.0)
    metered.read({series("0"): 150, series("1"): 140}, process_start=1.0)
    metered.read({series("0"): 5}, process_start=2.0)
    assert metered.generation == 55
    metered.read({series("0"): 9, series("1"): 9}, process_start=2.0)
    assert metered.generation == 59
    metered.read({series("1"): 12}, process_start=3.0)
    metered.read({series("1"): 20}, process_start=3.0)
    assert metered.generation == 79


def test_a_group_whose_ranks_are_all_others_counts_from_zero() -> None:
    metered = Meterings()
    metered.read_all(({series("0"): 100}, {series("0"): 130}, {series("1"): 4, series("2"): 6}), process_start=1.0)
    assert metered.generation == 36


def _prompt(prompt: int, cached: int) -> dict[SeriesKey, int]:
    return {SeriesKey("m", "prompt", ""): prompt, SeriesKey("m", "prompt_cached", ""): cached}


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100), st.integers(0, 3)), max_size=30))
def test_cached_tokens_are_taken_off_though_a_page_is_rendered_between(requests: list[tuple[int, int, int]]) -> None:
    """A request moves both counters, and pages are rendered before, between (either is first) or after."""
    metered, prompt, cached = Meterings(), 0, 0
    metered.read(_prompt(0, 0), process_start=1.0)
    overshoot = 0
    for computed, hits, rendered in requests:
        between = {1: (prompt + computed + hits, cached), 2: (prompt, cached + hits)}.get(rendered)
        if between is not None:
            metered.read(_prompt(*between), process_start=1.0)
            # Together they are the prompt counter at any moment: kinds are disjoint, and no token is there twice.
            assert sum(metered.published.values()) == between[0]
            overshoot = max(overshoot, metered.published.get("prompt_computed", 0) - (prompt - cached))
        prompt, cached = prompt + computed + hits, cached + hits
        if rendered:
            metered.read(_prompt(prompt, cached), process_start=1.0)
            assert sum(metered.published.values()) == prompt
            true = prompt - cached
            assert true <= metered.published.get("prompt_computed", 0) <= max(true, overshoot + true)
    # Requests without hits bring the split back to the counters', whatever went before.
    prompt += 100 * len(requests) + 1
    metered.read(_prompt(prompt, cached), process_start=1.0)
    assert metered.published.get("prompt_computed", 0) == prompt - cached
    assert metered.published.get("prompt_cached", 0) == cached


@pytest.mark.parametrize("start", [1.0, 2.0])
def test_cached_tokens_that_were_ahead_at_a_restart_are_not_taken_off_what_comes_after(start: float) -> None:
    metered = Meterings()
    metered.read(_prompt(0, 0), process_start=1.0)
    metered.read(_prompt(100, 160), process_start=1.0)
    assert metered.published == {"prompt_cached": 100}
    metered.read_all([_prompt(50, 10)] * 3, process_start=start)
    assert metered.published == {"prompt_cached": 110, "prompt_computed": 40}


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=20))
def test_any_two_counters_publish_what_the_prompt_counter_says(moves: list[tuple[int, int]]) -> None:
    metered, prompt, cached = Meterings(), 0, 0
    metered.read(_prompt(0, 0), process_start=1.0)
    for more_prompt, more_cached in moves:
        prompt, cached = prompt + more_prompt, cached + more_cached
        metered.read(_prompt(prompt, cached), process_start=1.0)
        assert sum(metered.published.values()) == prompt
        assert metered.published.get("prompt_cached", 0) <= cached
