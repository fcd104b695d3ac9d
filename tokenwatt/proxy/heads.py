"""The first line and the headers of requests and answers, read by h11."""

from __future__ import annotations

from typing import Final, NamedTuple

import h11

from tokenwatt.proxy.bodies import NotFollowed

_HEAD_LIMIT_BYTES: Final = 256 * 1024
"""What servers take at most: uvicorn 64 KiB, Go 1 MiB. Keys and cookies are in there, so it is let go as soon as it is read."""


class RequestHead(NamedTuple):
    """What is taken of a request: no header but those that tell where it ends."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]


class AnswerHead(NamedTuple):
    """Status and headers, names in lower case."""

    status: int
    headers: dict[bytes, bytes]


class RequestReader:
    """Reads one request's head."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT_BYTES)

    def feed(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        """The head and what comes after it, once it is complete.

        Raises:
            NotFollowed: this is no HTTP/1.1.
        """
        event = _next(self._h11, data)
        if event is h11.NEED_DATA:
            return None
        if not isinstance(event, h11.Request):
            raise NotFollowed
        path = event.target.partition(b"?")[0].rstrip(b"/")
        return RequestHead(event.method, path, dict(event.headers)), self._h11.trailing_data[0]


class AnswerReader:
    """Reads one answer's head, past 100 Continue and its kin."""

    def __init__(self, method: bytes) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT_BYTES)
        # The request as far as it matters here. Upgrade: so that a server may agree to one, whether h11 saw it asked for or not.
        self._h11.send(h11.Request(method=method, target="/", headers=[("Host", "-"), ("Upgrade", "-")]))
        self._h11.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> tuple[AnswerHead, bytes] | None:
        """The head and what comes after it, once it is complete. Status 101 is the last that is HTTP on its connection.

        Raises:
            NotFollowed: this is no HTTP/1.1.
        """
        event = _next(self._h11, data)
        while isinstance(event, h11.InformationalResponse) and event.status_code != 101:
            event = _next(self._h11, b"")
        if event is h11.NEED_DATA:
            return None
        if not isinstance(event, h11.Response | h11.InformationalResponse):
            raise NotFollowed
        return AnswerHead(event.status_code, dict(event.headers)), self._h11.trailing_data[0]


def _next(connection: h11.Connection, data: bytes) -> object:
    try:
        if data:  # nothing would mean the end
            connection.receive_data(data)
        return connection.next_event()
    except h11.ProtocolError:  # its text repeats what was sent
        raise NotFollowed from None
