"""Rule 5 and its company, over random histories: nothing lost, nothing made up, nothing negative, nothing falls."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.accounting.node import SECOND, TICK, FakeServer, Node, assert_conserved
from tokenwatt.accounting.server_spec import ServerSpec
from tokenwatt.snapshot import Snapshot
from tokenwatt.types import Listener

SERVERS = (
    ServerSpec("a", "http://a", gpus=(0,)),
    ServerSpec("b", "http://b", gpus=(0, 1)),
    ServerSpec("c", "http://c"),
)
FOUND = ServerSpec("d", "http://d", gpus=(2,), group="big", configured=False)
PARENTS = {10: (10, 1), 11: (11, 10, 1), 20: (20, 1), 21: (21, 20, 1), 30: (30, 1), 99: (99, 1)}

number = st.integers(0, 2)
Step = Callable[[Node], None]


def _board(name: str, value: object) -> Callable[[int], Step]:
    def step_for(which: int) -> Step:
        def step(node: Node) -> None:
            setattr(node.boards[which], name, value)

        return step

    return step_for


def _lose(which: int) -> Step:
    def step(node: Node) -> None:
        node.boards[which].error, node.boards[which].lost = "GPU is lost", True

    return step


def _recover(which: int) -> Step:
    def step(node: Node) -> None:
        node.boards[which].error, node.boards[which].lost = None, False

    return step


def _server(act: Callable[[Node, FakeServer], None]) -> st.SearchStrategy[Step]:
    def step_for(which: int) -> Step:
        return lambda node: act(node, list(node.servers.values())[-1 - which])

    return number.map(step_for)


def _find(node: Node) -> None:
    node.meter.add(FOUND)
    node.servers.setdefault(FOUND.name, FakeServer(FOUND.name))


steps: st.SearchStrategy[Step] = st.one_of(
    st.integers(1, 30).map(lambda n: lambda node: [node.tick() for _ in range(n)] and None),
    st.integers(1, 90 * 10).map(lambda n: lambda node: node.tick(n * TICK)),
    st.just(lambda node: node.tick(700 * SECOND)),
    st.just(lambda node: node.states()),
    st.just(lambda node: node.meter.each_second(node.t_ns)),
    number.map(_lose),
    number.map(_recover),
    number.map(_board("error", "one read failed")),
    number.map(_board("energy_mj", 0)),
    number.map(_board("energy_mj", 10**15)),
    number.map(_board("counter", False)),
    number.map(_board("counter", True)),
    st.integers(0, 900_000).flatmap(lambda mw: number.map(_board("power_mw", mw))),
    st.lists(st.sampled_from(sorted(PARENTS)), max_size=3, unique=True).flatmap(lambda p: number.map(_board("processes", tuple(p)))),
    st.dictionaries(st.sampled_from(sorted(PARENTS)), st.integers(0, 100)).flatmap(lambda u: number.map(_board("sm_utilization", u))),
    _server(lambda node, s: node.read(s.name)),
    _server(lambda node, s: node.read(s.name, node.t_ns - TICK // 3)),
    _server(lambda node, s: s.make(generation=7, computed=3, cached=2)),
    _server(lambda node, s: s.make(generation=1, model="other")),
    _server(lambda node, s: s.make(generation=10**13)),
    _server(lambda node, s: s.restart()),
    _server(lambda node, s: s.restart(float(node.t_ns), node.t_ns - SECOND)),
    _server(lambda node, s: node.fail(s.name)),
    _server(lambda node, s: node.fail(s.name, gone=True)),
    _server(lambda node, s: node.fail(s.name, rejected=True)),
    _server(lambda node, s: setattr(s, "running", 1 - s.running)),
    _server(lambda node, s: s.counters.update({key: value // 2 for key, value in s.counters.items()})),
    _server(lambda node, s: setattr(s, "update", "completion")),
    (st.none() | st.dictionaries(st.sampled_from("mn"), st.integers(0, 500))).flatmap(
        lambda running: _server(lambda node, s: setattr(s, "in_flight", running))
    ),
    st.just(_find),
    st.sampled_from((10, 20, 30, None)).flatmap(lambda pid: _server(lambda node, s: setattr(s, "listener", pid and Listener(pid, 1)))),
)


def counters(snapshot: Snapshot) -> dict[tuple[str, ...], int]:
    """Every published counter."""
    out: dict[tuple[str, ...], int] = {}
    for g in snapshot.gpus:
        out["gpu", g.gpu.uuid] = g.energy_uj or 0
        out["unattributed", g.gpu.uuid] = g.unattributed_uj or 0
        out["gpu_counts", g.gpu.uuid] = g.resets + g.rejected_readings + g.samples_missed
    for s in snapshot.servers:
        out["server_counts", s.name] = s.resets + s.rejected_readings
        for m in s.models:
            out.update({("energy", s.name, m.model, state): uj for state, uj in m.energy_uj.items()})
            out.update({("tokens", s.name, m.model, kind): count for kind, count in m.tokens.items()})
    return out


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, min_size=5, max_size=80))
def test_any_history_is_conserved_and_nothing_falls(history: list[Step]) -> None:
    node = Node(3, SERVERS, PARENTS)
    before: dict[tuple[str, ...], int] = {}
    for step in history:
        step(node)
        node.meter.check_conservation()
        snapshot = node.snapshot()
        assert_conserved(snapshot)
        now = counters(snapshot)
        assert all(value >= 0 for value in now.values())
        # Who is gone gets nothing any more: it would stay pending for ever.
        gone = [name for name, server in node.meter.servers.items() if not server.present]
        assert all(pending == 0 for name, pending in node.meter.pending_uj().items() if name in gone)
        assert all(now[key] >= value for key, value in before.items())
        before = now


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, min_size=5, max_size=80))
def test_intervals_of_a_server_neither_overlap_nor_go_back_and_add_up_to_its_totals(history: list[Step]) -> None:
    node = Node(3, SERVERS, PARENTS)
    for step in history:
        step(node)
    intervals = node.meter.take_closed()
    for name in node.servers:
        end_ns = 0
        energy: dict[tuple[str, str], int] = {}
        tokens: dict[tuple[str, str], int] = {}
        for interval in (i for i in intervals if i.server == name):
            assert end_ns <= interval.start_ns <= interval.end_ns
            end_ns = interval.end_ns
            for key, uj in interval.energy_uj.items():
                energy[key] = energy.get(key, 0) + uj
            for of, count in interval.tokens.items():
                tokens[of] = tokens.get(of, 0) + count
        for model in node.server(name).models:
            for state, uj in model.energy_uj.items():
                assert energy.get((model.model, state), 0) == uj
            for kind, count in model.tokens.items():
                assert tokens.get((model.model, kind), 0) == count


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, min_size=5, max_size=80))
def test_no_window_tells_what_it_does_not_cover(history: list[Step]) -> None:
    node = Node(3, SERVERS, PARENTS)
    for step in history:
        step(node)
        for server in node.snapshot().servers:
            for at in server.windows.values():
                assert 0 <= at.coverage_ratio <= 1
                assert at.idle_energy_ratio is None or 0 <= at.idle_energy_ratio <= 1
            for model in server.models:
                for f in model.windows.values():
                    assert all(uj >= 0 for uj in f.energy_uj.values())
                    assert all(count >= 0 for count in f.tokens.values())
                    assert all(value > 0 for value in f.tokens_per_joule.values())
                    if not f.covered:
                        assert f.power_watts is None
                        assert not f.tokens_per_second
                        assert not f.tokens_per_joule
