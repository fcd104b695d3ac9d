"""An upstream over real sockets that says, byte by byte, what a test tells it to, and keeps every byte it was sent."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress

TIMEOUT_S = 20.0


class Peer:
    """One connection at the upstream's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        self.ended: str | None = None
        """How the other side ended: "eof" or "reset"."""
        self.changed = threading.Condition()

    def receive(self, size: int = 65536) -> bytes:
        """What comes next, nothing at the end."""
        try:
            data = self.sock.recv(size)
        except ConnectionError:
            data, how = b"", "reset"
        else:
            how = "eof"
        with self.changed:
            self.received += data
            if not data:
                self.ended = how
            self.changed.notify_all()
        return data

    def receive_until(self, end: bytes) -> None:
        """Until what was received ends so."""
        while not self.received.endswith(end):
            assert self.receive(), f"the connection ended before {end!r}"

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, TIMEOUT_S)


Script = Callable[[Peer], None]


class Upstream:
    """Runs ``script`` on each connection, in a thread of its own, and then closes it."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None) -> None:
        self._script = script
        self._tls = tls
        self._listener = socket.socket()
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(1024)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def peer(self, number: int = 0) -> Peer:
        """A connection, by its number."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.peers) > number, TIMEOUT_S), "nobody connected"
            return self.peers[number]

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self.peers:
            with suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.settimeout(TIMEOUT_S)
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, plain: socket.socket) -> None:
        with plain:
            try:
                sock = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
                with sock:
                    peer = Peer(sock)
                    with self._changed:
                        self.peers.append(peer)
                        self._changed.notify_all()
                    self._script(peer)
            except OSError:
                pass  # the test's client has gone
            except BaseException as e:
                self.failures.append(e)
