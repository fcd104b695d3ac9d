"""Boards and drivers that fail: what NvmlSource says then, and how it comes back."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress

import pynvml
import pytest

from tests.energy.conftest import STEADY, MakeNode, MakeSource
from tests.nvml.board import NOT_SUPPORTED, Node
from tests.nvml.control import CALLS
from tokenwatt.energy.nvml import NvmlSource
from tokenwatt.energy.source import SourceUnavailable

CODES = sorted(value for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_") and isinstance(value, int))
NEW_CODE = 31337  # one that this binding does not know


def use(source: NvmlSource, node: Node) -> None:
    """Everything there is to ask, of every board. What matters is that nothing is raised."""
    for board in node.boards:
        reading = source.read(board.uuid, want_processes=True)
        assert reading.error is None or ("\n" not in reading.error and reading.energy_mj is None and reading.power_mw is None)
        assert reading.error is not None or not reading.lost
        source.state(board.uuid)


def assert_well(source: NvmlSource, node: Node, index: int) -> None:
    reading = source.read(node.boards[index].uuid, want_processes=False)
    assert (reading.error, reading.power_mw) == (None, 300_000)
    assert reading.energy_mj is not None
    state = source.state(node.boards[index].uuid)
    assert state is not None
    assert state.temperature_celsius == 40


def test_all_codes_are_swept() -> None:
    assert len(CODES) >= 31
    assert {1, 2, 3, 15, 999} <= set(CODES)


@pytest.mark.parametrize("call", [call for call in CALLS if call.startswith("nvmlDeviceGet") and call != "nvmlDeviceGetCount_v2"])
def test_any_error_of_any_call_of_one_board(make_node: MakeNode, make_source: MakeSource, call: str) -> None:
    node = make_node(STEADY, STEADY)
    source = make_source()
    board = node.boards[0]
    for code in [*CODES, NEW_CODE]:
        for fails_from_the_start in (True, False):
            if not fails_from_the_start:
                board.fail(call, 0)
                source.open()
                use(source, node)
            board.fail(call, code)
            with suppress(SourceUnavailable):
                source.open()
            use(source, node)
            use(source, node)
            assert_well(source, node, 1)
            source.close()
            board.fail(call, 0)
        source.open()
        assert_well(source, node, 0)
        source.close()


@pytest.mark.parametrize("call", CALLS)
def test_any_error_of_any_call_of_the_node(make_node: MakeNode, make_source: MakeSource, call: str) -> None:
    node = make_node(STEADY)
    source = make_source()
    for code in [*CODES, NEW_CODE]:
        node.fail(call, code)
        with suppress(SourceUnavailable):
            source.open()
        use(source, node)
        node.fail(call, 0)
        source.open()
        assert_well(source, node, 0)
        node.fail(call, code)
        use(source, node)
        with suppress(SourceUnavailable):
            source.open()
        use(source, node)
        node.fail(call, 0)
        source.close()
        assert node.control.references == 0


@pytest.mark.parametrize("field", [83, 185, 186])
def test_any_error_of_any_field(make_node: MakeNode, make_source: MakeSource, field: int) -> None:
    node = make_node(STEADY, STEADY)
    source = make_source()
    for code in [*CODES, NEW_CODE]:
        source.open()
        node.boards[0].field(field, code=code)
        use(source, node)
        use(source, node)
        assert_well(source, node, 1)
        node.boards[0].field(field)
        source.close()


@pytest.mark.parametrize("lost", [1, 2])  # the call fails; only its entries do
def test_lost_board_drops_out_alone_and_comes_back(make_node: MakeNode, make_source: MakeSource, lost: int) -> None:
    node = make_node(STEADY, STEADY)
    source = make_source()
    source.open()
    use(source, node)
    node.boards[0].entry.lost = lost
    reading = source.read(node.boards[0].uuid, want_processes=False)
    assert reading.lost
    assert reading.error is not None
    assert "lost" in reading.error
    assert_well(source, node, 1)
    assert [gpu.uuid for gpu in source.open()] == [board.uuid for board in node.boards if lost == 2 or board is not node.boards[0]]
    node.boards[0].entry.lost = 0
    assert_well(source, node, 0)


def test_renumbering_when_a_board_disappears(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node([(10, 100_000)], [(10, 200_000)], [(10, 300_000)])
    source = make_source()
    source.open()
    use(source, node)
    node.boards[0].entry.present = 0
    assert [(gpu.uuid, gpu.index) for gpu in source.open()] == [(node.boards[1].uuid, 0), (node.boards[2].uuid, 1)]
    assert source.read(node.boards[0].uuid, want_processes=False).lost
    assert [source.read(board.uuid, want_processes=False).power_mw for board in node.boards[1:]] == [200_000, 300_000]
    state = source.state(node.boards[2].uuid)
    assert state is not None
    assert state.gpu.index == 1
    node.boards[0].entry.present = 1
    assert [gpu.index for gpu in source.open()] == [0, 1, 2]
    assert source.read(node.boards[0].uuid, want_processes=False).power_mw == 100_000


def test_board_behind_another_handle_in_the_same_session(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node([(10, 100_000)], [(10, 200_000)])
    source = make_source()
    source.open()
    use(source, node)
    first, second = (board.entry for board in node.boards)
    first.uuid, second.uuid = second.uuid, first.uuid
    source.open()
    assert [source.read(board.uuid, want_processes=False).power_mw for board in node.boards] == [100_000, 200_000]


@pytest.mark.parametrize("stale_code", [1, 9, 18])
def test_driver_reload(make_node: MakeNode, make_source: MakeSource, stale_code: int) -> None:
    node = make_node(STEADY, STEADY)
    source = make_source()
    source.open()
    use(source, node)
    for board in node.boards:
        board.reset_counter(10_000_000)
    assert (source.read(node.boards[0].uuid, want_processes=False).energy_mj or 0) >= 10_000_000
    node.unload_driver(stale_code)
    assert all(source.read(board.uuid, want_processes=False).lost for board in node.boards)
    for _ in range(3):
        with pytest.raises(SourceUnavailable, match="modprobe nvidia"):
            source.open()
        reading = source.read(node.boards[0].uuid, want_processes=False)
        assert reading.lost
        assert "driver is not loaded" in (reading.error or "")
    node.load_driver()
    assert len(source.open()) == 2
    assert node.control.references == 1
    assert (source.read(node.boards[0].uuid, want_processes=False).energy_mj or 0) < 10_000_000
    assert_well(source, node, 1)


def test_reload_while_the_session_still_counts_boards(make_node: MakeNode, make_source: MakeSource) -> None:
    """The list of boards may come from the library's memory: then the reads tell that the session is dead."""
    node = make_node(STEADY)
    source = make_source()
    source.open()
    node.boards[0].fail("nvmlDeviceGetFieldValues", 1, times=1)
    assert source.read(node.boards[0].uuid, want_processes=False).lost
    source.open()
    assert node.control.sessions == 2
    assert_well(source, node, 0)


def test_shutdown_that_fails_is_made_good(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node(STEADY)
    source = make_source()
    source.open()
    node.fail("nvmlShutdown", 999)
    node.control.driver_epoch += 1
    with pytest.raises(SourceUnavailable):
        source.open()
    node.fail("nvmlShutdown", 0)
    source.open()
    assert_well(source, node, 0)
    assert node.control.references == 1


def test_board_that_only_a_new_session_finds(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node(STEADY, STEADY)
    node.control.enumerate_at_init = 1
    source = make_source(restart_after_s=0.05)
    source.open()
    use(source, node)
    node.boards[1].entry.present = 0
    source.read(node.boards[1].uuid, want_processes=False)
    source.open()
    sessions, handed = node.control.sessions, source.read(node.boards[1].uuid, want_processes=False)
    assert handed.lost
    time.sleep(0.06)
    assert len(source.open()) == 1  # restarted, and still gone
    assert node.control.sessions == sessions + 1
    node.boards[1].entry.present = 1
    source.open()
    assert node.control.sessions == sessions + 1  # a restart holds the others up: not at every try
    time.sleep(0.13)
    assert len(source.open()) == 2
    assert_well(source, node, 0)
    assert_well(source, node, 1)


def test_no_restart_while_a_call_hangs(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node(STEADY, STEADY)
    source = make_source(restart_after_s=0)
    source.open()
    node.boards[0].stick("nvmlDeviceGetFieldValues")
    hanging = threading.Thread(target=source.read, args=(node.boards[0].uuid,), kwargs={"want_processes": False})
    hanging.start()
    try:
        node.boards[1].entry.lost = 1
        source.read(node.boards[1].uuid, want_processes=False)
        node.boards[1].entry.lost = 0
        source.open()
        assert node.control.sessions == 1
        assert_well(source, node, 1)
        source.close()
        assert node.control.references == 1
    finally:
        node.unstick()
        hanging.join()
    source.close()
    assert node.control.references == 0


@pytest.mark.parametrize(
    ("code", "words"),
    [(9, "modprobe nvidia"), (4, "no permission"), (18, "different versions"), (12, "libnvidia-ml.so.1 was not found"), (999, "error 999")],
)
def test_nvml_that_does_not_start_is_one_sentence(make_node: MakeNode, make_source: MakeSource, code: int, words: str) -> None:
    node = make_node(STEADY)
    source = make_source()
    node.fail("nvmlInitWithFlags", code)
    with pytest.raises(SourceUnavailable, match=words) as caught:
        source.open()
    assert "\n" not in str(caught.value)
    node.fail("nvmlInitWithFlags", 0)
    assert len(source.open()) == 1


def test_node_without_boards_is_one_sentence_and_one_that_comes_is_found(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node()
    node.control.enumerate_at_init = 1
    source = make_source()
    with pytest.raises(SourceUnavailable, match="NVML finds no GPU on this node"):
        source.open()
    assert node.control.references == 0
    node.add(STEADY)
    assert len(source.open()) == 1


def test_boards_that_may_not_be_asked_are_one_sentence(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node(STEADY, STEADY)
    node.fail("nvmlDeviceGetHandleByIndex_v2", 4)
    with pytest.raises(SourceUnavailable, match="no permission"):
        make_source().open()


def test_names_that_cannot_be_read_are_empty(make_node: MakeNode, make_source: MakeSource) -> None:
    node = make_node(STEADY)
    board, source = node.boards[0], make_source()
    board.entry.name = b"\xff\xfe"
    board.fail("nvmlDeviceGetPciInfo_v3", 999)
    board.fail("nvmlDeviceGetPowerManagementLimitConstraints", NOT_SUPPORTED)
    (gpu,) = source.open()
    assert (gpu.name, gpu.pci_bus_id, gpu.power_limit_max_mw) == ("", "", None)
    board.entry.name = b"NVIDIA L4"
    assert source.open()[0].name == "NVIDIA L4"
    board.fail("nvmlDeviceGetName", 999)
    assert source.open()[0].name == "NVIDIA L4"


def test_source_is_silent(make_node: MakeNode, make_source: MakeSource, caplog: pytest.LogCaptureFixture) -> None:
    node = make_node(STEADY)
    source = make_source()
    with caplog.at_level(logging.DEBUG):
        source.open()
        node.boards[0].entry.lost = 1
        use(source, node)
    assert not caplog.records  # the sampler tells, once
