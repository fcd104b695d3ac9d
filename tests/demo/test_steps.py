import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwatt.demo.steps import Steps, mix, permille, stream


def _walker() -> Steps[int]:
    return Steps(0, lambda k, before: (before * 31 + mix(7, k)) % 2**61)


def _expected(n: int) -> list[int]:
    rows, row = [], 0
    for k in range(n):
        row = (row * 31 + mix(7, k)) % 2**61
        rows.append(row)
    return rows


EXPECTED = _expected(6000)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5999), min_size=1, max_size=8))
def test_a_row_does_not_depend_on_what_was_asked_before(asked: list[int]) -> None:
    steps = _walker()
    assert [steps.at(k) for k in asked] == [EXPECTED[k] for k in asked]


def test_around_is_continuous_where_old_rows_were_dropped() -> None:
    steps = _walker()
    steps.at(5000)
    for k in (*range(4000, 4100), *range(4500, 5000)):
        assert steps.around(k) == (EXPECTED[k - 1], EXPECTED[k])
    assert steps.around(0) == (0, EXPECTED[0])
    assert steps.around(-5) == (0, 0)


def test_threads_see_one_history() -> None:
    steps = _walker()
    wrong: list[int] = []

    def walk(first: int) -> None:
        wrong.extend(k for k in range(first, 6000, 3) if steps.at(k) != EXPECTED[k])

    threads = [threading.Thread(target=walk, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_mix_is_splitmix64() -> None:
    # The reference output for seed 1234567 (Vigna's splitmix64.c).
    assert [mix(1234567, i) for i in (1, 2, 3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 300))
def test_permille_stays_in_its_spread(seed: int, index: int, spread: int) -> None:
    assert 1000 - spread <= permille(seed, index, spread) <= 1000 + spread


def test_streams_of_one_seed_differ() -> None:
    assert len({stream(1, name) for name in ("a/prompt", "a/swell", "b/prompt", "b/swell")}) == 4
