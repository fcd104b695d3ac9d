"""An answer's body, searched for usage as it passes. What has no mark of usage is dropped at once; what is kept is bounded."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from tokenwatt.proxy.usage import MARK, Gathered

LINE_LIMIT_BYTES: Final = 1024 * 1024
BODY_LIMIT_BYTES: Final = 8 * 1024 * 1024
"""What is kept of a body at most. Half of it may be other than lists of numbers."""
_DECODED_LIMIT_BYTES: Final = 256 * 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024
_SQUEEZE_BYTES: Final = 256 * 1024

_CODINGS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": zlib.MAX_WBITS}  # zlib's wbits
_STREAMS: Final = (b"text/event-stream", b"application/x-ndjson", b"application/ndjson", b"application/jsonl")

# A list of numbers: an embedding. It cannot hold an escape or a quote, so that its text goes out of any JSON without harm.
_NUMBERS: Final = re.compile(rb"\[[-+0-9.eE,\s]+\]")


class TooLarge(Exception):
    """More than is kept."""


class NotDecoded(Exception):
    """A coding that is not known here, or data that are not in it."""


class Reader(Protocol):
    """Reads one body."""

    def feed(self, piece: bytes) -> None:
        """Search one piece.

        Raises:
            TooLarge, NotDecoded, WrongUsage: there is nothing to be had from this answer.
        """

    def end(self) -> None:
        """The body is complete. Raises as ``feed``."""


class Lines:
    """A stream of server-sent events, or of JSON lines. A line may be of any length unless it is the one with the usage."""

    is_stream: Final = True

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._line = bytearray()
        self.skipped = False
        """A line was too long to be read."""

    def feed(self, piece: bytes) -> None:
        """See :class:`Reader`."""
        end = piece.rfind(b"\n") + 1
        if end:
            self._line += piece[:end]
            if MARK.search(self._line):
                for line in bytes(self._line).split(b"\n"):
                    self._take(line)
            self._line.clear()
        self._line += piece[end:]
        if len(self._line) > LINE_LIMIT_BYTES:
            self._line.clear()
            self.skipped = True
            self._gathered.forget()

    def end(self) -> None:
        """See :class:`Reader`."""
        self.feed(b"\n")

    def _take(self, line: bytes) -> None:
        if MARK.search(line):
            # "data:" is SSE's, and a JSON line begins with a brace.
            self._gathered.add(_parsed(line.removeprefix(b"data:")))


class Document:
    """A body that is one JSON text. It is kept until its end, without its lists of numbers, and let go."""

    is_stream: Final = False
    skipped: Final = False

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._body = bytearray()
        self._squeeze_at = _SQUEEZE_BYTES

    def feed(self, piece: bytes) -> None:
        """See :class:`Reader`."""
        self._body += piece
        if len(self._body) > self._squeeze_at:
            # Embeddings are megabytes of numbers, and parsing them in one go would make other streams wait.
            self._body = bytearray(_NUMBERS.sub(b"[]", self._body))
            if len(self._body) > BODY_LIMIT_BYTES // 2:
                self._body.clear()
                raise TooLarge
            self._squeeze_at = max(_SQUEEZE_BYTES, 2 * len(self._body))

    def end(self) -> None:
        """See :class:`Reader`."""
        if MARK.search(self._body):
            self._gathered.add(_parsed(self._body))
        self._body.clear()


class Decoded:
    """Undoes a body's coding, piece by piece, for another reader."""

    def __init__(self, coding: bytes, reader: Lines | Document) -> None:
        if coding not in _CODINGS:
            raise NotDecoded
        self._inflater = zlib.decompressobj(_CODINGS[coding])
        self._first: bytes | None = b"" if coding == b"deflate" else None
        self._left = _DECODED_LIMIT_BYTES
        self._reader = reader

    def feed(self, piece: bytes) -> None:
        """See :class:`Reader`."""
        for decoded in self._inflate(piece):
            self._left -= len(decoded)
            if self._left < 0:
                raise TooLarge
            self._reader.feed(decoded)

    def end(self) -> None:
        """See :class:`Reader`."""
        self._reader.feed(self._inflater.flush())  # some bytes may wait where the last piece came out in parts
        self._reader.end()

    def _inflate(self, piece: bytes) -> Iterator[bytes]:
        if self._first is not None:
            piece = self._first = self._first + piece
            if len(piece) < 2:
                return
            if piece[0] & 15 != 8 or int.from_bytes(piece[:2], "big") % 31:
                self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # without zlib's head, as some servers send "deflate"
            self._first = None
        while piece:
            try:
                decoded = self._inflater.decompress(piece, _PIECE_BYTES)
            except zlib.error:
                raise NotDecoded from None
            if decoded:
                yield decoded
            piece = self._inflater.unconsumed_tail


def search(headers: dict[bytes, bytes], gathered: Gathered) -> tuple[Reader, Lines | Document] | None:
    """What reads an answer with these headers, and the part of it that knows lines or documents. None: it is neither.

    Raises:
        NotDecoded: its coding is not known here.
    """
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind in _STREAMS:
        plain: Lines | Document = Lines(gathered)
    elif kind == b"application/json" or kind.endswith(b"+json"):
        plain = Document(gathered)
    else:
        return None
    coding = headers.get(b"content-encoding", b"identity").strip().lower()
    return (plain if coding in (b"identity", b"") else Decoded(coding, plain)), plain


def _parsed(text: bytes | bytearray) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # its text and its ``doc`` repeat the answer
        return None
