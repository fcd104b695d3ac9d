"""The bytes of one HTTP/1.1 answer to a GET request: status, headers, body. Small and strict, and it knows no sockets.

Why not http.client: its time limit begins anew with each byte that dribbles in; to bound a whole request would take a second thread.
It also costs: asked once in a while, so with cold caches, a filtered page of a real vLLM took it 0.55 ms of CPU, much of that in the e-mail
parser that reads its headers, and this 0.36 ms, sockets included (h11 is no faster than http.client).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*+)?")
_HEADER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([^\r\n]*+)")
_CHUNK: Final = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*+(?:;[^\r\n]*+)?")
_HEAD_LIMIT_BYTES: Final = 64 * 1024
_NOT_HTTP: Final = "does not answer in HTTP/1.1: is it https, or another port?"


class BadAnswer(Exception):
    """The answer breaks HTTP/1.1, or a bound. The text continues "the server ..."."""


class NoAnswer(Exception):
    """The connection was closed before the first byte."""


class Head(NamedTuple):
    """Status and headers, names in lower case."""

    status: int
    headers: dict[bytes, bytes]
    keep_alive: bool


class AnswerReader:
    """Reads one answer. ``receive`` gives the next bytes, none at the end; it raises what it likes where there are none in time."""

    def __init__(self, receive: Callable[[], bytes], *, max_body_bytes: int) -> None:
        self._receive = receive
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray()
        self.begun = False
        """Whether a part of the answer came."""
        self.reusable = False
        """After ``read``: the next answer on this connection can be told from this one."""

    def read(self) -> tuple[Head, bytes]:
        """The whole answer.

        Raises:
            NoAnswer: the connection ended before it began.
            BadAnswer: it is not HTTP/1.1, ends too early, or is too large.
        """
        head = self._head()
        while head.status < 200:  # 103 and its kin: the answer is still to come
            head = self._head()
        body, framed = self._body(head)
        self.reusable = framed and head.keep_alive and not self._buffer
        return head, body

    def _head(self) -> Head:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _HEAD_LIMIT_BYTES or self._buffer[:7] != b"HTTP/1."[: len(self._buffer)]:
                raise BadAnswer(_NOT_HTTP)
            if not self._more():
                raise BadAnswer("closes the connection within the headers") if self.begun else NoAnswer
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        status = _STATUS.fullmatch(lines[0])
        if status is None:
            raise BadAnswer(_NOT_HTTP)
        headers = _headers(lines[1:])
        connection = headers.get(b"connection", b"").lower()
        keep_alive = b"close" not in connection and (status[1] == b"1" or b"keep-alive" in connection)
        return Head(int(status[2]), headers, keep_alive)

    def _body(self, head: Head) -> tuple[bytes, bool]:
        """The body, and whether its end was marked; else it ends where the server closed."""
        if head.status in (204, 304):
            return b"", True
        if (coding := head.headers.get(b"transfer-encoding")) is not None:
            if coding.lower() != b"chunked":
                raise BadAnswer("answers in a transfer coding that was not asked for")
            return self._chunks(), b"content-length" not in head.headers
        if (length := head.headers.get(b"content-length")) is not None:
            if not (length.isdigit() and len(length) < 20):
                raise BadAnswer("answers with a length that is no number")
            return self._exactly(int(length)), True
        while self._more():
            self._bound(len(self._buffer))
        return self._exactly(len(self._buffer)), False

    def _chunks(self) -> bytes:
        body = bytearray()
        while n := self._chunk_size():
            self._bound(len(body) + n)
            body += self._exactly(n)
            if self._line():
                raise BadAnswer("answers with a chunk that is not HTTP")
        trailers = 0
        while line := self._line():
            trailers += len(line)
            if trailers > _HEAD_LIMIT_BYTES:
                raise BadAnswer("answers with endless trailers")
        return bytes(body)

    def _chunk_size(self) -> int:
        size = _CHUNK.fullmatch(self._line())
        if size is None:
            raise BadAnswer("answers with a chunk that is not HTTP")
        return int(size[1], 16)

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _HEAD_LIMIT_BYTES:
                raise BadAnswer("answers with a chunk that is not HTTP")
            self._must_have_more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _exactly(self, n: int) -> bytes:
        self._bound(n)
        while len(self._buffer) < n:
            self._must_have_more()
        data = bytes(self._buffer[:n])
        del self._buffer[:n]
        return data

    def _must_have_more(self) -> None:
        if not self._more():
            raise BadAnswer("closes the connection within the answer")

    def _more(self) -> bool:
        data = self._receive()
        self._buffer += data
        self.begun |= bool(data)
        return bool(data)

    def _bound(self, n: int) -> None:
        if n > self._max_body_bytes:
            raise BadAnswer(f"answers with more than {self._max_body_bytes >> 20} MiB")


def _headers(lines: list[bytes]) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise BadAnswer("answers with a header that is not HTTP")
        name, value = match[1].lower(), match[2].rstrip(b" \t")
        # Two lengths that differ are how one answer is passed off as two.
        if name == b"content-length" and headers.get(name, value) != value:
            raise BadAnswer("answers with two lengths")
        headers[name] = value
    return headers
