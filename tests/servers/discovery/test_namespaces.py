"""Servers in containers' networks: real ones, without containers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.servers.discovery.conftest import Discover, Heard, Program, Start, free_port
from tests.servers.fake_server import FakeServer, be_vllm
from tokenwatt import procfs
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.http.connection import Connection
from tokenwatt.servers.http.namespaces import NotEntered, socket_within
from tokenwatt.servers.scrape import Scraper
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import Listener, ServerReading

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def listener_of(target: ServerTarget) -> Listener | None:
    scraper = Scraper(target)
    try:
        reading = scraper.scrape()
        assert isinstance(reading, ServerReading), reading
        return reading.listener
    finally:
        scraper.close()


def identity(program: Program) -> Listener:
    ticks = procfs.start_ticks(program.process.pid)
    assert ticks is not None
    return Listener(program.process.pid, ticks)


def test_two_with_the_same_port_are_found_by_entering(start: Start, discover: Discover, heard: Heard, in_namespace: Sequence[str]) -> None:
    first = start(before=in_namespace)
    twin = start(before=in_namespace, port=first.port)
    here = start(port=first.port)
    discover()
    heard.wait_for(lambda: len(heard.at(first.port)) == 3)
    name = f"vllm-{first.port}"
    assert {t.name for t in heard.at(first.port)} == {name, f"{name}-2", f"{name}-3"}
    assert {t.url for t in heard.at(first.port)} == {f"http://127.0.0.1:{first.port}"}
    assert {listener_of(t) for t in heard.at(first.port)} == {identity(p) for p in (first, twin, here)}
    first.end()
    heard.wait_for(lambda: len(heard.at(first.port)) == 2)


@pytest.fixture
def container(start: Start, in_namespace: Sequence[str]) -> Iterator[tuple[Program, str]]:
    """A server on all addresses of a namespace that is connected to ours, and its address."""
    number = os.getpid() % 16384
    ours, theirs = (f"10.203.{number >> 6}.{(number & 63) * 4 + i}" for i in (1, 2))
    server = start(address="0.0.0.0", before=in_namespace)
    pid, link = server.process.pid, f"tw{os.getpid()}"
    commands = (
        f"ip link add {link} type veth peer name eth0 netns {pid}",
        f"ip addr add {ours}/30 dev {link}",
        f"ip link set {link} up",
        f"nsenter -t {pid} -n ip addr add {theirs}/30 dev eth0",
        f"nsenter -t {pid} -n ip link set eth0 up",
    )
    try:
        for command in commands:
            if (result := subprocess.run(command.split(), capture_output=True, text=True)).returncode != 0:
                pytest.skip(f"{command}: {result.stderr}")
        yield server, theirs
    finally:
        subprocess.run(["ip", "link", "del", link], capture_output=True)


def test_on_all_addresses_is_reached_by_its_own(container: tuple[Program, str], discover: Discover, heard: Heard) -> None:
    server, address = container
    discover()
    target = heard.find(server.port)
    assert target.url == f"http://{address}:{server.port}"
    assert listener_of(target) == identity(server)


def test_the_settings_may_name_a_container_by_its_address(
    container: tuple[Program, str], start: Start, discover: Discover, heard: Heard
) -> None:
    server, address = container
    other = start()
    discover(ServerTarget("mine", f"http://{address}:{server.port}"))
    heard.find(other.port)
    heard.find(start().port)
    assert server.connections() == 0


def test_an_address_that_is_somebody_elses_here_is_not_asked(
    start: Start, discover: Discover, heard: Heard, in_namespace: Sequence[str]
) -> None:
    address = next((a for a in procfs.local_addresses() if a.version == 4), None)
    if address is None:
        pytest.skip("this host has no address but its loopback")
    with FakeServer(str(address)) as stranger:
        be_vllm(stranger)
        stranger.refuse()
        stranger.port = free_port()
        stranger.listen()
        server = start(address="0.0.0.0", port=stranger.port, before=in_namespace)
        pid = server.process.pid
        subprocess.run(f"nsenter -t {pid} -n ip addr add {address}/32 dev lo".split(), check=True)
        discover()
        target = heard.find(server.port)
        assert target.url == f"http://127.0.0.1:{server.port}"
        assert listener_of(target) == identity(server)
        namespace = Path(f"/proc/{pid}/ns/net")
        connection = Connection(str(address), stranger.port, max_body_bytes=100, namespace=namespace)
        with pytest.raises(Unusable, match="is another's address here"):
            connection.get(REQUEST, limit_s=5)
        assert stranger.requests == []


def test_a_namespace_that_is_gone_is_a_server_that_is_gone(start: Start, in_namespace: Sequence[str]) -> None:
    server = start(before=in_namespace)
    connection = Connection("127.0.0.1", server.port, max_body_bytes=100_000, namespace=Path(f"/proc/{server.process.pid}/ns/net"))
    assert connection.get(REQUEST, limit_s=5).status == 200
    assert connection.local_address == "127.0.0.1"
    server.end()
    with pytest.raises(Unusable, match="is gone") as caught:
        connection.get(REQUEST, limit_s=5)
    assert caught.value.gone


def test_a_socket_of_another_namespace_leaves_us_where_we_are(start: Start, in_namespace: Sequence[str]) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    server = start(before=in_namespace)
    with socket_within(Path(f"/proc/{server.process.pid}/ns/net"), 2, 1, 0) as sock:
        sock.connect(("127.0.0.1", server.port))
    assert os.readlink("/proc/thread-self/ns/net") == before
    with pytest.raises(NotEntered):
        socket_within(Path("/proc/0/ns/net"), 2, 1, 0)


# --- without rights ------------------------------------------------------------------------------------------------------------------

# What is imported later would not be found: nobody may not read the directory of a root's Python.
AS_NOBODY = """
import encodings.idna, os, sys
from tokenwatt.servers import engines, scrape
from tokenwatt.servers.discovery import Discovery
os.setgroups([]); os.setgid(65534); os.setuid(65534)
def found(target): print("found", target.url, target.namespace, flush=True)
def notice(key, text): print("notice", text, flush=True)
each = Discovery(configured=[], found=found, gone=print, notice=notice, gpu_pids=tuple)
each.start()
sys.stdin.read()
each.stop()
"""


@pytest.fixture
def nobody() -> Iterator[Iterator[str]]:
    """What a discovery of a user without rights tells, line by line."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    process = subprocess.Popen([sys.executable, "-c", AS_NOBODY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield iter(process.stdout)
    process.kill()
    with suppress(ValueError):
        process.communicate()


def test_another_users_server_is_found_by_its_command_line(start: Start, nobody: Iterator[str]) -> None:
    port = free_port()
    told = start(port=port, words=("--port", str(port)))
    silent = start(name="vllm", port=0)
    wanted = {
        f"found http://127.0.0.1:{told.port} None",
        f"notice vllm (process {silent.process.pid}) does not show which ports it listens on",
    }
    assert not missing(wanted, nobody)


def test_a_namespace_that_may_not_be_entered_is_told_with_what_would_help(
    start: Start, in_namespace: Sequence[str], nobody: Iterator[str]
) -> None:
    port = free_port()
    server = start(port=port, name="vllm", words=("--port", str(port)), before=in_namespace)
    namespace = f"/proc/{server.process.pid}/ns/net"
    wanted = {f"notice vllm (process {server.process.pid}) is in the network namespace {namespace}, which may not be entered"}
    assert not missing(wanted, nobody)
    assert server.connections() == 0


def test_a_user_without_rights_reads_a_container_by_its_address(container: tuple[Program, str]) -> None:
    server, address = container
    target = ServerTarget("x", f"http://{address}:{server.port}", namespace=Path(f"/proc/{server.process.pid}/ns/net"))
    script = f"""
import encodings.idna, os
from tokenwatt.servers import engines, scrape
from tokenwatt.servers.target import ServerTarget
from pathlib import PosixPath
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(type(scrape.Scraper({target!r}).scrape()).__name__)
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "ServerReading\n"


def missing(wanted: set[str], lines: Iterator[str]) -> set[str]:
    """What no line begins with, of lines that come until there is nothing wanted any more. The test's own limit ends the wait."""
    wanted = set(wanted)
    while wanted and (line := next(lines, None)) is not None:
        wanted -= {each for each in wanted if line.startswith(each)}
    return wanted
