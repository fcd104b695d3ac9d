"""The contract's rules, one by one, with figures a reader can work out."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.accounting.node import SECOND, START, TICK, Node, assert_conserved
from tokenwatt.accounting.server_spec import ServerSpec
from tokenwatt.types import EnergyReading, EnergyTick, Listener, SeriesKey, ServerReading

CHAT = ServerSpec("chat", "http://chat", gpus=(0,))


def chat_node(**board: object) -> Node:
    """One board at 100 W and one server on it, read once: its first interval begins."""
    node = Node(1, [CHAT], **board)  # type: ignore[arg-type]
    node.run(1)
    return node


class TestBaseline:
    def test_what_counters_held_before_is_not_ours(self) -> None:
        node = Node(1, [CHAT])
        node.servers["chat"].make(generation=1_000_000)
        node.run(3)
        assert node.tokens("chat")["generation"] == 0
        assert node.measured_uj(0) == pytest.approx(2.9 * 100e6)  # 5 kJ on the counter at the first reading

    def test_a_server_that_started_while_we_watched_counts_from_zero(self) -> None:
        node = Node(1, [CHAT])
        node.run(1, read=())
        node.fail("chat", gone=True)
        node.run(5, read=())
        node.servers["chat"].make(generation=40)
        node.run(1)
        assert node.tokens("chat")["generation"] == 40
        assert node.energy_uj("chat") == {"active": 0, "idle": 0, "unobserved": 0}

    def test_a_process_start_after_ours_says_so_too(self) -> None:
        node = Node(1, [CHAT])
        node.servers["chat"].process_start, node.servers["chat"].process_start_ns = 5.0, START + SECOND
        node.servers["chat"].make(generation=40)
        node.run(3)
        assert node.tokens("chat")["generation"] == 40

    def test_a_process_start_before_ours_is_a_baseline(self) -> None:
        node = Node(1, [CHAT])
        node.servers["chat"].process_start, node.servers["chat"].process_start_ns = 5.0, START - SECOND
        node.servers["chat"].make(generation=40)
        node.run(3)
        assert node.tokens("chat")["generation"] == 0

    def test_a_series_new_on_a_known_server_counts_from_zero(self) -> None:
        node = chat_node()
        node.servers["chat"].make(generation=9, engine="1")
        node.run(1)
        assert node.tokens("chat")["generation"] == 9


class TestResets:
    def test_a_counter_that_fell_counts_from_zero_and_the_interval_is_unobserved(self) -> None:
        node = chat_node()
        node.servers["chat"].make(generation=100)
        node.run(1)
        node.servers["chat"].restart()
        node.servers["chat"].make(generation=30)
        node.run(1)
        # Nothing but the fall tells of a restart: its tokens wait for two readings without another.
        assert node.tokens("chat")["generation"] == 100
        assert node.server("chat").resets == 1
        node.servers["chat"].make(generation=5)
        node.run(2)
        assert node.tokens("chat")["generation"] == 135
        assert node.energy_uj("chat") == {"active": 300_000_000, "idle": 0, "unobserved": 100_000_000}
        assert node.server("chat").resets == 1

    def test_a_known_process_start_divides_the_interval(self) -> None:
        node = chat_node()
        node.servers["chat"].process_start = 1.0
        node.run(1)
        node.servers["chat"].restart(2.0, node.t_ns + SECOND * 3 // 4)
        node.servers["chat"].make(generation=30)
        node.run(1)
        assert node.tokens("chat")["generation"] == 30
        assert node.energy_uj("chat") == {"active": 25_000_000, "idle": 100_000_000, "unobserved": 75_000_000}

    def test_a_new_process_start_is_a_reset_though_values_are_higher(self) -> None:
        node = chat_node()
        node.servers["chat"].process_start = 1.0
        node.servers["chat"].make(generation=100)
        node.run(1)
        node.servers["chat"].process_start = 2.0
        node.servers["chat"].make(generation=1)
        node.run(1)
        assert node.tokens("chat")["generation"] == 100 + 101

    def test_another_listener_alone_is_no_reset(self) -> None:
        node = chat_node()
        node.servers["chat"].listener = Listener(5, 5)
        node.servers["chat"].make(generation=100)
        node.run(1)
        node.servers["chat"].listener = Listener(6, 6)
        node.servers["chat"].make(generation=1)
        node.run(1)
        assert node.tokens("chat")["generation"] == 101
        assert node.server("chat").resets == 0

    def test_resets_are_found_per_series_before_they_are_summed(self) -> None:
        node = chat_node()
        node.servers["chat"].make(generation=1000, engine="0")
        node.servers["chat"].make(generation=100, engine="1")
        node.run(1)
        # Engine 1 begins anew, and the sum still rises.
        node.servers["chat"].counters[SeriesKey("m", "generation", 'engine="1"')] = 7
        node.servers["chat"].make(generation=500, engine="0")
        node.run(3)
        assert node.tokens("chat")["generation"] == 1100 + 507

    def test_a_fall_beside_another_listener_counts_at_once(self) -> None:
        node = chat_node()
        node.servers["chat"].process_start, node.servers["chat"].listener = None, Listener(5, 5)
        node.servers["chat"].make(generation=100)
        node.run(1)
        node.servers["chat"].restart()
        node.servers["chat"].listener = Listener(6, 6)
        node.servers["chat"].make(generation=30)
        node.run(1)
        assert node.tokens("chat")["generation"] == 130
        assert node.server("chat").resets == 1

    @pytest.mark.parametrize("as_before", [False, True])
    def test_one_that_slept_began_anew_when_it_woke(self, as_before: bool) -> None:
        node = chat_node()
        node.servers["chat"].make(generation=100)
        node.run(1)
        node.tick(SECOND)
        counters = node.servers["chat"].counters if as_before else {}
        node.meter.server_reading(ServerReading("chat", node.t_ns, "vllm", counters, asleep=True))
        assert node.server("chat").asleep
        node.servers["chat"].restart()
        node.servers["chat"].make(generation=30)
        node.run(1)
        assert node.tokens("chat")["generation"] == 130
        assert not node.server("chat").asleep
        assert {model.model for model in node.server("chat").models} == {"m"}

    def test_one_that_was_asleep_at_first_has_its_baseline_when_it_wakes(self) -> None:
        node = Node(1, [CHAT])
        node.tick(SECOND)
        node.meter.server_reading(ServerReading("chat", node.t_ns, "vllm", {}, asleep=True))
        node.servers["chat"].make(generation=5000)
        node.run(1)
        node.servers["chat"].make(generation=30)
        node.run(1)
        assert node.tokens("chat")["generation"] == 30

    def test_the_boards_counter(self) -> None:
        node = chat_node()
        before = node.measured_uj(0)
        node.boards[0].energy_mj = 0
        node.run(1)
        assert node.measured_uj(0) - before == 100_000_000
        assert node.snapshot().gpus[0].resets == 1

    def test_a_driver_that_changed_makes_a_new_counter_though_its_value_is_higher(self) -> None:
        node = chat_node()
        before = node.measured_uj(0)
        old = node.boards[0].gpu
        node.boards[0].gpu = type(old)(old.uuid, old.index, old.name, "590.1", old.pci_bus_id, old.power_limit_max_mw)
        node.states()
        node.boards[0].energy_mj += 300_000
        node.boards[0].power_mw = 0
        node.run(2)
        # 300 J more than before, and 5 kJ since the reload: neither can have been used in a tick, so the integral stands in.
        assert node.measured_uj(0) - before <= 10_000_000
        assert node.snapshot().gpus[0].resets == 1


class TestRejection:
    def test_a_reading_no_board_could_make_moves_nothing(self) -> None:
        node = chat_node()
        before = node.measured_uj(0)
        node.boards[0].energy_mj += 10**9
        node.tick()
        node.tick()
        assert node.measured_uj(0) == before
        assert node.snapshot().gpus[0].rejected_readings == 2
        node.boards[0].energy_mj -= 10**9
        node.tick()
        assert node.measured_uj(0) == before + 30_000_000
        assert node.snapshot().gpus[0].resets == 0

    def test_three_in_a_row_are_a_new_counter_and_the_integral_fills_the_gap(self) -> None:
        node = chat_node()
        before = node.measured_uj(0)
        node.boards[0].energy_mj += 10**9
        node.run(1)
        gpu_now = node.snapshot().gpus[0]
        assert node.measured_uj(0) - before == 100_000_000
        assert (gpu_now.rejected_readings, gpu_now.resets) == (3, 1)

    @pytest.mark.parametrize(("mj_too_many", "rejected"), [(0, 0), (1, 1)])
    def test_the_bound_is_a_fifth_above_the_highest_limit_over_the_time_and_a_second(self, mj_too_many: int, rejected: int) -> None:
        node = chat_node()
        node.boards[0].power_mw = 0
        node.boards[0].energy_mj += 1_200 * 700 * 11 // 10 + mj_too_many
        node.tick()
        assert node.snapshot().gpus[0].rejected_readings == rejected

    def test_a_module_has_no_bound(self) -> None:
        node = Node(1, [CHAT])
        old = node.boards[0].gpu
        node.boards[0].gpu = type(old)(old.uuid, 0, old.name, old.driver, old.pci_bus_id, old.power_limit_max_mw, "module")
        node.states()
        node.run(1)
        node.boards[0].energy_mj += 10**6
        node.tick()
        assert node.snapshot().gpus[0].rejected_readings == 0

    def test_tokens_above_a_billion_a_second(self) -> None:
        node = chat_node()
        node.servers["chat"].make(generation=2 * 10**9)
        node.run(1)
        assert node.tokens("chat")["generation"] == 0
        assert not node.server("chat").up
        assert "more than 10^9 a second" in (node.server("chat").reason or "")
        node.servers["chat"].make(generation=-2 * 10**9)
        node.servers["chat"].make(generation=5)
        node.run(1)
        assert node.tokens("chat")["generation"] == 5
        assert node.server("chat").up

    def test_three_of_those_are_a_new_counter(self) -> None:
        node = chat_node()
        node.servers["chat"].make(generation=10**12)
        node.run(3)
        node.servers["chat"].make(generation=5)
        node.run(1)
        assert node.tokens("chat")["generation"] == 5
        assert (node.server("chat").rejected_readings, node.server("chat").resets) == (3, 1)

    def test_a_page_with_impossible_values_is_counted(self) -> None:
        node = chat_node()
        node.fail("chat", rejected=True)
        assert node.server("chat").rejected_readings == 1
        assert not node.server("chat").up


class TestClosing:
    def test_energy_is_interpolated_to_the_instant_of_the_reading(self) -> None:
        node = chat_node()
        t_ns = node.t_ns
        node.tick()
        node.servers["chat"].make(generation=1)
        node.read("chat", t_ns + TICK // 4)
        node.tick()
        assert node.energy_uj("chat")["active"] == 2_500_000
        assert node.server("chat").pending_uj == 17_500_000

    def test_a_reading_waits_until_the_energy_is_known(self) -> None:
        node = chat_node()
        node.servers["chat"].make(generation=1)
        node.read("chat", node.t_ns + TICK // 2)
        assert node.tokens("chat")["generation"] == 0
        node.tick()
        assert node.tokens("chat")["generation"] == 1
        assert node.energy_uj("chat")["active"] == 5_000_000

    def test_idle_and_active(self) -> None:
        node = chat_node()
        node.run(2)
        assert node.energy_uj("chat") == {"active": 0, "idle": 200_000_000, "unobserved": 0}
        node.servers["chat"].running = 1
        node.run(1)
        assert node.energy_uj("chat")["active"] == 100_000_000

    def test_a_failed_read_is_a_gap_that_the_next_reading_closes(self) -> None:
        node = chat_node()
        node.servers["chat"].make(generation=50)
        node.fail("chat")
        node.run(20, read=())
        assert node.server("chat").pending_uj == 2_000_000_000
        assert not node.server("chat").up
        node.run(1)
        assert node.energy_uj("chat") == {"active": 2_100_000_000, "idle": 0, "unobserved": 0}
        assert node.server("chat").up

    def test_a_gap_over_a_minute_is_unobserved_and_its_tokens_count(self) -> None:
        node = chat_node()
        node.servers["chat"].make(generation=50)
        node.run(61, read=())
        node.run(1)
        assert node.energy_uj("chat") == {"active": 0, "idle": 0, "unobserved": 6_200_000_000}
        assert node.tokens("chat")["generation"] == 50

    def test_pending_is_settled_after_ten_minutes_and_late_tokens_count(self) -> None:
        node = chat_node()
        node.servers["chat"].make(generation=50)
        node.run(602, read=())
        assert node.server("chat").pending_uj < 200_000_000
        assert node.energy_uj("chat")["unobserved"] > 60_000_000_000
        node.run(1)
        assert node.tokens("chat")["generation"] == 50
        assert_conserved(node.snapshot())

    def test_servers_of_one_node_close_at_their_own_instants(self) -> None:
        node = Node(2, [CHAT, ServerSpec("code", "http://code", gpus=(1,))])
        node.run(1)
        node.run(3, read=("code",))
        assert node.server("chat").pending_uj == 300_000_000
        assert node.server("code").pending_uj == 0


class TestLostBoard:
    def test_its_energy_over_the_gap_is_unobserved_in_the_first_interval_after(self) -> None:
        node = Node(2, [ServerSpec("chat", "http://chat", gpus=(0, 1))])
        node.run(1)
        node.boards[1].error, node.boards[1].lost = "GPU is lost", True
        node.run(5, generation_a_second={"chat": 10})
        assert node.tokens("chat")["generation"] == 50  # no interval is held back
        assert node.energy_uj("chat") == {"active": 0, "idle": 0, "unobserved": 500_000_000}
        assert not node.snapshot().gpus[1].up
        assert node.snapshot().gpus[0].up
        node.boards[1].error = None
        node.run(1)
        assert node.energy_uj("chat") == {"active": 0, "idle": 0, "unobserved": 500_000_000 + 500_000_000 + 200_000_000}
        node.run(1, generation_a_second={"chat": 10})
        assert node.energy_uj("chat")["active"] == 200_000_000

    def test_windows_that_touch_the_gap_are_not_covered(self) -> None:
        node = Node(1, [CHAT])
        node.run(301, generation_a_second={"chat": 10})
        assert "generation" in _figures(node, "1m").tokens_per_joule
        node.boards[0].error, node.boards[0].lost = "GPU is lost", True
        node.run(1, generation_a_second={"chat": 10})
        node.boards[0].error = None
        node.run(20, generation_a_second={"chat": 10})
        assert _figures(node, "10s").covered
        assert not _figures(node, "1m").covered
        assert not _figures(node, "5m").covered

    def test_a_single_failed_read_is_bridged(self) -> None:
        node = chat_node()
        node.boards[0].error = "one read failed"
        node.tick()
        node.boards[0].error = None
        node.run(1)
        assert node.energy_uj("chat") == {"active": 0, "idle": 110_000_000, "unobserved": 0}
        assert node.snapshot().gpus[0].samples_missed == 1

    def test_a_board_that_fails_without_being_lost_holds_nothing_back_for_long(self) -> None:
        node = chat_node()
        node.boards[0].error = "it does not answer"
        node.run(5, generation_a_second={"chat": 10})
        assert node.tokens("chat")["generation"] == 50

    def test_ticks_that_never_came_are_counted(self) -> None:
        node = chat_node()
        node.tick(10 * TICK)
        assert node.snapshot().gpus[0].samples_missed == 9


class TestGone:
    def test_the_interval_ends_there_and_the_board_is_unattributed_whatever_the_settings_say(self) -> None:
        node = chat_node()
        node.run(1)
        for _ in range(5):
            node.tick()
        node.fail("chat", gone=True)
        node.run(10, read=())
        assert node.energy_uj("chat") == {"active": 0, "idle": 100_000_000, "unobserved": 50_000_000}
        assert node.server("chat").pending_uj == 0
        assert node.server("chat").gpus == ()
        assert node.unattributed_uj(0) == 1_000_000_000 + 90_000_000
        assert_conserved(node.snapshot())

    def test_one_that_comes_back_goes_on(self) -> None:
        node = chat_node()
        node.servers["chat"].make(generation=10)
        node.run(1)
        node.fail("chat", gone=True)
        node.run(10, read=())
        node.servers["chat"].restart()
        node.servers["chat"].make(generation=3)
        node.run(2)
        assert node.tokens("chat")["generation"] == 13
        assert node.energy_uj("chat")["idle"] == 100_000_000
        assert node.server("chat").resets == 1

    def test_one_that_only_refused_for_a_moment_is_the_same(self) -> None:
        node = chat_node()
        node.servers["chat"].process_start = 1.0
        node.servers["chat"].make(generation=10)
        node.run(1)
        node.fail("chat", gone=True)
        node.run(3, read=())
        node.servers["chat"].make(generation=3)
        node.run(1)
        assert node.tokens("chat")["generation"] == 13
        assert node.server("chat").resets == 0

    def test_one_that_goes_in_the_tick_in_which_another_opens_has_nothing_pending(self) -> None:
        node = Node(1, [CHAT, ServerSpec("code", "http://code", gpus=(0,))])
        node.run(2, read=("chat",))
        node.tick()
        node.read("code", node.t_ns + TICK // 2)
        node.fail("chat", gone=True)
        node.run(2, read=("code",))
        assert node.server("chat").pending_uj == 0
        assert_conserved(node.snapshot())

    def test_a_late_answer_of_one_that_is_gone_does_not_bring_it_back(self) -> None:
        node = chat_node()
        node.run(1)
        node.fail("chat", gone=True)
        node.read("chat", node.t_ns - TICK // 3)
        node.fail("chat", gone=True)
        intervals = node.meter.take_closed()
        assert all(a.end_ns <= b.start_ns for a, b in pairwise(intervals))
        assert node.server("chat").gpus == ()

    def test_slow_is_not_gone(self) -> None:
        node = chat_node()
        node.fail("chat")
        node.run(3, read=())
        assert node.unattributed_uj(0) == 90_000_000
        assert node.server("chat").pending_uj == 300_000_000


class TestIntegral:
    def test_a_board_without_a_counter_is_integrated(self) -> None:
        node = chat_node(counter=False)
        node.boards[0].power_mw = 300_000
        node.run(1)
        board = node.snapshot().gpus[0]
        # The step from 100 to 300 W is a ramp over one tick.
        assert board.energy_uj == 90_000_000 + 20_000_000 + 270_000_000
        assert board.source == "integral"
        assert board.agreement_ratio is None

    def test_power_that_is_not_known_is_not_zero(self) -> None:
        node = chat_node(counter=False)
        before = node.measured_uj(0)
        uuid = node.boards[0].gpu.uuid
        for _ in range(20):
            node.t_ns += TICK
            node.meter.energy_tick(EnergyTick((EnergyReading(uuid, node.t_ns),)))
        node.run(1)
        assert node.measured_uj(0) - before == 300_000_000

    def test_a_long_gap_is_not_integrated(self) -> None:
        node = chat_node(counter=False)
        before = node.measured_uj(0)
        node.tick(100 * SECOND)
        assert node.measured_uj(0) == before

    def test_counter_and_integral_are_compared(self) -> None:
        node = chat_node()
        node.run(10)
        assert node.snapshot().gpus[0].agreement_ratio == pytest.approx(1.0)
        node = chat_node()
        for _ in range(100):
            node.tick()
            node.boards[0].energy_mj -= 5_000  # the counter gives half
            node.meter.each_second(node.t_ns)
        assert node.snapshot().gpus[0].agreement_ratio == pytest.approx(0.5, abs=0.06)

    def test_a_counter_that_can_no_longer_be_read_is_given_up_and_nothing_is_lost(self) -> None:
        node = chat_node()
        node.boards[0].counter = False
        node.run(70)
        assert node.measured_uj(0) == 100_000_000 * 70 + 90_000_000
        assert node.snapshot().gpus[0].source == "integral"
        node.boards[0].counter = True
        node.run(10)
        assert node.measured_uj(0) == 100_000_000 * 80 + 90_000_000
        assert node.snapshot().gpus[0].source == "counter"


class TestSharing:
    def test_two_servers_the_settings_put_on_one_board_share_by_their_tokens(self) -> None:
        node = Node(1, [CHAT, ServerSpec("code", "http://code", gpus=(0,))])
        node.run(2)
        assert (node.energy_uj("chat")["idle"], node.energy_uj("code")["idle"]) == (50_000_000, 50_000_000)
        assert node.snapshot().gpus[0].split == "equal"
        node.run(1, generation_a_second={"chat": 300, "code": 100})
        node.run(1)
        assert node.energy_uj("chat")["idle"] == 50_000_000 + 75_000_000
        assert node.energy_uj("code")["idle"] == 50_000_000 + 25_000_000
        assert node.snapshot().gpus[0].split == "equal" or node.snapshot().gpus[0].split == "tokens"

    def test_by_sm_utilisation_where_the_driver_tells_it_foreign_processes_too(self) -> None:
        node = Node(1, [CHAT], {11: (11, 10, 1), 99: (99, 1)}, processes=(11, 99), sm_utilization={11: 60, 99: 20})
        node.servers["chat"].listener = Listener(10, 1)
        node.states()
        node.run(2)
        assert node.energy_uj("chat")["idle"] == 75_000_000
        assert node.unattributed_uj(0) == 90_000_000 + 25_000_000
        assert node.snapshot().gpus[0].split == "sm_utilization"

    def test_a_server_whose_processes_cannot_be_seen_loses_nothing_to_strangers(self) -> None:
        node = Node(1, [CHAT], {99: (99, 1)}, processes=(99,), sm_utilization={99: 20})
        node.states()
        node.run(2)
        assert node.energy_uj("chat")["idle"] == 100_000_000
        assert node.snapshot().gpus[0].split == "sole"

    def test_models_share_by_the_tokens_worked_for(self) -> None:
        node = chat_node()
        node.servers["chat"].make(generation=2, computed=1, cached=1000, model="m")
        node.servers["chat"].make(generation=1, model="n")
        node.run(1)
        by_model = {model.model: model.energy_uj["active"] for model in node.server("chat").models}
        assert by_model == {"m": 75_000_000, "n": 25_000_000}
        node.run(1)
        by_model = {model.model: model.energy_uj["idle"] for model in node.server("chat").models}
        assert by_model == {"m": 50_000_000, "n": 50_000_000}

    def test_a_model_that_is_no_longer_served_takes_no_part(self) -> None:
        node = chat_node()
        node.servers["chat"].counters = {SeriesKey("new", "generation", ""): 0}
        node.run(2)
        by_model = {model.model: model.energy_uj["idle"] for model in node.server("chat").models}
        assert by_model["m"] == 0
        assert by_model["new"] > 0


class TestWhoHoldsWhat:
    def test_processes_that_descend_from_the_listener(self) -> None:
        servers = [ServerSpec("chat", "http://chat"), ServerSpec("code", "http://code")]
        node = Node(3, servers, {11: (11, 10, 1), 20: (20, 1)})
        node.servers["chat"].listener, node.servers["code"].listener = Listener(10, 1), Listener(20, 1)
        node.boards[0].processes, node.boards[1].processes, node.boards[2].processes = (11,), (20,), ()
        node.states()
        node.run(2)
        assert [g[1:] for g in node.server("chat").gpus] == [(0, "ancestry")]
        assert [g[1:] for g in node.server("code").gpus] == [(1, "ancestry")]
        assert node.energy_uj("chat")["idle"] == 100_000_000
        assert node.unattributed_uj(2) == 190_000_000

    def test_one_list_of_processes_that_fails_takes_no_board_away(self) -> None:
        node = Node(1, [ServerSpec("chat", "http://chat"), ServerSpec("off", "http://off")], {11: (11, 10, 1)})
        node.servers["chat"].listener = Listener(10, 1)
        node.boards[0].processes = (11,)
        node.states()
        node.run(2, read=("chat",))
        node.boards[0].processes = None
        node.states()
        node.run(1, read=("chat",))
        assert node.energy_uj("chat")["idle"] == 200_000_000
        assert node.snapshot().gpus[0].processes is None
        for _ in range(6):
            node.run(1, read=("chat",))
            node.states()
        assert node.server("chat").gpus == ()  # a driver that tells no more for long is believed

    def test_the_only_server_there_is_holds_all(self) -> None:
        node = Node(2, [ServerSpec("chat", "http://chat")])
        node.run(2)
        assert [g[1:] for g in node.server("chat").gpus] == [(0, "only_server"), (1, "only_server")]

    def test_with_a_second_server_nothing_is_guessed(self) -> None:
        node = Node(1, [ServerSpec("chat", "http://chat"), ServerSpec("code", "http://code")])
        node.run(2, read=("chat",))
        assert node.server("chat").gpus == ()
        assert any("no GPU is known to serve it" in problem for problem in node.snapshot().problems)
        assert node.server("chat").models[0].energy_uj == {}

    def test_settings_win_and_may_name_a_board_by_uuid_or_its_beginning(self) -> None:
        node = Node(2, [ServerSpec("chat", "http://chat", gpus=("gpu-00000001",))], {11: (11, 10)})
        node.servers["chat"].listener = Listener(10, 1)
        node.boards[0].processes = (11,)
        node.states()
        node.run(2)
        assert [g[1:] for g in node.server("chat").gpus] == [(1, "settings")]

    def test_a_board_the_settings_name_and_nobody_has_is_a_problem(self) -> None:
        node = Node(1, [ServerSpec("chat", "http://chat", gpus=(7,))])
        node.run(2)
        assert any("GPU 7" in problem for problem in node.snapshot().problems)

    def test_an_index_means_the_board_that_had_it_first(self) -> None:
        node = Node(2, [ServerSpec("chat", "http://chat", gpus=(1,))])
        node.run(2)
        held = node.server("chat").gpus[0][0]
        old = node.boards[1].gpu
        node.boards[1].gpu = type(old)(old.uuid, 0, old.name, old.driver, old.pci_bus_id, old.power_limit_max_mw)
        node.states()
        node.run(1)
        assert node.server("chat").gpus[0][:2] == (held, 0)

    def test_a_process_that_moves_takes_the_energy_along_from_that_moment(self) -> None:
        node = Node(2, [ServerSpec("chat", "http://chat"), ServerSpec("off", "http://off")], {11: (11, 10, 1)})
        node.servers["chat"].listener = Listener(10, 1)
        node.boards[0].processes, node.boards[1].processes = (11,), ()
        node.states()
        node.run(2, read=("chat",))
        node.boards[0].processes, node.boards[1].processes = (), (11,)
        node.states()
        node.run(1, read=("chat",))
        assert node.energy_uj("chat")["idle"] == 200_000_000
        assert node.unattributed_uj(0) == 90_000_000 + 100_000_000


class TestCached:
    def page(self, node: Node, prompt: int, cached: int) -> ServerReading:
        counters = {SeriesKey("m", "prompt", ""): prompt, SeriesKey("m", "prompt_cached", ""): cached}
        return ServerReading("chat", node.t_ns, "vllm", counters, process_start=1.0, cached="known")

    def test_cached_tokens_are_taken_off_and_nothing_falls_when_their_counter_is_ahead(self) -> None:
        node = Node(1, [CHAT])
        for prompt, cached, computed in ((0, 0, 0), (100, 40, 60), (100, 60, 60), (200, 60, 140)):
            node.run(1, read=())
            node.meter.server_reading(self.page(node, prompt, cached))
            assert node.tokens("chat").get("prompt_computed", 0) == computed
        assert node.tokens("chat")["prompt_cached"] == 60

    def test_figures_per_processed_token_need_cached_tokens_to_be_known(self) -> None:
        node = Node(1, [CHAT])
        node.servers["chat"].cached = "unknown"
        node.run(15, generation_a_second={"chat": 10})
        assert set(_figures(node, "10s").tokens_per_joule) == {"generation", "total"}
        node.servers["chat"].cached = "known"
        node.run(1, generation_a_second={"chat": 10})
        assert set(_figures(node, "10s").tokens_per_joule) == {"generation", "processed", "total"}


class TestWindows:
    def test_figures(self) -> None:
        node = Node(1, [CHAT])
        node.run(20, generation_a_second={"chat": 200})
        f = _figures(node, "10s")
        assert f.coverage_ratio == 1
        assert f.power_watts == pytest.approx(100)
        assert f.tokens_per_second["generation"] == pytest.approx(200)
        assert f.tokens_per_joule["generation"] == pytest.approx(2)
        assert f.joules_per_token["generation"] == pytest.approx(0.5)
        assert node.server("chat").windows["10s"].idle_energy_ratio == 0

    def test_idle_is_zero_tokens_a_second_and_no_tokens_per_joule(self) -> None:
        node = Node(1, [CHAT])
        node.run(20)
        f = _figures(node, "10s")
        assert f.tokens_per_second["generation"] == 0
        assert f.tokens_per_joule == {}
        assert node.server("chat").windows["10s"].idle_energy_ratio == 1

    def test_a_window_is_covered_from_95_per_cent_on(self) -> None:
        node = Node(1, [CHAT])
        node.run(57, generation_a_second={"chat": 10})
        assert _figures(node, "1m").coverage_ratio == pytest.approx(56 / 60)
        assert not _figures(node, "1m").covered
        node.run(1, generation_a_second={"chat": 10})
        assert _figures(node, "1m").coverage_ratio == pytest.approx(57 / 60)
        assert _figures(node, "1m").covered
        # Rates are over what was seen: nobody knows what was before.
        assert _figures(node, "1m").power_watts == pytest.approx(100)
        assert _figures(node, "1m").tokens_per_second["generation"] == pytest.approx(10)

    def test_a_server_not_read_for_three_periods_has_no_figures(self) -> None:
        node = Node(1, [CHAT])
        node.run(70)
        node.run(3, read=())
        assert _figures(node, "10s").covered
        node.tick()
        assert not _figures(node, "10s").covered
        assert _figures(node, "10s").coverage_ratio < 0.7
        node.run(20, read=())
        assert _figures(node, "10s").coverage_ratio == 0

    def test_a_time_in_which_it_held_no_board_has_tokens_and_no_ratio(self) -> None:
        node = Node(1, [ServerSpec("chat", "http://chat"), ServerSpec("off", "http://off")], {11: (11, 10, 1)})
        node.servers["chat"].listener = Listener(10, 1)
        node.boards[0].processes = (11,)
        node.states()
        node.run(15, read=("chat",), generation_a_second={"chat": 100})
        assert _figures(node, "10s").tokens_per_joule["generation"] == pytest.approx(1)
        node.boards[0].processes = ()
        node.states()
        node.run(2, read=("chat",), generation_a_second={"chat": 100})
        node.boards[0].processes = (11,)
        node.states()
        node.run(2, read=("chat",), generation_a_second={"chat": 100})
        f = _figures(node, "10s")
        assert (f.tokens_per_joule, f.power_watts) == ({}, None)
        assert f.tokens_per_second["generation"] == pytest.approx(100)
        assert node.server("chat").windows["10s"].idle_energy_ratio is None
        node.run(11, read=("chat",), generation_a_second={"chat": 100})
        assert _figures(node, "10s").tokens_per_joule["generation"] == pytest.approx(1)

    def test_statistics_of_power(self) -> None:
        node = Node(1, [CHAT])
        node.run(30)
        node.boards[0].power_mw = 400_000
        node.run(30)
        power = node.snapshot().gpus[0].power_statistics
        assert power is not None
        assert (power.minimum_mw, power.maximum_mw) == (100_000, 400_000)


def _figures(node: Node, window: str):  # type: ignore[no-untyped-def]
    return node.server("chat").models[0].windows[window]
