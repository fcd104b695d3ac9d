"""Bytes between one client and the upstream, as they come: no byte is changed, held back or read before it is sent on.

Backpressure, half-close and abort go through in both directions. Memory for each connection is bounded by asyncio's write buffers.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final, cast

from tokenwatt.proxy.aside import Copies

_READ_BYTES: Final = 64 * 1024
_LINGER_S: Final = 5.0

# One for all: the loop fills it and hands it over in one go, and nobody keeps a view of it.
_buffer: Final = memoryview(bytearray(_READ_BYTES))

Connect = Callable[["UpstreamEnd"], asyncio.Task[None]]


class _End(asyncio.BufferedProtocol):
    """One of the two connections."""

    def __init__(self, copies: Copies, observe: Callable[[bytes], None]) -> None:
        """``observe`` keeps a copy of what was sent on, for the observer."""
        self.copies = copies
        self._observe = observe
        self.transport: asyncio.Transport | None = None
        self.peer: _End | None = None
        self.ended = False
        """It sends no more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio."""
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Send it on, and keep a copy aside."""
        data = bytes(_buffer[:nbytes])
        assert self.peer is not None
        if self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.write(data)
        self._observe(data)

    def eof_received(self) -> bool:
        """The other side of this connection sends no more, and may still read. Returns whether to keep it open: TLS cannot."""
        assert self.transport is not None
        self.ended = True
        if self.peer is not None:
            if self.peer.ended:
                self.close()
                self.peer.close()
            else:
                self.peer.no_more()
        return self.transport.get_extra_info("sslcontext") is None

    def no_more(self) -> None:
        """Tell this side that no more will be sent to it. TLS has no half of a close here: then it is closed."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """This side does not keep up: read no more from the other."""
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone, and so is the other: aborted (reset) where this was."""
        if self.peer is not None:
            if exc is None:
                self.peer.close()
            else:
                self.peer.abort()

    def close(self) -> None:
        """Send what is still to be sent, then close."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Reset the connection."""
        if self.transport is not None and not (self.transport.is_closing() and self.transport.get_write_buffer_size() == 0):
            sock = self.transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


class UpstreamEnd(_End):
    """The connection to the upstream."""

    def __init__(self, copies: Copies) -> None:
        super().__init__(copies, copies.from_upstream)

    def eof_received(self) -> bool:
        """Some answers end so."""
        self.copies.upstream_ended()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """No more answers."""
        if exc is None:
            self.copies.upstream_ended()
        self.copies.closed()
        super().connection_lost(exc)


class ClientEnd(_End):
    """The connection of a client. Nothing is read of it before the upstream is there."""

    def __init__(self, copies: Copies, connect: Connect, gone: Callable[[ClientEnd], None]) -> None:
        super().__init__(copies, self._keep_request)
        self._connect = connect
        self._gone = gone
        self._connecting: asyncio.Task[None] | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Get it an upstream."""
        super().connection_made(transport)
        # Soon, not now: in some Pythons (3.11.2) what is paused within connection_made is read all the same.
        asyncio.get_running_loop().call_soon(cast(asyncio.Transport, transport).pause_reading)
        upstream = UpstreamEnd(self.copies)
        upstream.peer, self.peer = self, upstream
        self._connecting = self._connect(upstream)

    def connected(self) -> None:
        """The upstream is there."""
        if self.transport is not None:
            self.transport.resume_reading()

    def refuse(self, sentence: str) -> None:
        """There is no upstream: say so, and read what the client still sends, or its system would throw the answer away."""
        body = f"{sentence}\n".encode()
        headers = f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        head = f"HTTP/1.1 502 Bad Gateway\r\n{headers}\r\n"
        self._refused = True
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(head.encode() + body)
            self.no_more()
            self.transport.resume_reading()
            asyncio.get_running_loop().call_later(_LINGER_S, self.close)

    def _keep_request(self, data: bytes) -> None:
        if not self._refused:
            self.copies.from_client(data)

    def eof_received(self) -> bool:
        """Half-closed, or gone: what is sent to it next will tell."""
        if self._refused:
            return False
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if self._connecting is not None:
            self._connecting.cancel()
        self.copies.closed()
        self._gone(self)
        super().connection_lost(exc)
