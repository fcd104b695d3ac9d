"""Bytes through the proxy, over real sockets: what goes in comes out, in both directions, to the last byte and no later."""

from __future__ import annotations

import hashlib
import resource
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.daemon.process import wait_for
from tests.proxy.answers import ANSWERS, USAGES, Answer, chunked, request, whole
from tests.proxy.meter import Meter
from tests.proxy.running import Running
from tests.proxy.upstream import TIMEOUT_S, Peer, Upstream
from tokenwatt.proxy.tally import Unmetered

by_name = {a.name: a for a in ANSWERS}
Make = Callable[..., Upstream]


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), TIMEOUT_S)


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(65536):
        data += piece
    return bytes(data)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"the connection ended after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_bytes_out_are_bytes_in_however_they_are_cut(data: st.DataObject, meter: Meter) -> None:
    answers: list[Answer] = data.draw(st.lists(st.sampled_from(USAGES), min_size=1, max_size=3))
    asked = [request(a.path) for a in answers]
    answered = [chunked(a, (30, 7)) if data.draw(st.booleans()) else whole(a) for a in answers]
    cuts = sorted(data.draw(st.lists(st.integers(0, min(map(len, answered))), max_size=8)))

    def script(peer: Peer) -> None:
        due = 0
        for question, answer in zip(asked, answered, strict=True):
            due += len(question)
            while len(peer.received) < due:
                assert peer.receive()
            for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True):
                peer.sock.sendall(answer[start:end])

    upstream = Upstream(script)
    before = meter.tokens()
    with Running(upstream.url, meter.url) as proxy, connect(proxy.port) as client:
        for question in asked:
            client.sendall(question)  # all at once: pipelined
        got = read_all(client)
    upstream.close()
    assert upstream.failures == []
    assert got == b"".join(answered)
    assert bytes(upstream.peers[0].received) == b"".join(asked)
    told = meter.tokens()
    told.subtract(before)
    expected = {"generation": 0, "prompt_computed": 0, "prompt_cached": 0}
    for answer in answers:
        assert answer.usage is not None
        for kind, count in answer.usage.tokens().items():
            expected[kind] += count
    assert dict(+told) == {kind: count for kind, count in expected.items() if count}


def test_each_piece_is_passed_on_when_it_comes(upstream: Make) -> None:
    """A stream's event is with the client before the next is made, and without the one that follows."""
    answered = chunked(by_name["stream"])

    def script(peer: Peer) -> None:
        peer.receive_until(b"}")
        for n in range(len(answered)):
            peer.sock.sendall(answered[n : n + 1])
            peer.receive(1)

    server = upstream(script)
    with Running(server.url) as proxy, connect(proxy.port) as client:
        client.sendall(request("/v1/chat/completions"))
        for n in range(len(answered)):
            assert client.recv(10) == answered[n : n + 1]
            client.sendall(b"x")


def test_fifty_megabytes_each_way(upstream: Make) -> None:
    block = bytes(range(256)) * 4096
    size = 50 * len(block)
    digests: list[str] = []

    def script(peer: Peer) -> None:
        peer.receive_until(b"\r\n\r\n")
        digest, left = hashlib.sha256(), size
        while left:
            piece = peer.sock.recv(65536)
            digest.update(piece)
            left -= len(piece)
        digests.append(digest.hexdigest())
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(50):
            peer.sock.sendall(block)

    server = upstream(script)
    with Running(server.url) as proxy, connect(proxy.port) as client:
        client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        server.peer().wait_for(lambda: server.peer().received.endswith(b"\r\n\r\n"))
        for _ in range(50):
            client.sendall(block)
        got = read_all(client).partition(b"\r\n\r\n")[2]
        expected = hashlib.sha256(block * 50).hexdigest()
        assert digests == [expected]
        assert hashlib.sha256(got).hexdigest() == expected
        wait_for(lambda: proxy.reporter.tally.unmetered[Unmetered.TOO_LARGE] == 1)


@pytest.mark.parametrize("direction", ["answer", "request"])
def test_who_does_not_read_makes_the_other_wait(upstream: Make, direction: str) -> None:
    """What the proxy holds for a reader that has stopped is bounded; then the writer is held up, as it is without a proxy."""
    goes_on: list[bool] = []

    def write_until_blocked(sock: socket.socket) -> int:
        sock.setblocking(False)
        written = 0
        while select.select([], [sock], [], 1.0)[1]:
            written += sock.send(b"x" * 65536)
        sock.settimeout(TIMEOUT_S)
        return written

    sent: list[int] = []

    def script(peer: Peer) -> None:
        if direction == "answer":
            sent.append(write_until_blocked(peer.sock))
        wait_for(lambda: goes_on)
        peer.sock.settimeout(TIMEOUT_S)
        if direction == "request":
            sent.append(len(read_all(peer.sock)))

    server = upstream(script, receive_buffer=65536)
    with Running(server.url) as proxy, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(TIMEOUT_S)
        client.connect(("127.0.0.1", proxy.port))
        if direction == "request":
            written = write_until_blocked(client)
            held = [c.peer.transport.get_write_buffer_size() for c in proxy.proxy._clients if c.peer is not None and c.peer.transport]
            assert max(held) <= 2 * 65536 + 65536
            goes_on.append(True)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
            assert sent == [written]
        else:
            wait_for(lambda: sent)
            held = [c.transport.get_write_buffer_size() for c in proxy.proxy._clients if c.transport]
            assert max(held) <= 2 * 65536 + 65536
            goes_on.append(True)
            assert len(read_all(client)) == sent[0]


# --- ends --------------------------------------------------------------------------------------------------------------------------------


def test_a_half_closed_client_gets_its_answer(upstream: Make) -> None:
    def script(peer: Peer) -> None:
        while peer.receive():
            pass
        peer.sock.sendall(b"answer")

    server = upstream(script)
    with Running(server.url) as proxy, connect(proxy.port) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"answer"
    assert bytes(server.peer().received) == b"question"


def test_a_half_closed_upstream_still_reads(upstream: Make) -> None:
    def script(peer: Peer) -> None:
        peer.sock.sendall(b"answer")
        peer.sock.shutdown(socket.SHUT_WR)
        while peer.receive():
            pass

    server = upstream(script)
    with Running(server.url) as proxy, connect(proxy.port) as client:
        assert read_all(client) == b"answer"
        client.sendall(b"still here")
        server.peer().wait_for(lambda: server.peer().received == b"still here")


@pytest.mark.parametrize("how", ["eof", "reset"])
def test_a_client_that_leaves_in_the_middle_is_gone_for_the_upstream_at_once(upstream: Make, how: str) -> None:
    def script(peer: Peer) -> None:
        peer.receive_until(b"}")
        peer.sock.sendall(chunked(by_name["stream"])[:150])
        peer.receive()

    server = upstream(script)
    with Running(server.url) as proxy:
        client = connect(proxy.port)
        client.sendall(request("/v1/chat/completions"))
        read_exactly(client, 150)
        left = time.monotonic()
        reset(client) if how == "reset" else client.close()
        server.peer().wait_for(lambda: server.peer().ended is not None)
        assert time.monotonic() - left < 1
        assert server.peer().ended == how
        wait_for(lambda: proxy.reporter.tally.unmetered == {Unmetered.CUT_OFF: 1})
        wait_for(lambda: proxy.clients == 0)


def test_an_upstream_that_resets_is_a_reset_for_the_client(upstream: Make) -> None:
    def script(peer: Peer) -> None:
        peer.receive_until(b"}")
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nbeg")
        peer.receive(1)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    server = upstream(script)
    with Running(server.url) as proxy, connect(proxy.port) as client:
        client.sendall(request("/v1/chat/completions"))
        read_exactly(client, 22)
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_an_upstream_that_closes_ends_the_answer(upstream: Make, meter: Meter) -> None:
    answer = by_name["chat"]
    answered = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + answer.body

    def script(peer: Peer) -> None:
        peer.receive_until(b"}")
        peer.sock.sendall(answered)

    server = upstream(script)
    with Running(server.url, meter.url) as proxy, connect(proxy.port) as client:
        client.sendall(request(answer.path))
        assert read_all(client) == answered
        meter.wait_for(lambda: meter.tokens() == {"generation": 8, "prompt_computed": 5, "prompt_cached": 16})


def test_without_an_upstream_the_answer_is_502() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Running(f"http://127.0.0.1:{port}") as proxy:
        for _ in range(2):
            with connect(proxy.port) as client:
                client.sendall(request("/v1/chat/completions", b"x" * 200_000))
                head, _, body = read_all(client).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
            assert body == f"tokenwatt proxy: the upstream http://127.0.0.1:{port} cannot be reached: connection refused\n".encode()
            assert b"Content-Length: %d" % len(body) in head
        assert proxy.reporter.tally.unmetered == {}


def test_an_upgraded_connection_goes_on(upstream: Make) -> None:
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

    def script(peer: Peer) -> None:
        peer.receive_until(b"\r\n\r\n")
        peer.sock.sendall(switched + b"\x81\x02hi")
        while data := peer.receive():
            peer.sock.sendall(data[::-1])

    server = upstream(script)
    with Running(server.url) as proxy, connect(proxy.port) as client:
        client.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert read_exactly(client, len(switched) + 4) == switched + b"\x81\x02hi"
        client.sendall(bytes(range(256)))
        assert read_exactly(client, 256) == bytes(range(256))[::-1]
        wait_for(lambda: proxy.reporter.tally.unmetered == {Unmetered.UPGRADED: 1})


def test_an_upstream_behind_tls(upstream: Make, meter: Meter, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    answer = by_name["stream"]

    def script(peer: Peer) -> None:
        peer.receive_until(b"}")
        peer.sock.sendall(chunked(answer))
        peer.receive()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = upstream(script, context)
    with Running(server.url, meter.url) as proxy, connect(proxy.port) as client:
        client.sendall(request(answer.path))
        assert b"its certificate is not trusted" in read_all(client)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with Running(server.url, meter.url) as proxy:
        client = connect(proxy.port)
        client.sendall(request(answer.path))
        assert read_exactly(client, len(chunked(answer))) == chunked(answer)
        client.close()
        server.peer().wait_for(lambda: server.peer().ended == "eof")
        meter.wait_for(lambda: meter.tokens() == {"generation": 8, "prompt_computed": 5, "prompt_cached": 16})
        assert bytes(server.peer().received) == request(answer.path)


# --- many, and the end --------------------------------------------------------------------------------------------------------------------


def test_a_thousand_open_streams(upstream: Make, meter: Meter) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 10_000:
        pytest.skip(f"this shell allows only {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    answer = by_name["ollama chat"]
    answered = chunked(answer)
    half = len(answered) // 2
    goes_on: list[bool] = []

    def script(peer: Peer) -> None:
        peer.receive_until(b"}")
        peer.sock.sendall(answered[:half])
        wait_for(lambda: goes_on, deadline_s=100)
        peer.sock.sendall(answered[half:])

    server = upstream(script)
    try:
        with Running(server.url, meter.url) as proxy:
            clients = [connect(proxy.port) for _ in range(1000)]
            for client in clients:
                client.sendall(request(answer.path))
            assert all(read_exactly(client, half) == answered[:half] for client in clients)
            assert proxy.clients == 1000
            goes_on.append(True)
            assert all(read_all(client) == answered[half:] for client in clients)
            for client in clients:
                client.close()
            meter.wait_for(lambda: meter.tokens() == {"generation": 290_000, "prompt_computed": 26_000})
            assert max(report["running"] for report in meter.accepted) <= 1000
            meter.wait_for(lambda: meter.accepted[-1]["running"] == 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_stopping_lets_running_requests_finish(upstream: Make, meter: Meter) -> None:
    answer = by_name["stream"]
    answered = chunked(answer)
    goes_on: list[bool] = []

    def script(peer: Peer) -> None:
        while len(peer.received) < len(request(answer.path)):
            if not peer.receive():
                return
        peer.sock.sendall(answered[:100])
        wait_for(lambda: goes_on)
        peer.sock.sendall(answered[100:])
        peer.receive()

    server = upstream(script)
    proxy = Running(server.url, meter.url)
    idle, busy = connect(proxy.port), connect(proxy.port)
    with idle, busy:
        busy.sendall(request(answer.path))
        read_exactly(busy, 100)
        proxy._loop.call_soon_threadsafe(proxy.proxy.stop)
        assert idle.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.port)
        goes_on.append(True)
        assert read_all(busy) == answered[100:]
        proxy.stop()
    assert meter.tokens() == {"generation": 8, "prompt_computed": 5, "prompt_cached": 16}
    assert meter.accepted[-1]["running"] == 0


def test_stopping_does_not_wait_for_ever(upstream: Make) -> None:
    def script(peer: Peer) -> None:
        while peer.receive():
            pass

    server = upstream(script)
    proxy = Running(server.url, drain_s=0.2)
    with connect(proxy.port) as client:
        client.sendall(request("/v1/chat/completions"))
        server.peer().wait_for(lambda: bool(server.peer().received))
        proxy.stop()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert server.peer().ended is not None
    assert proxy.reporter.tally.unmetered == {Unmetered.CUT_OFF: 1}
