import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tokenwatt.demo.node import Demo, SimulatedNode, start_demo
from tokenwatt.demo.server import page

S = 10**9
NAMES = "name[]=vllm:generation_tokens_total&name[]=vllm:prompt_tokens_total"


class Clock:
    def __init__(self) -> None:
        self.now_ns = 100 * S

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def demo(clock: Clock) -> Iterator[Demo]:
    demo = Demo(SimulatedNode(), clock)
    yield demo
    demo.stop()


def _port(demo: Demo, name: str) -> int:
    (url,) = (s.url for s in demo.servers if s.name == name)
    return int(url.rpartition(":")[2])


Connect = Callable[..., http.client.HTTPConnection]


@pytest.fixture
def connect(demo: Demo) -> Iterator[Connect]:
    with contextlib.ExitStack() as stack:

        def open_(name: str = "chat-8b", timeout: float = 10) -> http.client.HTTPConnection:
            return stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", _port(demo, name), timeout=timeout)))

        yield open_


def _get(connection: http.client.HTTPConnection, target: str) -> tuple[int, bytes]:
    connection.request("GET", target)
    response = connection.getresponse()
    return response.status, response.read()


def test_each_server_has_its_own_port_and_page(demo: Demo, connect: Connect) -> None:
    assert [(s.name, s.gpus) for s in demo.servers] == [("chat-8b", (0,)), ("code-32b", (1, 2)), ("chat-70b", (3, 4, 5, 6))]
    for server in demo.node.servers:
        assert _get(connect(server.name), "/metrics") == (200, page(server, 100 * S))


def test_one_connection_serves_many_requests(demo: Demo, connect: Connect, clock: Clock) -> None:
    connection = connect()
    connection.connect()
    opened = connection.sock
    for clock.now_ns in (100 * S, 101 * S, 102 * S):
        assert _get(connection, "/metrics")[1] == page(demo.node.server("chat-8b"), clock.now_ns)
        assert connection.sock is opened


def test_the_filter_works_behind_the_slash_only(demo: Demo, connect: Connect) -> None:
    connection = connect()
    server = demo.node.server("chat-8b")
    names = ["vllm:generation_tokens_total", "vllm:prompt_tokens_total"]
    status, filtered = _get(connection, f"/metrics/?{NAMES}")
    assert (status, filtered) == (200, page(server, 100 * S, names))
    assert len(filtered) < 600
    assert _get(connection, f"/metrics?{NAMES}")[1] == page(server, 100 * S)
    assert _get(connection, "/metrics/")[1] == page(server, 100 * S)


def test_the_content_type_is_prometheus_text(connect: Connect) -> None:
    connection = connect()
    connection.request("GET", "/metrics")
    with connection.getresponse() as response:
        assert response.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
        response.read()


def test_it_tells_what_it_is(connect: Connect) -> None:
    connection = connect()
    assert json.loads(_get(connection, "/version")[1]) == {"version": "0.33.0+simulated"}
    models = json.loads(_get(connection, "/v1/models")[1])
    assert [m["id"] for m in models["data"]] == ["simulated/Llama-3.1-8B-Instruct"]
    assert _get(connection, "/health") == (200, b"")


def test_what_it_does_not_have_is_refused_and_the_connection_goes_on(connect: Connect) -> None:
    connection = connect()
    assert _get(connection, "/nothing")[0] == 404
    connection.request("HEAD", "/metrics")
    with connection.getresponse() as response:
        assert (response.status, response.read()) == (405, b"")


def test_no_http_is_a_bad_request(demo: Demo) -> None:
    with socket.create_connection(("127.0.0.1", _port(demo, "chat-8b")), timeout=10) as s:
        s.sendall(b"hello\r\n\r\n")
        answer = b""
        while part := s.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_connection_close_is_honoured(connect: Connect) -> None:
    connection = connect()
    connection.request("GET", "/health", headers={"Connection": "close"})
    with connection.getresponse() as response:
        assert response.headers["connection"] == "close"
        response.read()
    assert connection.sock is None


def test_a_server_that_refuses_comes_back_on_its_port(demo: Demo, connect: Connect) -> None:
    kept = connect()
    _get(kept, "/health")
    demo.http.set_fault("chat-8b", "refuse")
    with pytest.raises(ConnectionError):
        _get(kept, "/health")
    with pytest.raises(ConnectionRefusedError):
        _get(connect(), "/health")
    assert _get(connect("code-32b"), "/health")[0] == 200
    demo.http.set_fault("chat-8b", None)
    assert _get(connect(), "/health")[0] == 200


def test_errors_and_garbage(demo: Demo, connect: Connect) -> None:
    connection = connect()
    demo.http.set_fault("chat-8b", "error")
    assert _get(connection, "/metrics")[0] == 500
    demo.http.set_fault("chat-8b", "garbage")
    status, body = _get(connection, "/metrics")
    assert status == 200
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the parser stumbles on
        list(text_string_to_metric_families(body.decode("latin-1")))
    demo.http.set_fault("chat-8b", None)
    assert _get(connection, "/metrics")[0] == 200


def test_a_server_that_hangs_answers_when_it_is_let(demo: Demo, connect: Connect) -> None:
    demo.http.set_fault("chat-8b", "hang")
    with pytest.raises(TimeoutError):
        _get(connect(timeout=0.1), "/metrics")
    patient = connect()
    patient.request("GET", "/metrics")
    demo.http.set_fault("chat-8b", None)
    assert patient.getresponse().read() == page(demo.node.server("chat-8b"), 100 * S)


def test_a_restart_ends_connections_and_begins_at_zero(demo: Demo, connect: Connect, clock: Clock) -> None:
    kept = connect()
    _get(kept, "/health")
    demo.http.restart("chat-8b")
    with pytest.raises(ConnectionError):
        _get(kept, "/health")
    server = demo.node.server("chat-8b")
    assert server.started_ns == clock.now_ns
    clock.now_ns += 5 * S
    families = {f.name: f for f in text_string_to_metric_families(_get(connect(), "/metrics")[1].decode())}
    expected = demo.node.truth("chat-8b", 105 * S).tokens["generation"] - demo.node.truth("chat-8b", 100 * S).tokens["generation"]
    assert families["vllm:generation_tokens"].samples[0].value == expected


def test_stop_leaves_nothing(clock: Clock) -> None:
    before = set(threading.enumerate())
    demo = Demo(SimulatedNode(), clock)
    port = _port(demo, "chat-8b")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        _get(connection, "/health")
        demo.stop()
        demo.stop()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=10)
    assert set(threading.enumerate()) == before


def test_a_client_that_never_reads_does_not_hold_up_the_end(clock: Clock) -> None:
    demo = Demo(SimulatedNode(), clock)
    with socket.create_connection(("127.0.0.1", _port(demo, "chat-8b"))) as s:
        s.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                s.send(b"GET /metrics HTTP/1.1\r\n\r\n" * 100)
        demo.stop()


def test_the_demo_runs_in_real_time() -> None:
    demo = start_demo(seed=3)
    try:
        (uuid,) = (g.uuid for g in demo.source.open() if g.index == 0)
        first = demo.source.read(uuid, want_processes=False)
        deadline = time.monotonic() + 10
        while (last := demo.source.read(uuid, want_processes=False)).energy_mj == first.energy_mj and time.monotonic() < deadline:
            time.sleep(0.02)  # the counter moves ten times a second
        assert first.energy_mj is not None
        assert last.energy_mj is not None
        assert last.energy_mj > first.energy_mj
        start_s = demo.node.server("chat-8b").at(time.monotonic_ns()).start_wall_s
        assert start_s == pytest.approx(time.time() - 23_000, abs=30)
    finally:
        demo.stop()
