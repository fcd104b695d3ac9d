"""``tokenwatt health`` against real sockets."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tokenwatt.cli import main

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
STALE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 35\r\n\r\nthe last snapshot is\n12.0 s old\x1b[1m"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("TOKENWATT_")]:
        monkeypatch.delenv(name)


@contextmanager
def answering(answer: bytes, host: str = "127.0.0.1") -> Iterator[tuple[int, list[bytes]]]:
    """A server that gives one answer. Yields its port and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        server.settimeout(30)  # nobody came: the test has failed, and should not hang

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], asked
        finally:
            thread.join()


def test_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(OK) as (port, asked):
        assert main(["health", "--listen", f"127.0.0.1:{port}"]) == 0
    assert tuple(capsys.readouterr()) == ("healthy\n", "")
    assert asked[0].startswith(b"GET /-/healthy HTTP/1.1\r\n")


@pytest.mark.parametrize(("listen", "host"), [("0.0.0.0", "127.0.0.1"), ("[::]", "::1"), ("[::1]", "::1")])
def test_every_interface_means_this_machine(listen: str, host: str) -> None:
    with answering(OK, host) as (port, _):
        assert main(["health", "--listen", f"{listen}:{port}"]) == 0


def test_the_address_comes_from_flag_environment_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "s.yaml"
    with answering(OK) as (port, _):
        file.write_text(f"listen: 127.0.0.1:{port}\nwrong: key\n")  # what else is wrong is not what was asked
        assert main(["health", "--config", str(file)]) == 0
    with answering(OK) as (port, _):
        monkeypatch.setenv("TOKENWATT_LISTEN", f"127.0.0.1:{port}")
        assert main(["health", "--config", str(file)]) == 0
    with answering(OK) as (port, _):
        assert main(["health", "--config", str(file), "--listen", f"127.0.0.1:{port}"]) == 0


def test_not_healthy_says_why_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(STALE) as (port, _):
        assert main(["health", "--listen", f"127.0.0.1:{port}"]) == 1
    assert tuple(capsys.readouterr()) == (
        "",
        f"tokenwatt: http://127.0.0.1:{port}/-/healthy: not healthy: 503 the last snapshot is 12.0 s old\\x1b[1m\n",
    )


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert main(["health", "--listen", f"127.0.0.1:{port}"]) == 1
    assert capsys.readouterr().err == f"tokenwatt: http://127.0.0.1:{port}/-/healthy: connection refused\n"


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_something_else_listens(capsys: pytest.CaptureFixture[str], answer: bytes) -> None:
    with answering(answer) as (port, _):
        assert main(["health", "--listen", f"127.0.0.1:{port}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"tokenwatt: http://127.0.0.1:{port}/-/healthy: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen: 1", "{file}:1: listen: 1 is not an address; write host:port, for example 127.0.0.1:28900"),
        (
            "listen: 127.0.0.1:0",
            "127.0.0.1:0: the system chose the port; give the one that the log of 'tokenwatt run' names, with --listen",
        ),
        ("listen: [", "{file}:1: is not YAML: "),
    ],
)
def test_an_address_that_cannot_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    assert main(["health", "--config", str(file)]) == 1
    assert capsys.readouterr().err.startswith(f"tokenwatt: {said.format(file=file)}")
