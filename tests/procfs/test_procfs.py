from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tokenwatt import procfs
from tokenwatt.types import Listener

Start = Callable[..., subprocess.Popen[str]]

LISTEN = """
import os, socket, sys
listener = socket.create_server((sys.argv[1], 0))
print(listener.getsockname()[1], flush=True)
"""
WAIT = "sys.stdin.read()\n"


@pytest.fixture
def start() -> Iterator[Start]:
    """Runs Python programs that end with their standard input."""
    running: list[subprocess.Popen[str]] = []

    def run(program: str, *arguments: str, executable: str = sys.executable) -> subprocess.Popen[str]:
        running.append(
            subprocess.Popen([executable, "-c", program + WAIT, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        return running[-1]

    yield run
    for process in running:
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def known(pid: int) -> Listener:
    ticks = procfs.start_ticks(pid)
    assert ticks is not None
    return Listener(pid, ticks)


# --- who listens -------------------------------------------------------------------------------------------------------------------------


def test_finds_the_process_behind_a_port(start: Start) -> None:
    process = start(LISTEN, "127.0.0.1")
    port = int(line(process))
    assert procfs.listener(port) == procfs.listener(port, address="127.0.0.1") == known(process.pid)
    process.communicate()
    assert procfs.listener(port) is None


def test_a_port_that_only_a_client_uses_has_no_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        assert procfs.listener(client.getsockname()[1]) is None
        assert procfs.listener(listener.getsockname()[1]) == known(os.getpid())


def test_ipv6(start: Start) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    process = start(LISTEN.replace("0))", "0), family=socket.AF_INET6)"), "::1")
    port = int(line(process))
    assert procfs.listener(port, address="::1") == known(process.pid)
    assert procfs.listener(port, address="127.0.0.1") is None
    assert str(procfs.listen_sockets(port)[0].address) == "::1"


def test_two_servers_share_a_port_on_different_addresses(start: Start) -> None:
    first = start(LISTEN, "127.0.0.1")
    port = int(line(first))
    with socket.create_server(("127.0.0.2", port)):
        assert procfs.listener(port, address="127.0.0.1") == known(first.pid)
        assert procfs.listener(port, address="127.0.0.2") == known(os.getpid())
        assert procfs.listener(port, address="::ffff:127.0.0.2") == known(os.getpid())
        assert procfs.listener(port, address="127.0.0.3") is None


def test_of_a_parent_and_its_workers_the_parent_listens(start: Start) -> None:
    # Two workers inherit the socket and wait as their parent does; only the parent prints.
    program = LISTEN + "top = os.getpid()\nfor _ in range(2):\n    if os.getpid() == top: os.fork()\n"
    process = start(program, "127.0.0.1")
    port = int(line(process))
    deadline = time.monotonic() + 10
    while len(holders := procfs.holders({s.inode for s in procfs.listen_sockets(port)}, procfs.pids())[0]) < 3:
        assert time.monotonic() < deadline
    assert process.pid in holders
    assert procfs.listener(port) == known(process.pid)


def test_of_unrelated_processes_on_one_port_the_oldest_listens(start: Start) -> None:
    reuse = "import socket, sys\nlistener = socket.create_server(('127.0.0.1', int(sys.argv[1])), reuse_port=True)\n"
    first = start(reuse + "print(listener.getsockname()[1], flush=True)\n", "0")
    port = line(first)
    oldest = known(first.pid)
    line(start(reuse + "print(1, flush=True)\n", port))
    assert len(procfs.listen_sockets(int(port))) == 2
    assert procfs.listener(int(port)) == oldest


def test_what_was_found_is_verified_cheaply(start: Start) -> None:
    process = start(LISTEN, "127.0.0.1")
    found = procfs.port_holder(int(line(process)))
    assert found is not None
    assert found.holds()
    process.communicate()
    assert not found.holds()


def test_a_socket_closed_by_a_process_that_lives_on_is_not_held() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = procfs.port_holder(listener.getsockname()[1])
        assert found is not None
        assert found.holds()
    assert not found.holds()


# --- where file descriptors cannot be seen -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of 3.12 on, where other tests left threads
def test_another_users_listener_is_found_by_its_command_line(start: Start) -> None:
    """As nobody, who may read neither our descriptors nor those of root's other processes."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = LISTEN.replace("(sys.argv[1], 0)", '("127.0.0.1", int(sys.argv[2]))')
    for words in (["--port", str(port)], [f"--port={port}", str(port)], [f"0.0.0.0:{port}", str(port)]):
        server = start(program, *words)
        assert int(line(server)) == port
        # A client's command line holds the port too, and so may a shell's.
        client = start("import sys\nprint(1, flush=True)\n", f"http://127.0.0.1:{port}")
        line(client)
        seen = _as_nobody(port)
        assert seen == f"{tuple(known(server.pid))} None"
        client.communicate()
        server.communicate()


def _as_nobody(port: int) -> str:
    """What ``port_holder`` finds for a user without rights. In a forked child: it may not read this directory any more."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            found = procfs.port_holder(port)
            os.write(writing, f"{tuple(found.listener)} {found.link}".encode() if found else b"nobody")
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


# --- processes ---------------------------------------------------------------------------------------------------------------------------


def test_ancestors_begin_with_the_process_and_end_with_the_first(start: Start) -> None:
    process = start("import sys\n")
    line_of = procfs.ancestors(process.pid)
    assert line_of[:2] == (process.pid, os.getpid())
    assert line_of[1:] == procfs.ancestors(os.getpid())
    assert len(set(line_of)) == len(line_of)
    assert procfs.ancestors(1) == (1,)


@pytest.mark.parametrize("name", ["a b", "a) S 1 (b", "((("])
def test_a_command_may_hold_blanks_and_parentheses(name: str, start: Start, tmp_path: Path) -> None:
    # The kernel's name of a process is that of the file it runs.
    odd = tmp_path / name
    odd.symlink_to(sys.executable)
    process = start("import sys\nprint(1, flush=True)\n", executable=str(odd))
    line(process)
    assert f"({name}) " in Path(f"/proc/{process.pid}/stat").read_text()
    assert procfs.ancestors(process.pid)[1] == os.getpid()
    assert procfs.start_ticks(process.pid) is not None


def test_start_ticks_are_when_it_started(start: Start) -> None:
    def uptime_ticks() -> float:
        return float(Path("/proc/uptime").read_text().split()[0]) * os.sysconf("SC_CLK_TCK")

    before = uptime_ticks()
    process = start("import sys\n")
    after = uptime_ticks()
    ticks = procfs.start_ticks(process.pid)
    assert ticks is not None
    assert before - 2 <= ticks <= after + 2


def test_a_process_that_ended_is_not_there(start: Start) -> None:
    process = start("import sys\n")
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not waited for
    assert procfs.start_ticks(process.pid) is None
    assert procfs.ancestors(process.pid) == ()
    process.stdin = None
    process.wait()
    assert procfs.start_ticks(process.pid) is None
    assert procfs.ancestors(0) == ()


def test_another_root_is_read_instead(tmp_path: Path) -> None:
    """As in a container that has the host's /proc elsewhere."""
    fields = ["S", "1", *["0"] * 17, "4711"]
    for pid, parent in ((1, "0"), (20, "1"), (21, "20")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (server (x) y) {' '.join([fields[0], parent, *fields[2:]])} 0 0\n")
        (tmp_path / str(pid) / "fd").mkdir()
    for pid in (20, 21):
        (tmp_path / str(pid) / "fd" / "7").symlink_to("socket:[12345]")
    (tmp_path / "net").mkdir()
    words = "  0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0\n"
    (tmp_path / "net" / "tcp").write_text("  sl  local_address ...\n" + words)
    assert procfs.listener(8000, root=tmp_path) == Listener(20, 4711)
    assert procfs.ancestors(21, root=tmp_path) == (21, 20, 1)
    found = procfs.port_holder(8000, root=tmp_path)
    assert found is not None
    assert found.holds()
    (tmp_path / "20" / "fd" / "7").unlink()
    assert not found.holds()
    assert procfs.listener(8001, root=tmp_path) is None
    assert procfs.listener(8000, root=tmp_path / "nothing") is None
