from __future__ import annotations

import http.client
import io
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwatt.servers.http.answer import AnswerReader, BadAnswer, NoAnswer


def reader(data: bytes, *, step: int = 65536, limit: int = 8 << 20) -> AnswerReader:
    pieces: Iterator[bytes] = (data[i : i + step] for i in range(0, len(data), step))
    return AnswerReader(lambda: next(pieces, b""), max_body_bytes=limit)


class _Socket:
    """As much of a socket as http.client reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def by_http_client(data: bytes) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(_Socket(data), method="GET")  # type: ignore[arg-type]
    response.begin()
    return response.status, response.read()


def chunked(body: bytes, sizes: list[int]) -> bytes:
    out = b""
    for size in sizes:
        if chunk := body[:size]:
            out += b"%x;name=value\r\n%s\r\n" % (len(chunk), chunk)
        body = body[size:]
    return out + (b"%X\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\nTrailer: x\r\n\r\n"


bodies = st.binary(max_size=300) | st.just(b"vllm:generation_tokens_total 5\n" * 50)


@given(bodies, st.integers(1, 97), st.lists(st.integers(1, 40), max_size=8), st.sampled_from(["length", "chunked", "close"]))
def test_reads_what_http_client_reads_however_it_comes_in_pieces(body: bytes, step: int, sizes: list[int], framing: str) -> None:
    framed = {
        "length": b"Content-Length: %d\r\n\r\n%s" % (len(body), body),
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, sizes),
        "close": b"Connection: close\r\n\r\n" + body,
    }[framing]
    data = b"HTTP/1.1 200 OK\r\nserver: x\r\nContent-Type: text/plain\r\n" + framed
    mine = reader(data, step=step)
    head, read = mine.read()
    assert (head.status, read) == by_http_client(data) == (200, body)
    assert head.headers[b"content-type"] == b"text/plain"
    assert mine.reusable == (framing != "close")


def test_an_early_answer_is_not_the_answer() -> None:
    head, body = reader(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").read()
    assert (head.status, body) == (200, b"ok")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_a_status_without_a_body_waits_for_none(status: bytes) -> None:
    mine = reader(b"HTTP/1.1 " + status + b"\r\n\r\n")
    assert mine.read()[1] == b""
    assert mine.reusable


@pytest.mark.parametrize(
    ("data", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive, Close\r\n\r\nx", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\nx", False),
    ],
)
def test_a_connection_is_kept_only_where_the_next_answer_can_be_told_apart(data: bytes, reusable: bool) -> None:
    mine = reader(data)
    mine.read()
    assert mine.reusable == reusable


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02\x02P", "HTTP/1.1"),
        (b"HTTP/2 200\r\n\r\n", "HTTP/1.1"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n", "within the headers"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "header"),
        (b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n", "header"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20000, "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "within the answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "two lengths"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n", "more than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000000, "more than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer coding"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n", "chunk"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "within the answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", "more than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 100000, "chunk"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 20000, "trailers"),
    ],
)
def test_what_breaks_the_protocol_or_a_bound_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadAnswer, match=reason):
        reader(data, limit=1 << 20).read()


def test_nothing_is_not_a_broken_answer() -> None:
    mine = reader(b"")
    with pytest.raises(NoAnswer):
        mine.read()
    assert not mine.begun


@given(st.binary(max_size=200))
def test_noise_is_refused_or_read(noise: bytes) -> None:
    with suppress(BadAnswer):
        assert reader(b"HTTP/1.1 200 OK\r\n" + noise).read()[0].status == 200
