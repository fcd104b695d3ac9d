from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.fake_server import CLOSE, FakeServer, Request, answer
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.http.connection import Connection

REQUEST = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def connect() -> Iterator[Callable[..., Connection]]:
    made: list[Connection] = []

    def make(port: int, host: str = "127.0.0.1") -> Connection:
        made.append(Connection(host, port, max_body_bytes=1 << 20))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


def test_one_connection_serves_many_requests(server: FakeServer, connect: Callable[..., Connection]) -> None:
    server.serve("/x", answer(b"body"))
    connection = connect(server.port)
    before_ns = time.monotonic_ns()
    got = [connection.get(REQUEST, limit_s=5) for _ in range(3)]
    assert [a.body for a in got] == [b"body"] * 3
    assert got[0].content_type.startswith("text/plain")
    assert before_ns <= got[0].sent_ns <= got[0].received_ns <= got[1].sent_ns
    assert (server.connections, connection.opened) == (1, 1)
    assert connection.local_address == "127.0.0.1"


def test_a_connection_closed_meanwhile_is_replaced_at_once(server: FakeServer, connect: Callable[..., Connection]) -> None:
    server.serve("/x", answer(b"body"))
    connection = connect(server.port)
    connection.get(REQUEST, limit_s=5)
    server.hang_up()
    assert connection.get(REQUEST, limit_s=5).body == b"body"
    assert connection.opened == 2


def test_a_server_that_always_closes_is_no_failure_but_one_that_never_answers_is(
    server: FakeServer, connect: Callable[..., Connection]
) -> None:
    server.serve("/x", [answer(b"body"), CLOSE])
    connection = connect(server.port)
    assert [connection.get(REQUEST, limit_s=5).body for _ in range(2)] == [b"body"] * 2
    server.serve("/x", [CLOSE])
    with pytest.raises(Unusable, match="closes the connection without an answer"):
        connection.get(REQUEST, limit_s=5)


def test_a_server_that_dribbles_is_cut_off_in_the_headers_and_in_the_body(server: FakeServer, connect: Callable[..., Connection]) -> None:
    whole = answer(b"x" * 1000)

    def dribble(first: int) -> Callable[[Request], Iterator[bytes]]:
        def reply(_: Request) -> Iterator[bytes]:
            yield whole[:first]
            for byte in whole[first:]:
                if server.closing.wait(0.05):
                    return
                yield bytes([byte])

        return reply

    for first in (0, 200):
        server.serve("/x", dribble(first))
        started = time.monotonic()
        with pytest.raises(Unusable, match=r"does not answer within 0\.4 s"):
            connect(server.port).get(REQUEST, limit_s=0.4)
        assert 0.39 <= time.monotonic() - started < 1


def test_a_server_that_hangs_is_left(server: FakeServer, connect: Callable[..., Connection]) -> None:
    server.serve("/x", lambda _: [b""] if server.closing.wait(30) else [])
    with pytest.raises(Unusable, match="does not answer within"):
        connect(server.port).get(REQUEST, limit_s=0.2)


def test_an_endless_body_is_left(server: FakeServer, connect: Callable[..., Connection]) -> None:
    def endless(_: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while not server.closing.is_set():
            yield b"vllm:x 1\n" * 1000

    server.serve("/x", endless)
    with pytest.raises(Unusable, match="more than 1 MiB"):
        connect(server.port).get(REQUEST, limit_s=5)


def test_nobody_there_is_gone(server: FakeServer, connect: Callable[..., Connection]) -> None:
    server.refuse()
    with pytest.raises(Unusable, match=rf"^127\.0\.0\.1:{server.port} refuses the connection") as refused:
        connect(server.port).get(REQUEST, limit_s=5)
    assert refused.value.gone


def test_a_server_that_goes_while_connected_is_gone(server: FakeServer, connect: Callable[..., Connection]) -> None:
    server.serve("/x", answer(b"body"))
    connection = connect(server.port)
    connection.get(REQUEST, limit_s=5)
    server.refuse()
    with pytest.raises(Unusable) as refused:
        connection.get(REQUEST, limit_s=5)
    assert refused.value.gone


def test_a_name_that_nobody_knows_is_said_so(connect: Callable[..., Connection]) -> None:
    with pytest.raises(Unusable, match=r"the name no-such-host\.invalid cannot be resolved") as unknown:
        connect(80, "no-such-host.invalid").get(REQUEST, limit_s=5)
    assert not unknown.value.gone


def test_another_protocol_is_said_so(server: FakeServer, connect: Callable[..., Connection]) -> None:
    server.serve("/x", b"SSH-2.0-OpenSSH_9.2\r\n")
    with pytest.raises(Unusable, match="does not answer in HTTP"):
        connect(server.port).get(REQUEST, limit_s=5)


def test_ipv6(connect: Callable[..., Connection]) -> None:
    if not _has_ipv6():
        pytest.skip("no IPv6 here")
    with FakeServer("::1") as server:
        server.serve("/x", answer(b"body"))
        connection = connect(server.port, "::1")
        assert connection.get(REQUEST, limit_s=5).body == b"body"
        assert connection.local_address == "::1"
        server.refuse()
        with pytest.raises(Unusable, match=rf"^\[::1\]:{server.port} refuses"):
            connection.get(REQUEST, limit_s=5)


def test_abort_ends_a_wait_at_once_and_for_good(server: FakeServer, connect: Callable[..., Connection]) -> None:
    server.serve("/x", lambda _: [b""] if server.closing.wait(30) else [])
    connection = connect(server.port)
    failures: list[Unusable] = []

    def get() -> None:
        try:
            connection.get(REQUEST, limit_s=30)
        except Unusable as e:
            failures.append(e)

    thread = threading.Thread(target=get)
    thread.start()
    server.wait_for(lambda: bool(server.requests))
    started = time.monotonic()
    connection.abort()
    thread.join(5)
    assert failures
    assert time.monotonic() - started < 1
    with pytest.raises(Unusable):
        connection.get(REQUEST, limit_s=5)


def test_abort_ends_an_attempt_to_connect(connect: Callable[..., Connection]) -> None:
    with _FullBacklog() as port:
        connection = connect(port)
        done = threading.Event()

        def get() -> None:
            with pytest.raises(Unusable):
                connection.get(REQUEST, limit_s=30)
            done.set()

        thread = threading.Thread(target=get)
        thread.start()
        while connection._socket is None:
            time.sleep(0.001)
        started = time.monotonic()
        while not done.wait(0.01):
            connection.abort()  # the socket may not have begun to connect
            assert time.monotonic() - started < 5
        thread.join()


def test_a_host_that_does_not_take_connections_is_left(connect: Callable[..., Connection]) -> None:
    with _FullBacklog() as port, pytest.raises(Unusable, match=r"takes no connection within 0\.2 s") as late:
        connect(port).get(REQUEST, limit_s=0.2)
    assert not late.value.gone


class _FullBacklog:
    """A port where connecting waits for ever: nobody accepts, and the queue is full."""

    def __enter__(self) -> int:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._waiting: list[socket.socket] = []
        port: int = self._listener.getsockname()[1]
        while True:
            sock = socket.socket()
            sock.settimeout(0.1)
            self._waiting.append(sock)
            try:
                sock.connect(("127.0.0.1", port))
            except TimeoutError:
                return port

    def __exit__(self, *_: object) -> None:
        for sock in (*self._waiting, self._listener):
            sock.close()


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


# --- TLS ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    if shutil.which("openssl") is None:
        assert not os.environ.get("CI"), "openssl is missing"
        pytest.skip("openssl is missing")
    directory = tmp_path_factory.mktemp("tls")
    key, cert, both = (directory / name for name in ("key.pem", "cert.pem", "both.pem"))
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[FakeServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FakeServer(tls=context) as server:
        server.serve("/x", answer(b"secret"))
        yield server


def test_tls_with_the_authority_given(tls_server: FakeServer, certificate: Path, connect: Callable[..., Connection]) -> None:
    trust = ssl.create_default_context(cafile=str(certificate))
    connection = connect(tls_server.port)
    assert connection.get(REQUEST, limit_s=5, tls=trust).body == b"secret"
    tls_server.hang_up()
    assert connection.get(REQUEST, limit_s=5, tls=trust).body == b"secret"
    assert connection.opened == 2


def test_tls_without_trust_says_what_to_give(tls_server: FakeServer, connect: Callable[..., Connection]) -> None:
    with pytest.raises(Unusable, match=r"certificate that is not trusted \(self.signed certificate\): give tls\.ca_file"):
        connect(tls_server.port).get(REQUEST, limit_s=5, tls=ssl.create_default_context())


def test_tls_to_a_plain_server_and_plain_to_a_tls_server(
    server: FakeServer, tls_server: FakeServer, connect: Callable[..., Connection]
) -> None:
    server.serve("/x", answer(b"body"))
    # The first bytes of TLS are no request line: the server closes, or waits for more of it.
    with pytest.raises(Unusable):
        connect(server.port).get(REQUEST, limit_s=0.3, tls=ssl.create_default_context())
    with pytest.raises(Unusable):
        connect(tls_server.port).get(REQUEST, limit_s=5)
