"""The command line as a whole: what it exits with, and what it says."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
from argparse import ArgumentParser

import pytest

from tokenwatt import __version__
from tokenwatt.cli import COMMANDS, Command, main

TOKENWATT = (sys.executable, "-m", "tokenwatt")
# The lines of coverage of this test run are none of the child's business, nor are settings of whoever runs the tests.
ENVIRON = {k: v for k, v in os.environ.items() if not k.startswith("TOKENWATT_")}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("TOKENWATT_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("command", COMMANDS, ids=[c.name for c in COMMANDS])
def test_each_command_of_the_table_is_there(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(command.module)
    module.add_arguments(ArgumentParser())
    assert callable(module.main)
    assert main([command.name, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: tokenwatt {command.name} ")
    assert "--listen ADDRESS" in said
    if command.name != "proxy":  # it needs no settings, and may run where there are none
        assert "--config FILE" in said


def test_without_a_command_the_help_is_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert all(f"  {c.name} " in said.err for c in COMMANDS)
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == said.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tokenwatt {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rn"], "tokenwatt: there is no command 'rn'; did you mean 'run'?\n"),
        (["xyz"], "tokenwatt: there is no command 'xyz'; the commands are: run, demo, snapshot, proxy, health, config\n"),
        (["\x1b[31m"], "tokenwatt: there is no command '\\x1b[31m'; the commands are: run, demo, snapshot, proxy, health, config\n"),
    ],
)
def test_a_command_that_there_is_not(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "words",
    [
        ["--nonsense"],
        ["--listen", "127.0.0.1:0", "health"],
        ["health", "--nonsense"],
        ["health", "--conf", "x"],
        ["config"],
        ["config", "chek"],
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: tokenwatt")


def test_a_reader_that_left_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run([*TOKENWATT, "config", "show"], stdout=gone, stderr=subprocess.PIPE, env=ENVIRON, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_is_quiet() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = [*TOKENWATT, "health", "--listen", f"127.0.0.1:{server.getsockname()[1]}"]

        def interruptible() -> None:
            # Whoever runs this in the background of a shell has SIGINT ignored, and children inherit that.
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        pipe = subprocess.PIPE
        with subprocess.Popen(words, stdout=pipe, stderr=pipe, env=ENVIRON, preexec_fn=interruptible) as process:
            asked, _ = server.accept()
            with asked:
                assert asked.recv(4) == b"GET "  # it waits for an answer now
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_failure_shows_its_traceback_where_somebody_debugs() -> None:
    words = [*TOKENWATT, "health", "--listen", "nowhere"]
    plain = subprocess.run(words, capture_output=True, text=True, env=ENVIRON, check=False, timeout=60)
    assert plain.returncode == 1
    assert plain.stderr == "tokenwatt: --listen: listen: 'nowhere' has no port; write host:port, for example 127.0.0.1:28900\n"
    debugged = subprocess.run(words, capture_output=True, text=True, env={**ENVIRON, "TOKENWATT_DEBUG": "1"}, check=False, timeout=60)
    assert debugged.returncode == 1
    assert debugged.stderr.startswith("Traceback")


@pytest.mark.parametrize("words", [("--version",), ("health", "--listen", "127.0.0.1:0")])
def test_what_needs_no_settings_does_not_pay_for_them(words: tuple[str, ...]) -> None:
    heavy = "{'pydantic', 'yaml', 'fastapi'} & sys.modules.keys()"
    program = f"import sys; from tokenwatt.cli import main; main(sys.argv[1:]); print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, env=ENVIRON, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
