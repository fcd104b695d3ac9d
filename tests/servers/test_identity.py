from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.servers.fake_server import CLOSE, FakeServer, answer
from tokenwatt.procfs import start_ticks
from tokenwatt.servers.http.connection import Connection
from tokenwatt.servers.identity import ListenerWatch
from tokenwatt.types import Listener

REQUEST = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
S = 10**9

# Takes one connection and answers over it as long as it is open, then a line on its standard input at a time: stop listening; end.
SERVER = """
import os, socket, sys, threading
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)

def serve():
    sock, _ = listener.accept()
    while sock.recv(65536):
        sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")

threading.Thread(target=serve, daemon=True).start()
sys.stdin.readline()
listener.close()
print("closed", flush=True)
sys.stdin.readline()
"""


class Server:
    """A server in a process of its own, that can stop listening and serve on."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line())
        self.identity = me(self.process.pid)

    def stop_listening(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self._line() == "closed"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    server = Server()
    yield server
    server.process.communicate()


def me(pid: int | None = None) -> Listener:
    pid = pid or os.getpid()
    ticks = start_ticks(pid)
    assert ticks is not None
    return Listener(pid, ticks)


def get(connection: Connection) -> None:
    assert connection.get(REQUEST, limit_s=5).status == 200


def test_who_took_the_connection_answers_over_it_also_when_another_listens(elsewhere: Server, server: FakeServer) -> None:
    connection = Connection("127.0.0.1", elsewhere.port, max_body_bytes=1000)
    watch = ListenerWatch(elsewhere.port)
    get(connection)
    assert watch.after_answer(connection, 0) == elsewhere.identity
    elsewhere.stop_listening()
    server.refuse()
    server.port = elsewhere.port
    server.listen()
    server.serve("/x", answer(b""))
    get(connection)
    assert watch.after_answer(connection, 10 * S) == elsewhere.identity
    connection.close()
    get(connection)
    assert watch.after_answer(connection, 20 * S) == me()
    assert not watch.exited()
    connection.close()


def test_an_end_is_noticed_before_the_next_answer(elsewhere: Server) -> None:
    connection = Connection("127.0.0.1", elsewhere.port, max_body_bytes=1000)
    watch = ListenerWatch(elsewhere.port)
    get(connection)
    watch.after_answer(connection, 0)
    assert not watch.exited()
    elsewhere.process.kill()
    elsewhere.process.wait()
    assert watch.exited()
    watch.after_failure()
    assert not watch.exited()
    connection.close()


def test_a_search_that_found_nobody_is_not_made_again_at_once(server: FakeServer) -> None:
    server.serve("/x", [answer(b""), CLOSE])
    connection = Connection("127.0.0.1", server.port, max_body_bytes=1000)
    get(connection)
    with FakeServer() as gone:
        port = gone.port
    watch = ListenerWatch(port)  # of a port where nobody is to be seen
    assert watch.after_answer(connection, 0) is None
    server.refuse()
    server.port = port
    server.listen()
    assert watch.after_answer(connection, 59 * S) is None
    assert watch.after_answer(connection, 60 * S) == me()
    connection.close()


def test_a_server_elsewhere_is_not_looked_for(server: FakeServer) -> None:
    connection = Connection("127.0.0.1", server.port, max_body_bytes=1000)
    watch = ListenerWatch(server.port)
    assert connection.local_address is None
    assert watch.after_answer(connection, 0) is None
    assert not watch.exited()
