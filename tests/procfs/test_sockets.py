from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from tokenwatt import procfs
from tokenwatt.procfs import ListenSocket
from tokenwatt.procfs.listing import listening_here

NET = Path("/proc/net")


def test_the_kernel_lists_what_its_table_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as four, socket.create_server(("0.0.0.0", 0)) as all_, socket.create_connection(
        four.getsockname()
    ):
        ours = {os.fstat(s.fileno()).st_ino: s for s in (four, all_)}
        deadline = time.monotonic() + 10
        # Others may begin and end to listen between the two.
        while (listed := listening_here({})) != {s.inode: s for s in procfs.listening()}:
            assert time.monotonic() < deadline
        for inode, each in ours.items():
            address, port = each.getsockname()
            assert listed[inode] == ListenSocket(ip_address(address), inode, os.geteuid(), port)
        assert all(listed[inode] is listening_here(listed)[inode] for inode in ours)
    assert not ours.keys() & listening_here({}).keys()


def test_ipv6_is_listed_as_such_and_mapped_addresses_as_ipv4() -> None:
    try:
        six = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    mapped = socket.socket(socket.AF_INET6)
    mapped.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    mapped.bind(("::ffff:127.0.0.1", 0))
    mapped.listen()
    with six, mapped:
        for listed in (listening_here({}), {s.inode: s for s in procfs.listening()}):
            assert listed[os.fstat(six.fileno()).st_ino].address == ip_address("::1")
            assert listed[os.fstat(mapped.fileno()).st_ino].address == ip_address("127.0.0.1")


def test_a_census_counts_sockets() -> None:
    def total() -> int:
        counts = procfs.census()
        assert counts is not None
        return sum(counts)

    deadline = time.monotonic() + 10
    while True:  # others open and close sockets too
        before = total()
        with socket.create_server(("127.0.0.1", 0)):
            during = total()
        if (during - before, during - total()) == (1, 1):
            break
        assert time.monotonic() < deadline
    assert procfs.census(net=Path("/nowhere")) is None


def test_where_a_connection_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        here, there = client.getsockname(), client.getpeername()
        assert procfs.ends_in(here, there, net=NET)
        assert not procfs.ends_in(("127.0.0.2", here[1]), there, net=NET)
        assert not procfs.ends_in(here, (there[0], there[1] ^ 1), net=NET)
        assert not procfs.ends_in(here, there, net=Path("/nowhere"))


def test_the_end_of_a_connection_over_ipv4_to_a_socket_of_both() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as client,
    ):
        assert procfs.ends_in(client.getsockname(), client.getpeername(), net=NET)


def test_own_addresses(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n"
        "           |-- 10.0.0.0\n              /24 link UNICAST\n           |-- 10.0.0.7\n              /32 host LOCAL\n"
        "           |-- 10.0.0.255\n              /32 link BROADCAST\n"
        "Local:\n           |-- 127.0.0.1\n              /32 host LOCAL\n           |-- 10.0.0.7\n              /32 host LOCAL\n"
    )
    (tmp_path / "if_inet6").write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "fe800000000000000000000000000001 02 40 20 80     eth0\n"
        "fd000000000000000000000000000005 02 40 00 80     eth0\n"
    )
    assert procfs.local_addresses(net=tmp_path) == (ip_address("10.0.0.7"), ip_address("fd00::5"))
    assert procfs.local_addresses(net=tmp_path / "nothing") == ()


def test_our_own_addresses_are_bindable() -> None:
    for address in procfs.local_addresses():
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        socket.create_server((str(address), 0), family=family).close()


def test_a_process_is_told_with_its_command_line() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", "x y", ""], stdin=subprocess.PIPE) as child:
        found = procfs.process(child.pid)
        assert found is not None
        assert found.parent == os.getpid()
        assert found.start_ticks == procfs.start_ticks(child.pid)
        assert procfs.user(child.pid) == os.geteuid()
        assert str(child.pid) in procfs.entries()
        assert child.pid in procfs.pids()
        child.communicate()
    assert procfs.process(child.pid) is None
    assert procfs.command_line(child.pid) == ()
    assert procfs.user(child.pid) is None


def test_namespaces_differ_by_number() -> None:
    ours = procfs.net_namespace(NET)
    assert ours is not None
    command = ["unshare", "-n", sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        if not child.stdout.readline():
            pytest.skip("network namespaces are not permitted here")
        theirs = procfs.net_namespace(Path(f"/proc/{child.pid}/net"))
        assert theirs is not None
        assert theirs != ours
        assert procfs.listening(net=Path(f"/proc/{child.pid}/net")) == ()
        child.communicate()
    assert procfs.net_namespace(Path(f"/proc/{child.pid}/net")) is None
