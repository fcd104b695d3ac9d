from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwatt.accounting.meter import Meter
from tokenwatt.accounting.server_spec import ServerSpec
from tokenwatt.servers.push.keys import KEYS_MAX
from tokenwatt.servers.push.pushed import MODELS_MAX, NEW_SERVERS_MAX, Pushed, PushedTokens
from tokenwatt.types import KINDS, Kind, ServerFailure, ServerReading, TokenReport

SECOND = 10**9
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE
START = 5_000 * SECOND

LISTEN = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""

FORK = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
worker = os.fork()
if worker:
    print(listener.getsockname()[1], worker, flush=True)
sys.stdin.read()
"""


@dataclass
class Node:
    """Pushed tokens in front of a real meter. Time moves only by ``read``."""

    configured: tuple[tuple[str, str], ...] = ()
    now_ns: int = START
    new: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.meter = Meter([ServerSpec(*each) for each in self.configured], lambda _: (), power_period_ns=SECOND // 10, started_ns=START)
        self.now_ns += SECOND // 2
        self.tokens = PushedTokens(self.configured, on_new=self._add, clock_ns=lambda: self.now_ns)

    def _add(self, name: str, url: str) -> None:
        self.new.append((name, url))
        self.meter.add(ServerSpec(name, url, configured=False))

    def push(self, *reports: TokenReport, request: str | None = None) -> Pushed:
        self.now_ns += SECOND // 100
        return self.tokens.push([(report, None) for report in reports], (request, b"1") if request else None)

    def read(self, after_ns: int = SECOND) -> list[ServerReading | ServerFailure]:
        self.now_ns += after_ns
        messages = self.tokens.readings(self.now_ns)
        for message in messages:
            if isinstance(message, ServerReading):
                self.meter.server_reading(message)
            else:
                self.meter.server_failure(message)
        return messages

    def reading(self, after_ns: int = SECOND) -> ServerReading:
        (message,) = self.read(after_ns)
        assert isinstance(message, ServerReading)
        return message

    def counted(self) -> dict[tuple[str, str, Kind], int]:
        return {
            (name, model, kind): count
            for name, server in self.meter.servers.items()
            for model, book in server.models.items()
            for kind, count in book.tokens.items()
            if count
        }


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    with closing(made.tokens):
        yield made


def report(count: int, server: str = "batch", model: str = "m", kind: Kind = "generation", **rest: object) -> TokenReport:
    return TokenReport(server, model, kind, count, **rest)  # type: ignore[arg-type]


# --- every token once --------------------------------------------------------------------------------------------------------------------

_REPORTS = st.builds(report, st.integers(0, 10**9), st.sampled_from(("a", "b")), st.sampled_from(("m", "n")), st.sampled_from(KINDS))


@given(
    st.lists(_REPORTS, min_size=1, max_size=4),
    st.lists(st.lists(_REPORTS, max_size=3), min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from(("report", "request", "no key", "read", "long")), st.integers(0, 3)), max_size=25),
)
def test_whatever_is_sent_again_and_in_any_order_counts_once(
    keyed: list[TokenReport], requests: list[list[TokenReport]], steps: list[tuple[str, int]]
) -> None:
    node = Node()
    sent: list[TokenReport] = []
    seen: set[tuple[str, int]] = set()
    for what, i in steps:
        if what == "report":
            i %= len(keyed)
            # Twice in the same request as well.
            came = node.tokens.push([(keyed[i], (f"r{i}", b"")), (keyed[i], (f"r{i}", b""))], None)
            assert came == (Pushed(0, 2) if (what, i) in seen else Pushed(1, 1))
            sent += [] if (what, i) in seen else [keyed[i]]
            seen.add((what, i))
        elif what == "request":
            i %= len(requests)
            came = node.push(*requests[i], request=f"r{i}")
            assert came == (Pushed(0, len(requests[i])) if (what, i) in seen else Pushed(len(requests[i]), 0))
            sent += [] if (what, i) in seen else requests[i]
            seen.add((what, i))
        elif what == "no key":
            node.push(keyed[i % len(keyed)])
            sent.append(keyed[i % len(keyed)])
        else:
            node.read(SECOND if what == "read" else 30 * MINUTE)
    for _ in range(len(sent) + 2):  # a counter rises by 10^9 a second at most
        node.read()
    expected: dict[tuple[str, str, Kind], int] = {}
    for each in sent:
        if each.count:
            key = each.server, each.model, each.kind
            expected[key] = expected.get(key, 0) + each.count
    assert node.counted() == expected
    assert all(server.counters.rejected == 0 for server in node.meter.servers.values())


def test_the_first_report_counts_though_it_came_before_the_first_reading(node: Node) -> None:
    assert node.push(report(7), report(5, kind="prompt_computed")) == Pushed(2, 0)
    reading = node.reading()
    assert node.new == [("batch", "")]
    assert (reading.engine, reading.update, reading.cached) == ("generic", "completion", "unknown")
    assert (reading.running, reading.listener, reading.latency) == (None, None, None)
    assert node.counted() == {("batch", "m", "generation"): 7, ("batch", "m", "prompt_computed"): 5}
    node.push(report(1))
    node.read()
    assert node.counted()["batch", "m", "generation"] == 8
    assert node.new == [("batch", "")]


def test_a_key_that_came_with_something_else_refuses_all(node: Node) -> None:
    assert node.tokens.push([(report(1), ("k", b"1"))], ("k", b"9")) == Pushed(1, 0)
    refused = node.tokens.push([(report(5), None), (report(2), ("k", b"2"))], None)
    assert refused == Pushed(refusal="The idempotency key 'k' came with another report before; give each report a key of its own.")
    assert "another request before" in (node.tokens.push([(report(1), ("k", b"1"))], ("k", b"8")).refusal or "")
    assert "another report" in (node.tokens.push([(report(1), ("n", b"1")), (report(2), ("n", b"2"))], None).refusal or "")
    node.read()
    assert node.counted() == {("batch", "m", "generation"): 1}
    assert node.tokens.push([(report(1), ("n", b"1"))], None) == Pushed(1, 0)  # what was refused left nothing behind


def test_a_key_is_forgotten_after_a_day(node: Node) -> None:
    for after_ns, expected in ((0, Pushed(1, 0)), (DAY - SECOND, Pushed(0, 1)), (SECOND, Pushed(1, 0)), (DAY - SECOND, Pushed(0, 1))):
        node.now_ns += after_ns
        assert node.tokens.push([(report(1), ("k", b"1"))], None) == expected


def test_the_oldest_keys_are_forgotten_when_there_are_too_many(node: Node) -> None:
    node.tokens.push([(report(1), (f"k{i}", b"1")) for i in range(KEYS_MAX + 1)], None)
    assert node.tokens.push([(report(1), (f"k{KEYS_MAX}", b"1"))], None) == Pushed(0, 1)
    assert node.tokens.push([(report(1), ("k1", b"1"))], None) == Pushed(0, 1)
    assert node.tokens.push([(report(1), ("k0", b"1"))], None) == Pushed(1, 0)


def test_more_than_a_server_can_make_is_counted_over_the_time_it_takes(node: Node) -> None:
    node.push(*(report(10**9) for _ in range(5)), report(3, model="n"))
    node.read()
    first = node.counted()
    assert 10**9 <= first["batch", "m", "generation"] < 2 * 10**9
    assert first["batch", "n", "generation"] == 3
    for _ in range(4):
        node.read()
    assert node.counted()["batch", "m", "generation"] == 5 * 10**9
    assert node.meter.servers["batch"].counters.rejected == 0


# --- what is told besides ----------------------------------------------------------------------------------------------------------------


def test_cached_is_known_once_it_is_told_be_it_none(node: Node) -> None:
    node.push(report(4))
    assert node.reading().cached == "unknown"
    node.push(report(0, kind="prompt_cached"))
    reading = node.reading()
    assert reading.cached == "known"
    assert {key.kind: count for key, count in reading.counters.items()} == {"generation": 4, "prompt_cached": 0}
    assert node.meter.servers["batch"].models["m"].tokens == {"generation": 4, "prompt_cached": 0}


def test_running_is_forgotten_after_a_minute(node: Node) -> None:
    node.push(report(0, running=3))
    assert node.reading().running == 3
    node.push(report(1))
    assert node.reading(50 * SECOND).running == 3
    assert node.reading(10 * SECOND).running is None


def test_windows_shorter_than_the_spans_are_not_resolved(node: Node) -> None:
    node.push(report(1))
    assert node.reading().latency is None
    for _ in range(20):
        node.push(report(100, span_ns=(node.now_ns - 25 * SECOND, node.now_ns - SECOND)), report(0, span_ns=(0, 1)))
    latency = dict(node.reading().latency or ())
    assert (latency[20.0], latency[30.0], latency[float("inf")]) == (0, 20, 20)
    assert 20 * SECOND < (node.meter.servers["batch"].resolution.needed_ns or 0) <= 30 * SECOND


# --- limits ------------------------------------------------------------------------------------------------------------------------------


def test_there_are_at_most_so_many_new_servers_and_models() -> None:
    with closing((node := Node((("chat", "http://127.0.0.1:9"),))).tokens):
        assert node.push(*(report(1, f"s{i}") for i in range(NEW_SERVERS_MAX))).accepted == NEW_SERVERS_MAX
        assert "at most 100 can be" in (node.push(report(1, "s0"), report(1, "one more")).refusal or "")
        assert node.push(*(report(1, "chat", f"m{i}") for i in range(MODELS_MAX))).accepted == MODELS_MAX
        assert "'chat' has 100 models" in (node.push(report(1, "chat", "another")).refusal or "")
        assert node.push(report(1, "chat", "m0"), report(1, "s0", "n")).accepted == 2
        assert node.tokens.names() == {"chat", *(f"s{i}" for i in range(NEW_SERVERS_MAX))}


def test_the_settings_say_where_a_server_listens() -> None:
    with closing((node := Node((("chat", "http://127.0.0.1:9"),))).tokens):
        assert node.push(report(1, "chat", url="http://localhost:9")).accepted == 1
        assert "listens at http://127.0.0.1:9;" in (node.push(report(1, "chat", url="http://127.0.0.1:8")).refusal or "")


# --- there or not ------------------------------------------------------------------------------------------------------------------------


class Listening:
    """A process that listens on a port of 127.0.0.1, until it is ended."""

    def __init__(self, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", LISTEN, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._process.communicate()


def listener_of(node: Node, pid: int | None) -> ServerReading:
    """Read until the server is there, with this listener."""
    message = until(node, lambda m: isinstance(m, ServerReading) and (m.listener.pid if m.listener else None) == pid)
    assert isinstance(message, ServerReading)
    return message


def gone(node: Node) -> ServerFailure:
    node.now_ns += 5 * SECOND  # so often is looked whether a process is still there
    message = until(node, lambda m: isinstance(m, ServerFailure), SECOND // 1000)
    assert isinstance(message, ServerFailure)
    return message


def until(node: Node, right: Callable[[ServerReading | ServerFailure], bool], step_ns: int = SECOND) -> ServerReading | ServerFailure:
    end_s = time.monotonic() + 30
    while time.monotonic() < end_s:
        for message in node.read(step_ns):
            if right(message):
                return message
        time.sleep(0.002)  # the look at the listeners is another thread's, and its time is the real one
    raise AssertionError("it never came")


def test_a_configured_server_is_there_while_somebody_listens() -> None:
    with closing(Listening()) as first, closing((node := Node((("ollama", first.url),))).tokens):
        reading = listener_of(node, first.pid)
        assert (reading.counters, reading.server) == ({}, "ollama")
        assert node.meter.servers["ollama"].present
        node.push(report(5, "ollama"))
        node.read()
        assert node.counted() == {("ollama", "m", "generation"): 5}
        first.close()
        failure = gone(node)
        assert (failure.gone, failure.reason) == (True, f"nobody listens at {first.url}")
        assert node.read() == node.read(MINUTE) == []  # said once
        with closing(Listening(first.port)) as second:
            assert listener_of(node, second.pid).counters == {}
            node.push(report(9, "ollama"))
            node.read()
            assert node.counted() == {("ollama", "m", "generation"): 14}
    assert node.new == []


def test_a_process_that_listens_again_counts_from_zero_again() -> None:
    first = socket.create_server(("127.0.0.1", 0))
    address = first.getsockname()
    with closing((node := Node((("chat", f"http://127.0.0.1:{address[1]}"),))).tokens):
        for count in (5, 9):
            with first if count == 5 else socket.create_server(address):
                listener_of(node, os.getpid())
                node.push(report(count, "chat"))
                node.read()
            gone(node)
        assert node.counted() == {("chat", "m", "generation"): 14}


def test_a_worker_that_serves_on_without_its_parent_is_the_listener() -> None:
    process = subprocess.Popen([sys.executable, "-c", FORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port, worker = map(int, process.stdout.readline().split())
    try:
        with closing((node := Node((("chat", f"http://127.0.0.1:{port}"),))).tokens):
            listener_of(node, process.pid)
            process.kill()
            process.wait()
            listener_of(node, worker)
            assert node.meter.servers["chat"].gone_ns is None
    finally:
        process.communicate()


def test_a_configured_server_that_is_not_there_is_gone_from_the_start() -> None:
    with socket.socket() as bound:  # taken, and not listened on
        bound.bind(("127.0.0.1", 0))
        url = f"http://localhost:{bound.getsockname()[1]}"
        with closing((node := Node((("ollama", url),))).tokens):
            assert gone(node).gone
            assert not node.meter.servers["ollama"].present


def test_one_on_another_host_is_there_and_nobody_can_see_it() -> None:
    with closing((node := Node((("far", "http://192.0.2.1:8000"),))).tokens):
        assert listener_of(node, None).counters == {}
        assert node.reading(MINUTE).listener is None


def test_tokens_reported_just_before_the_end_are_told_before_it_is_gone(node: Node) -> None:
    with closing(Listening()) as server:
        node.push(report(5, url=server.url))
        listener_of(node, server.pid)
        assert node.new == [("batch", server.url)]
        server.close()
        node.read(5 * SECOND)  # sees that the process is gone, and has it looked up who is there now
        node.push(report(7))
        gone(node)
    assert node.counted() == {("batch", "m", "generation"): 12}
    assert not node.meter.servers["batch"].present


def test_a_report_after_the_end_counts_and_holds_nothing_for_long(node: Node) -> None:
    with closing(Listening()) as server:
        node.push(report(5, url=server.url))
        listener_of(node, server.pid)
        server.close()
        ended_ns = node.now_ns
        gone(node)
        assert node.now_ns - ended_ns < 30 * SECOND  # though its last report is no minute old
    node.push(report(7, url=server.url))
    assert node.reading().listener is None
    assert node.counted() == {("batch", "m", "generation"): 12}
    assert isinstance(node.reading(50 * SECOND), ServerReading)
    (failure,) = node.read(10 * SECOND)
    assert isinstance(failure, ServerFailure)
    assert failure.gone
    assert node.new == 2 * [("batch", server.url)]


def test_without_a_url_it_is_gone_a_day_after_its_last_report(node: Node) -> None:
    node.push(report(5))
    node.read()
    assert node.reading(DAY - MINUTE).counters
    (failure,) = node.read(MINUTE)
    assert isinstance(failure, ServerFailure)
    assert (failure.gone, failure.reason) == (True, "nothing was pushed for it for 24 h")
    node.push(report(3))
    node.read()
    assert node.counted() == {("batch", "m", "generation"): 8}


def test_a_server_may_move(node: Node) -> None:
    with closing(Listening()) as first, closing(Listening()) as second:
        for server in (first, second):
            node.push(report(1, url=server.url))
            listener_of(node, server.pid)
    assert node.counted() == {("batch", "m", "generation"): 2}
