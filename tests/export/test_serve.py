"""The server process: its socket, its signals, its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.export.conftest import Served
from tests.export.snapshots import node
from tokenwatt.export.api import create_app
from tokenwatt.export.publisher import Publisher
from tokenwatt.export.serve import HttpServer
from tokenwatt.listening import ListenError

ROOT = Path(__file__).parents[2]

SERVE = """
import sys
sys.path.insert(0, ".")
from tokenwatt.export.api import create_app
from tokenwatt.export.publisher import Publisher
from tokenwatt.export.serve import serve
serve(create_app(Publisher(), simulated=False), "127.0.0.1", 0, on_listening=lambda port: print(port, flush=True))
print("closed its store", flush=True)
"""


def test_a_taken_port_is_one_sentence(served: Served) -> None:
    port = served.server.port
    with pytest.raises(ListenError) as e:
        HttpServer(served.app, "127.0.0.1", port)
    assert str(e.value) == f"Cannot listen on 127.0.0.1:{port}: another program listens there already."


@pytest.mark.parametrize(
    ("host", "port", "sentence"),
    [
        ("192.0.2.1", 0, "Cannot listen on 192.0.2.1:0: this machine does not have that address."),
        ("127.0.0.1", 65536, "Cannot listen on 127.0.0.1:65536: a port is a number from 0 to 65535."),
        ("no such host", 0, "Cannot listen on no such host:0: 'no such host' is no address of this machine"),
    ],
)
def test_an_address_that_cannot_be_is_one_sentence(served: Served, host: str, port: int, sentence: str) -> None:
    with pytest.raises(ListenError) as e:
        HttpServer(served.app, host, port)
    assert str(e.value).startswith(sentence)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_two_colons_are_both_families() -> None:
    server = HttpServer(create_app(Publisher(), simulated=False), "::", 0)
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, server.port), timeout=10).close()
    server.stop()
    server.run()


def test_stopped_before_it_ran_it_ends_at_once() -> None:
    server = HttpServer(create_app(Publisher(), simulated=False), "127.0.0.1", 0)
    port = server.port
    server.stop()
    server.run()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_its_caller_goes_on(sig: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVE], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        connection = HTTPConnection("127.0.0.1", int(process.stdout.readline()), timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().read()
        os.kill(process.pid, sig)
        out, err = process.communicate(timeout=10)
        connection.close()
    assert (process.returncode, out, err) == (0, b"closed its store\n", b"")


def test_a_connection_is_kept_between_requests(served: Served) -> None:
    served.publisher.publish(node())
    connection = HTTPConnection("127.0.0.1", served.server.port, timeout=10)
    connection.connect()
    before = connection.sock
    for _ in range(3):
        connection.request("GET", "/metrics")
        assert connection.getresponse().read()
        assert connection.sock is before
    connection.close()
