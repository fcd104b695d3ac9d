"""GET over one kept-alive connection, plain or TLS, bounded in time and size."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.http import namespaces
from tokenwatt.servers.http.answer import AnswerReader, BadAnswer, NoAnswer

_RECEIVE_BYTES: Final = 16 * 1024


class Answer(NamedTuple):
    """A whole answer. The instants (monotonic ns) are those before the request was sent and after the last byte came."""

    status: int
    content_type: str
    encoding: str
    body: bytes
    sent_ns: int
    received_ns: int


class Connection:
    """One connection to one server, opened when needed. ``get`` and ``close`` belong to one thread; ``abort`` may be called from any.

    ``namespace``: the network namespace where the server listens, if not in ours. Its loopback addresses are reached from within, all other
    addresses by way of the routes; it is made sure that such a connection ends there.
    """

    def __init__(self, host: str, port: int, *, max_body_bytes: int, namespace: Path | None = None) -> None:
        self._host = host
        self._port = port
        self._max_body_bytes = max_body_bytes
        self._namespace = namespace
        self._enters = namespace is not None and namespaces.is_loopback(host)
        self._socket: socket.socket | None = None
        self._aborted = False
        self._deadline_ns = 0
        self._limit_s = 0.0
        self.opened = 0
        """How many connections were made so far."""
        self.local_address: str | None = None
        """The server's end of the last connection, where that is an address of this host."""

    def get(self, request: bytes, *, limit_s: float, tls: ssl.SSLContext | None = None, kept_only: bool = False) -> Answer:
        """Send a GET request and read its answer, all within ``limit_s``, name resolution excepted (the resolver has its own limits).

        A kept-alive connection that the server closed meanwhile is replaced by a new one at once. TLS where ``tls`` is given.
        With ``kept_only`` no connection is made, and so no name resolved, and all of it is within ``limit_s``.

        Raises:
            Unusable: no answer, a late one, too large a one, or none that is HTTP. The connection is closed then.
        """
        self._limit_s = limit_s
        self._deadline_ns = time.monotonic_ns() + int(limit_s * 1e9)
        try:
            if self._socket is not None:
                with suppress(NoAnswer):
                    return self._exchange(self._socket, request)
                self.close()
            if kept_only:
                raise NoAnswer
            return self._exchange(self._connect(tls), request)
        except NoAnswer:
            raise self._failed("closes the connection without an answer") from None
        except BadAnswer as e:
            raise self._failed(str(e)) from None
        except TimeoutError:
            raise self._failed(f"does not answer within {limit_s:g} s") from None
        except OSError as e:
            raise self._failed(f"broke the connection off: {e.strerror or e}") from None

    def close(self) -> None:
        """Let the connection go. The next ``get`` opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def abort(self) -> None:
        """End whatever ``get`` waits for, now and for good."""
        self._aborted = True
        if (sock := self._socket) is not None:
            with suppress(OSError):
                # Not SSLSocket.shutdown, which takes the TLS state away under the thread that reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _exchange(self, sock: socket.socket, request: bytes) -> Answer:
        def receive() -> bytes:
            sock.settimeout(self._remaining_s())
            return sock.recv(_RECEIVE_BYTES)

        reader = AnswerReader(receive, max_body_bytes=self._max_body_bytes)
        sent_ns = time.monotonic_ns()
        try:
            sock.settimeout(self._remaining_s())
            sock.sendall(request)
            head, body = reader.read()
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            if reader.begun:
                raise
            raise NoAnswer from None
        received_ns = time.monotonic_ns()
        if not reader.reusable:
            self.close()
        content_type, encoding = (head.headers.get(name, b"").decode("latin-1") for name in (b"content-type", b"content-encoding"))
        return Answer(head.status, content_type, encoding, body, sent_ns, received_ns)

    def _connect(self, tls: ssl.SSLContext | None) -> socket.socket:
        """A new connection, to the first of the host's addresses that takes one."""
        errors: list[OSError] = []
        for family, type_, protocol, _, address in self._addresses():
            try:
                sock = self._opened(self._made(family, type_, protocol), address)
                return self._secured(sock, tls) if tls else sock
            except TimeoutError:
                raise self._failed(f"takes no connection within {self._limit_s:g} s") from None
            except OSError as e:
                errors.append(e)
            except namespaces.NotEntered as e:
                raise self._failed(str(e), gone=e.gone) from None
            except namespaces.Elsewhere:
                raise self._failed("is another's address here, and not the container's") from None
        if any(isinstance(e, ConnectionRefusedError) for e in errors):
            raise self._failed("refuses the connection: nobody listens there", gone=True)
        raise self._failed(f"cannot be reached: {errors[0].strerror if errors else 'it has no address'}")

    def _addresses(self) -> list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str | int, ...] | tuple[int, bytes]]]:
        try:
            return list(socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as e:
            raise Unusable(f"the name {self._host} cannot be resolved: {getattr(e, 'strerror', None) or e}") from None

    def _made(self, family: int, type_: int, protocol: int) -> socket.socket:
        if self._namespace is None or not self._enters:
            return socket.socket(family, type_, protocol)
        return namespaces.socket_within(self._namespace, family, type_, protocol)

    def _opened(self, sock: socket.socket, address: tuple[str | int, ...] | tuple[int, bytes]) -> socket.socket:
        self.close()
        self._socket = sock  # before it connects, so that abort finds it
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(self._remaining_s())
            sock.connect(address)
            here, there = sock.getsockname(), sock.getpeername()
            if here == there:  # the kernel chose the very port we asked for, and connected us to ourselves
                raise ConnectionRefusedError
            routed_to = None if self._enters else self._namespace
            if routed_to is not None and not namespaces.ends_within(routed_to, here, there):
                raise namespaces.Elsewhere
        except BaseException:
            self.close()
            raise
        self.opened += 1
        self.local_address = there[0] if routed_to is not None or here[0] == there[0] else None
        return sock

    def _secured(self, plain: socket.socket, tls: ssl.SSLContext) -> socket.socket:
        try:
            sock = tls.wrap_socket(plain, server_hostname=self._host, do_handshake_on_connect=False)
            self._socket = sock
            sock.settimeout(self._remaining_s())
            sock.do_handshake()
        except ssl.SSLCertVerificationError as e:
            raise self._failed(f"has a certificate that is not trusted ({e.verify_message}): give tls.ca_file") from None
        except ssl.SSLError as e:
            raise self._failed(f"does not speak TLS as we do ({e.reason or e}): is it plain http?") from None
        return sock

    def _remaining_s(self) -> float:
        """What is left for this request. No wait gets more, so that the whole of it is bounded, and not each byte."""
        left_ns = self._deadline_ns - time.monotonic_ns()
        if left_ns <= 0 or self._aborted:
            raise TimeoutError
        return left_ns / 1e9

    def _failed(self, what: str, *, gone: bool = False) -> Unusable:
        self.close()
        host = f"[{self._host}]" if ":" in self._host else self._host
        return Unusable(f"{host}:{self._port} {what}", gone=gone)
