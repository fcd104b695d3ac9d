"""Sockets in another network namespace: a container's, whose loopback is not ours."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from tokenwatt import procfs

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h


class NotEntered(Exception):
    """A network namespace cannot be reached, and why, as a sentence's end. ``gone``: it is not there any more."""

    def __init__(self, reason: str, *, gone: bool = False) -> None:
        super().__init__(reason)
        self.gone = gone


class Elsewhere(Exception):
    """A connection to an address of a namespace ended somewhere else."""


def is_loopback(host: str) -> bool:
    """Whether a host is an address that each network namespace has for itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def tables_of(namespace: Path) -> Path:
    """The directory of tables (``/proc/PID/net``) of a namespace (``/proc/PID/ns/net``)."""
    return namespace.parent.parent / "net"


def ends_within(namespace: Path, here: tuple[Any, ...], there: tuple[Any, ...]) -> bool:
    """Whether a connection of ours, by the names of its two ends, ends in a namespace."""
    return procfs.ends_in((here[0], here[1]), (there[0], there[1]), net=tables_of(namespace))


def check_entry(namespace: Path) -> None:
    """Make sure that a namespace may be entered.

    Raises:
        NotEntered: it may not, or is gone.
    """
    socket_within(namespace, socket.AF_INET, socket.SOCK_STREAM, 0).close()


def check_route(namespace: Path, host: str, port: int, *, limit_s: float) -> None:
    """Make sure that a namespace's own address leads there, by a connection that asks nothing.

    Raises:
        NotEntered: it does not.
    """
    try:
        with socket.create_connection((host, port), timeout=limit_s) as sock:
            if ends_within(namespace, sock.getsockname(), sock.getpeername()):
                return
    except OSError:
        pass
    raise NotEntered(f"is in the network namespace {namespace}, and {host} does not lead there")


def socket_within(namespace: Path, family: int, type_: int, protocol: int) -> socket.socket:
    """A socket that belongs to a namespace for good, wherever it is used.

    Made by a thread that enters the namespace and ends: it is a property of a thread, and ours stays where it is.

    Raises:
        NotEntered: it may not be entered (that takes CAP_SYS_ADMIN, and CAP_SYS_PTRACE for other users' processes), or is gone.
    """
    made: list[socket.socket | BaseException] = []

    def make() -> None:
        try:
            _enter(namespace)
            made.append(socket.socket(family, type_, protocol))
        except BaseException as e:  # raised where it is waited for
            made.append(e)

    thread = threading.Thread(target=make, name="enter-namespace", daemon=True)
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, (FileNotFoundError, ProcessLookupError)):
        raise NotEntered(f"is gone, and its network namespace {namespace} too", gone=True)
    if isinstance(result, PermissionError):
        raise NotEntered(f"is in the network namespace {namespace}, which may not be entered: that takes CAP_SYS_ADMIN and CAP_SYS_PTRACE")
    if isinstance(result, BaseException):
        raise result
    return result


def _enter(namespace: Path) -> None:
    """``setns``, which Python has from 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)
