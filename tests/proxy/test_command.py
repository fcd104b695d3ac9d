"""``tokenwatt proxy`` as a process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.process import wait_for
from tests.proxy.answers import ANSWERS, chunked, request
from tests.proxy.meter import Meter
from tests.proxy.upstream import Peer, Upstream
from tokenwatt.cli import main
from tokenwatt.proxy.addresses import same_place

TOKENWATT = (sys.executable, "-m", "tokenwatt", "proxy")
UPSTREAM = "http://127.0.0.1:11434"
stream = next(a for a in ANSWERS if a.name == "stream")
silent = next(a for a in ANSWERS if a.name == "no usage")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: --upstream"),
        (["--upstream", "localhost:11434"], "argument --upstream: 'localhost:11434' is not an http or https URL; write http://localhost:11434"),
        (["--upstream", f"{UPSTREAM}/v1"], "argument --upstream: 'http://127.0.0.1:11434/v1' is the root of the server's API"),
        (["--upstream", f"{UPSTREAM}/ollama"], "argument --upstream: 'http://127.0.0.1:11434/ollama' has a path; write only"),
        (["--upstream", UPSTREAM, "--listen", "8000"], "argument --listen: '8000' is not an address"),
        (["--upstream", UPSTREAM, "--report-to", "x"], "argument --report-to: 'x' is not an http or https URL"),
        (["--upstream", UPSTREAM, "--server", "retired"], "argument --server: 'retired' is the name that servers gone for a day share"),
        (["--upstream", UPSTREAM, "--listen", "0.0.0.0:11434"], f"--upstream {UPSTREAM} is where this proxy listens itself"),
    ],
)
def test_wrong_arguments(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proxy", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_places_that_are_the_same() -> None:
    assert same_place("127.0.0.1:80", "http://localhost")
    assert same_place("[::]:443", "https://[::1]")
    assert not same_place("127.0.0.1:28901", UPSTREAM)
    assert not same_place("127.0.0.1:80", "http://models.example")


def test_an_address_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["proxy", "--upstream", UPSTREAM, "--listen", address]) == 1
    assert capsys.readouterr().err.endswith(f"tokenwatt: Cannot listen on {address}: another program listens there already.\n")


def test_a_token_file_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["proxy", "--upstream", UPSTREAM, "--token-file", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"tokenwatt: --token-file {tmp_path}/none cannot be read: No such file or directory\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_from_start_to_end(number: signal.Signals, upstream: Callable[..., Upstream], meter: Meter, tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        for answer in (stream, silent):
            due = len(peer.received) + len(request(answer.path))
            while len(peer.received) < due:
                assert peer.receive()
            peer.sock.sendall(chunked(answer))
        peer.receive()

    server = upstream(script)
    token = tmp_path / "token"
    token.write_text("let-me\n")
    log = tmp_path / "log"
    words = [*TOKENWATT, "--upstream", server.url, "--listen", "127.0.0.1:0", "--report-to", meter.url, "--token-file", str(token)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TOKENWATT_")}
    with log.open("w") as out, subprocess.Popen(words, stdout=out, stderr=out, env=environment) as process:
        try:
            found = wait_for(lambda: re.search(r"http://127\.0\.0\.1:(\d+): point clients there instead of to (\S+)\.", log.read_text()))
            assert found[2] == server.url
            with socket.create_connection(("127.0.0.1", int(found[1])), 20) as client:
                for answer in (stream, silent):
                    client.sendall(request(answer.path))
                    got = b""
                    while len(got) < len(chunked(answer)):
                        got += client.recv(65536)
                    assert got == chunked(answer)
                meter.wait_for(lambda: meter.tokens("tiny") == {"generation": 8, "prompt_computed": 5, "prompt_cached": 16})
                process.send_signal(number)
                assert client.recv(1) == b""
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert meter.accepted[0]["server"] == f"generic-{server.port}"
    assert meter.posts[0][1]["authorization"] == "Bearer let-me"
    said = log.read_text()
    assert "1 requests metered; not metered: stream without usage 1" in said
    assert said.count('\\"stream_options\\": {\\"include_usage\\": true}') == 1
    assert "secret" not in said
    assert "Traceback" not in said


def test_it_imports_nothing_heavy() -> None:
    heavy = "{'pydantic', 'yaml', 'fastapi', 'uvicorn', 'httpx'} & sys.modules.keys()"
    modules = "tokenwatt.cli.proxy, tokenwatt.proxy.service, tokenwatt.proxy.reporter"
    done = subprocess.run([sys.executable, "-c", f"import sys, {modules}; print({heavy})"], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
