"""How a tick's energy is divided."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from tokenwatt.attribution.sharing import UTILIZATION_STAYS_NS, Sharing
from tokenwatt.types import EnergyReading, Holder, Share

CHAT, CODE = Holder("chat", "ancestry", frozenset({1, 2})), Holder("code", "ancestry", frozenset({3}))
STRANGER = Holder(None, None, frozenset({9}))
NAMED = Holder("named", "settings")


def reading(t_ns: int = 10**12, sm: Mapping[int, int] | None = None) -> EnergyReading:
    return EnergyReading("GPU-1", t_ns, 0, 0, 0, sm)


def tokens(**counts: int):  # type: ignore[no-untyped-def]
    return lambda server: counts.get(server, 0)


def test_nobody_and_one() -> None:
    assert Sharing().shares(reading(), (), tokens()) == ((Share(None, 1),), None)
    assert Sharing().shares(reading(), (CHAT,), tokens()) == ((Share("chat", 1),), "sole")


def test_by_the_utilisation_of_all_processes_of_a_holder() -> None:
    shares, split = Sharing().shares(reading(sm={1: 20, 2: 30, 3: 10, 9: 40}), (CHAT, CODE, STRANGER), tokens(chat=1))
    assert (shares, split) == ((Share("chat", 50), Share("code", 10), Share(None, 40)), "sm_utilization")


def test_the_last_utilisation_holds_until_the_next_but_not_for_long() -> None:
    sharing, t_ns = Sharing(), 10**12
    sharing.shares(reading(t_ns, {1: 20, 3: 60}), (CHAT, CODE), tokens(chat=1))
    assert sharing.shares(reading(t_ns + UTILIZATION_STAYS_NS, {}), (CHAT, CODE), tokens(chat=1))[1] == "sm_utilization"
    assert sharing.shares(reading(t_ns + UTILIZATION_STAYS_NS + 1, {}), (CHAT, CODE), tokens(chat=1))[1] == "tokens"


def test_by_tokens_where_nothing_ran_or_the_driver_does_not_tell() -> None:
    for sm in (None, {}, {1: 0, 3: 0}):
        shares, split = Sharing().shares(reading(sm=sm), (CHAT, CODE), tokens(chat=30, code=10))
        assert (shares, split) == ((Share("chat", 30), Share("code", 10)), "tokens")


def test_equally_where_nothing_else_is_known_and_beside_strangers_without_utilisation() -> None:
    assert Sharing().shares(reading(), (CHAT, CODE), tokens())[1] == "equal"
    assert Sharing().shares(reading(), (CHAT, STRANGER), tokens(chat=10)) == ((Share("chat", 1), Share(None, 1)), "equal")


def test_a_holder_whose_processes_are_not_known_takes_part_by_tokens() -> None:
    assert Sharing().shares(reading(sm={1: 90}), (CHAT, NAMED), tokens(chat=1, named=1))[1] == "tokens"


@given(
    st.lists(st.sampled_from([CHAT, CODE, STRANGER, NAMED]), unique=True),
    st.one_of(st.none(), st.dictionaries(st.integers(1, 9), st.integers(0, 100))),
    st.dictionaries(st.sampled_from(["chat", "code", "named"]), st.integers(0, 10**9)),
)
def test_weights_can_always_be_divided_by(holders: list[Holder], sm: dict[int, int] | None, counts: dict[str, int]) -> None:
    shares, split = Sharing().shares(reading(sm=sm), holders, tokens(**counts))
    assert all(share.weight >= 0 for share in shares)
    assert sum(share.weight for share in shares) > 0
    assert (split is None) == (not holders)
    assert [share.server for share in shares] == ([holder.server for holder in holders] or [None])
