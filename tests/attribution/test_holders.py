"""Who holds which board."""

from __future__ import annotations

from collections.abc import Mapping

from tests.accounting.node import gpu
from tokenwatt.attribution.holders import Board, Claim, Holders
from tokenwatt.types import GpuProcess, Holder, Listener

PARENTS = {10: (10, 1), 11: (11, 10, 1), 12: (12, 11, 10, 1), 20: (20, 1), 99: (99, 1)}


def holders(parents: Mapping[int, tuple[int, ...]] = PARENTS) -> Holders:
    return Holders(lambda pid: parents.get(pid, ()))


def board(number: int, *pids: int) -> Board:
    return Board(gpu(number), tuple(GpuProcess(pid, None) for pid in pids))


def test_a_grandchild_of_the_listener_is_its_process() -> None:
    held = holders().of([board(0, 12)], [Claim("chat", None, Listener(10, 1))], servers_known=5)
    assert held[gpu(0).uuid] == (Holder("chat", "ancestry", frozenset({12})),)


def test_a_parent_of_the_listener_is_not() -> None:
    held = holders().of([board(0, 10)], [Claim("chat", None, Listener(11, 1))], servers_known=5)
    assert held[gpu(0).uuid] == ()


def test_processes_that_cannot_be_seen_belong_to_nobody() -> None:
    held = holders({}).of([board(0, 12)], [Claim("chat", None, Listener(10, 1))], servers_known=2)
    assert held[gpu(0).uuid] == ()


def test_strangers_are_holders_of_their_own_beside_a_server_whose_processes_are_known() -> None:
    held = holders().of([board(0, 12, 20, 99)], [Claim("chat", None, Listener(10, 1))], servers_known=2)
    assert held[gpu(0).uuid] == (
        Holder("chat", "ancestry", frozenset({12})),
        Holder(None, None, frozenset({20})),
        Holder(None, None, frozenset({99})),
    )


def test_a_board_with_strangers_alone_is_held_by_nobody() -> None:
    held = holders().of([board(0, 99)], [Claim("chat", None, Listener(10, 1))], servers_known=2)
    assert held[gpu(0).uuid] == ()


def test_several_servers_may_be_named_for_one_board() -> None:
    claims = [Claim("chat", (0,), None), Claim("code", (0, gpu(0).uuid), None)]
    held = holders().of([board(0)], claims, servers_known=2)
    assert [holder.server for holder in held[gpu(0).uuid]] == ["chat", "code"]


def test_a_beginning_that_two_boards_have_names_neither() -> None:
    mapping, boards = holders(), [board(0), board(1)]
    assert mapping.of(boards, [Claim("chat", ("GPU-0",), None)], servers_known=1)[gpu(0).uuid] == ()
    assert mapping.unknown_gpus("chat", ("GPU-0", 0, 7), boards) == ("GPU-0", 7)


def test_a_driver_that_tells_no_processes_leaves_the_last_resort() -> None:
    boards = [Board(gpu(0), None), Board(gpu(1), None)]
    claim = Claim("chat", None, Listener(10, 1))
    assert all(len(h) == 1 for h in holders().of(boards, [claim], servers_known=1).values())
    assert all(h == () for h in holders().of(boards, [claim], servers_known=2).values())


def test_a_pid_that_comes_back_is_looked_up_anew() -> None:
    parents = dict(PARENTS)
    mapping = Holders(lambda pid: parents.get(pid, ()))
    claim = Claim("chat", None, Listener(10, 1))
    assert mapping.of([board(0, 12)], [claim], servers_known=2)[gpu(0).uuid]
    assert not mapping.of([board(0)], [claim], servers_known=2)[gpu(0).uuid]
    parents[12] = (12, 1)
    assert not mapping.of([board(0, 12)], [claim], servers_known=2)[gpu(0).uuid]
