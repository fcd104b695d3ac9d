"""Servers that come and go at run time, members of a server that spans nodes, and what engines tell of tokens."""

from __future__ import annotations

import logging

import pytest

from tests.accounting.node import SECOND, FakeServer, Node, assert_conserved
from tests.accounting.pages import Meterings
from tokenwatt.accounting.server_spec import ServerSpec
from tokenwatt.types import Listener, SeriesKey, ServerFailure, ServerReading

CHAT = ServerSpec("chat", "http://chat", gpus=(0,))


def found(name: str, gpus: tuple[int | str, ...] | None = None) -> ServerSpec:
    return ServerSpec(name, f"http://{name}", "llamacpp", gpus, configured=False)


def add(node: Node, spec: ServerSpec) -> None:
    node.meter.add(spec)
    node.servers.setdefault(spec.name, FakeServer(spec.name)).make()


class TestAdded:
    def test_a_server_found_at_run_time_has_books_from_then_on_and_disturbs_nobody(self) -> None:
        node = Node(2, [CHAT])
        node.run(15, generation_a_second={"chat": 200})
        before = node.server("chat").models[0].windows["10s"]
        add(node, found("code", (1,)))
        node.run(15, generation_a_second={"chat": 200, "code": 100})
        after = node.server("chat").models[0].windows["10s"]
        assert (after.tokens_per_joule, after.power_watts) == (before.tokens_per_joule, before.power_watts)
        assert node.server("code").models[0].windows["10s"].tokens_per_joule["generation"] == pytest.approx(1)
        assert_conserved(node.snapshot())

    def test_one_that_is_known_keeps_its_books_and_its_gpus(self) -> None:
        node = Node(1, [CHAT])
        node.run(3, generation_a_second={"chat": 10})
        node.meter.add(ServerSpec("chat", "http://elsewhere", "sglang", configured=False))
        node.run(1, generation_a_second={"chat": 10})
        server = node.server("chat")
        assert server.url == "http://elsewhere"
        assert node.tokens("chat")["generation"] == 30
        assert [g[1:] for g in server.gpus] == [(0, "settings")]
        assert node.meter.specs["chat"].configured

    def test_what_nobody_told_of_is_ignored_and_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        node = Node(1, [CHAT])
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                node.meter.server_reading(ServerReading("ghost", node.t_ns, "vllm", {}))
                node.meter.server_failure(ServerFailure("ghost", node.t_ns, "gone"))
        assert len([record for record in caplog.records if "ghost" in record.getMessage()]) == 1
        assert [server.name for server in node.snapshot().servers] == ["chat"]

    def test_ready_waits_for_configured_servers_alone(self) -> None:
        node = Node(1, [CHAT])
        add(node, found("code"))
        node.run(1, read=())
        assert not node.snapshot().ready
        node.run(1, read=("chat",))
        assert node.snapshot().ready

    def test_one_that_was_found_and_is_gone_is_no_problem_but_says_why_it_is_down(self) -> None:
        node = Node(1, [CHAT])
        add(node, found("code"))
        node.run(2)
        node.fail("code", gone=True)
        node.fail("chat")
        assert [problem for problem in node.snapshot().problems if "code" in problem] == []
        assert any("chat" in problem for problem in node.snapshot().problems)
        assert node.server("code").reason is not None


class TestTheOnlyServer:
    def test_a_second_one_ends_the_guess_and_gives_it_back_when_it_is_gone(self) -> None:
        node = Node(1)
        add(node, found("chat"))
        node.run(2)
        assert [g[1:] for g in node.server("chat").gpus] == [(0, "only_server")]
        add(node, found("code"))
        assert node.server("chat").gpus == ()
        node.run(2)
        assert node.server("chat").gpus == ()
        node.fail("code", gone=True)
        assert [g[1:] for g in node.server("chat").gpus] == [(0, "only_server")]
        node.run(2, read=("chat",))
        assert_conserved(node.snapshot())

    def test_one_that_is_gone_before_it_was_ever_read_does_not_block(self) -> None:
        node = Node(1)
        add(node, found("chat"))
        add(node, found("code"))
        node.run(1, read=("chat",))
        assert node.server("chat").gpus == ()
        node.fail("code", gone=True)
        assert node.server("chat").gpus != ()

    def test_a_configured_one_that_is_down_still_does(self) -> None:
        node = Node(1, [ServerSpec("off", "http://off")])
        add(node, found("chat"))
        node.fail("off", gone=True)
        node.run(2, read=("chat",))
        assert node.server("chat").gpus == ()


class TestMembers:
    def test_figures_per_token_of_a_member_are_absent_and_all_else_is_there(self) -> None:
        node = Node(1, [ServerSpec("head", "http://head", gpus=(0,), group="big")])
        node.run(20, generation_a_second={"head": 100})
        server = node.server("head")
        figures = server.models[0].windows["10s"]
        assert (server.scope, server.group) == ("partial", "big")
        assert (figures.tokens_per_joule, figures.joules_per_token) == ({}, {})
        assert figures.tokens_per_second["generation"] == pytest.approx(100)
        assert figures.power_watts == pytest.approx(100)
        assert node.tokens("head")["generation"] == 1900

    def test_one_without_tokens_has_no_token_series_and_all_its_energy(self) -> None:
        node = Node(1, [ServerSpec("worker", "http://worker", gpus=(0,), group="big", tokens=False)])
        node.run(20, generation_a_second={"worker": 100})
        server = node.server("worker")
        assert server.scope == "partial"
        assert [(model.model, model.tokens) for model in server.models] == [("m", {})]
        assert server.models[0].windows["10s"].tokens_per_second == {}
        assert node.energy_uj("worker") == {"active": 1_900_000_000, "idle": 0, "unobserved": 0}
        assert all(not interval.tokens for interval in node.meter.take_closed())

    def test_the_tokens_it_does_not_count_still_tell_which_model_worked(self) -> None:
        node = Node(1, [ServerSpec("worker", "http://worker", gpus=(0,), group="big", tokens=False)])
        node.run(1)
        node.servers["worker"].make(generation=3)
        node.servers["worker"].make(generation=1, model="n")
        node.run(1)
        by_model = {model.model: model.energy_uj["active"] for model in node.server("worker").models}
        assert by_model == {"m": 75_000_000, "n": 25_000_000}

    def test_one_without_tokens_may_have_no_counters_either(self) -> None:
        node = Node(1, [ServerSpec("worker", "http://worker", gpus=(0,), tokens=False)])
        for _ in range(20):
            node.run(1, read=())
            node.meter.server_reading(ServerReading("worker", node.t_ns, "vllm", {}, running=1))
        server = node.server("worker")
        assert (server.scope, server.group) == ("partial", None)
        assert [(model.model, model.tokens) for model in server.models] == [("", {})]
        assert node.energy_uj("worker")["active"] == 1_900_000_000


class TestDenominators:
    def per_joule(self, counters: dict[str, int], cached: str) -> set[str]:
        node = Node(1, [CHAT])
        for second in range(15):
            node.run(1, read=())
            page = {SeriesKey("m", kind, ""): count * second for kind, count in counters.items()}  # type: ignore[arg-type]
            node.meter.server_reading(ServerReading("chat", node.t_ns, "x", page, process_start=1.0, cached=cached))  # type: ignore[arg-type]
        return set(node.server("chat").models[0].windows["10s"].tokens_per_joule)

    @pytest.mark.parametrize(
        ("counters", "cached", "told"),
        [
            ({"prompt_computed": 10}, "known", {"processed", "total"}),  # an embedding server
            ({"unsplit": 10}, "known", {"processed", "total"}),
            ({"unsplit": 10}, "unknown", {"total"}),
            ({"generation": 10, "prompt_computed": 10}, "unknown", {"generation", "total"}),
            ({"generation": 10, "prompt_computed": 10, "prompt_cached": 5}, "known", {"generation", "processed", "total"}),
            ({"prompt": 10, "prompt_cached": 10, "generation": 0}, "known", {"total"}),  # nothing was worked for
        ],
    )
    def test_what_engines_tell_is_what_figures_there_are(self, counters: dict[str, int], cached: str, told: set[str]) -> None:
        assert self.per_joule(counters, cached) == told


def test_a_server_whose_listener_is_seen_takes_its_boards_along() -> None:
    node = Node(2, (), {11: (11, 10, 1)})
    add(node, found("chat"))
    add(node, found("code"))
    node.servers["chat"].listener = Listener(10, 1)
    node.boards[0].processes, node.boards[1].processes = (11,), ()
    node.states()
    node.run(2)
    assert [g[1:] for g in node.server("chat").gpus] == [(0, "ancestry")]
    assert node.t_ns % SECOND == 0


class TestAnotherEngineOnTheSamePort:
    def test_what_it_counted_before_is_not_ours(self) -> None:
        metered = Meterings()
        metered.read_all([100, 150], process_start=1.0)
        deltas = metered.read({SeriesKey("m", "generation", 'rank="0"'): 90_000}, engine="sglang")
        assert (deltas.reset, metered.generation) == (True, 50)
        metered.read_all([{SeriesKey("m", "generation", 'rank="0"'): count} for count in (90_010, 90_020, 90_030)], engine="sglang")
        assert (metered.generation, metered.counters.resets) == (80, 1)

    def test_unless_it_started_since(self) -> None:
        metered = Meterings()
        metered.read_all([100, 150], process_start=1.0)
        metered.read(40, engine="sglang", process_start=2.0, process_start_ns=metered.t_ns + SECOND // 2)
        assert metered.generation == 90
