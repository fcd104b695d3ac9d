"""Where a message of HTTP/1.1 ends. Bytes come as they come; pieces of the body go out as they are, nothing is kept.

Heads are h11's work, bodies are not: it takes 23 us for each chunk, and a stream has a chunk for each token; this takes 2.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?")
_LINE_LIMIT_BYTES: Final = 4096
_TRAILERS_LIMIT_BYTES: Final = 64 * 1024

NO_BODY_STATUS: Final = (204, 304)


class NotFollowed(Exception):
    """These bytes are no HTTP/1.1 that can be followed."""


class Body(Protocol):
    """One message's body."""

    def feed(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """Pieces of the body, and what comes after its end (None: the end is still to come).

        Raises:
            NotFollowed: it is no chunked body.
        """


class Length:
    """A body of as many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """See :class:`Body`."""
        piece = data[: self._left]
        self._left -= len(piece)
        return ([piece] if piece else []), (None if self._left else data[len(piece) :])


class UntilClose:
    """A body that ends with its connection."""

    def feed(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """See :class:`Body`."""
        return [data], None


class Chunked:
    """A chunked body, with its trailers."""

    def __init__(self) -> None:
        self._line = b""
        self._left = 0
        self._trailers_bytes: int | None = None
        self._within_chunk = False

    def feed(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """See :class:`Body`."""
        pieces: list[bytes] = []
        data, at, self._line = self._line + data, 0, b""
        while True:
            if self._left:
                piece = data[at : at + self._left]
                if piece:
                    pieces.append(piece)
                self._left -= len(piece)
                at += len(piece)
            if self._left or (end := data.find(b"\r\n", at)) < 0:
                break
            line, at = data[at:end], end + 2
            if self._ends_with(line):
                return pieces, data[at:]
        self._line = data[at:]
        if len(self._line) > _LINE_LIMIT_BYTES:
            raise NotFollowed
        return pieces, None

    def _ends_with(self, line: bytes) -> bool:
        """Take a line outside of chunks. Returns whether it is the body's last."""
        if self._trailers_bytes is not None:
            self._trailers_bytes += len(line)
            if self._trailers_bytes > _TRAILERS_LIMIT_BYTES:
                raise NotFollowed
            return not line
        if self._within_chunk:
            if line:
                raise NotFollowed
            self._within_chunk = False
            return False
        size = _SIZE.fullmatch(line)
        if size is None:
            raise NotFollowed
        self._left = int(size[1], 16)
        if self._left:
            self._within_chunk = True
        else:
            self._trailers_bytes = 0
        return False


def request_body(headers: dict[bytes, bytes]) -> Body:
    """The body of a request with these headers."""
    if b"transfer-encoding" in headers:  # h11 has refused what is not chunked
        return Chunked()
    return Length(int(headers.get(b"content-length", b"0")))


def answer_body(method: bytes, status: int, headers: dict[bytes, bytes]) -> Body:
    """The body of an answer to ``method``."""
    if method == b"HEAD" or status in NO_BODY_STATUS:
        return Length(0)
    if b"transfer-encoding" in headers:
        return Chunked()
    if b"content-length" in headers:
        return Length(int(headers[b"content-length"]))
    return UntilClose()
