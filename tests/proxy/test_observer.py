"""What the observer makes of bytes, however they are cut."""

from __future__ import annotations

import gc
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proxy.answers import ANSWERS, JSON, NDJSON, SSE, TRAP, USAGES, Answer, chunked, encoded, request, whole
from tokenwatt.proxy.observer import Observer
from tokenwatt.proxy.tally import Unmetered
from tokenwatt.proxy.usage import Usage

by_name = {a.name: a for a in ANSWERS}


class Kept:
    """Books that keep what they are told."""

    def __init__(self) -> None:
        self.usages: list[Usage] = []
        self.reasons: list[Unmetered] = []
        self.spans: list[tuple[float, float]] = []
        self.running = self.most = 0

    def began(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)

    def ended(self) -> None:
        self.running -= 1

    def metered(self, usage: Usage, from_s: float, to_s: float) -> None:
        self.usages.append(usage)
        self.spans.append((from_s, to_s))

    def missed(self, reason: Unmetered, detail: str = "") -> None:
        self.reasons.append(reason)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places) if a < b]


def watch(asked: bytes, answered: bytes, cuts: list[int] | None = None, *, ends: bool = False) -> Kept:
    """Requests, then answers."""
    books = Kept()
    observer = Observer(books)
    for n, piece in enumerate(pieces(asked, cuts or [])):
        observer.from_client(piece, 100.0 + n)
    for n, piece in enumerate(pieces(answered, cuts or [])):
        observer.from_upstream(piece, 200.0 + n)
    if ends:
        observer.upstream_ended(300.0)
    assert ends or observer.idle or books.reasons, "something is still open"
    observer.closed(400.0)
    assert books.running == 0
    return books


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: a.name)
def test_each_answer_tells_what_it_cost(answer: Answer) -> None:
    for answered in (whole(answer), chunked(answer), chunked(answer, (1,), trailers="X-Sum: 1\r\n")):
        books = watch(request(answer.path), answered)
        assert books.usages == [u for u in [answer.usage] if u is not None]
        assert books.reasons == ([Unmetered.STREAM_WITHOUT_USAGE] if answer.name == "no usage" else [])
        assert books.most == 1


def test_every_place_to_cut_gives_the_same() -> None:
    for answer in USAGES:
        answered = chunked(answer, (7, 90))
        for cut in range(len(answered)):
            assert watch(request(answer.path), answered, [cut]).usages == [answer.usage], (answer.name, cut)


@given(
    st.lists(st.sampled_from(USAGES), min_size=1, max_size=4),
    st.lists(st.integers(0, 10_000), max_size=40),
    st.lists(st.integers(1, 200), min_size=1, max_size=5),
    st.sampled_from(["", "gzip", "deflate", "raw deflate"]),
)
def test_any_cutting_of_any_requests_gives_the_same(answers: list[Answer], cuts: list[int], sizes: list[int], coding: str) -> None:
    asked = b"".join(request(a.path) for a in answers)  # pipelined
    answered = b""
    for number, answer in enumerate(answers):
        sent, header = encoded(answer, coding) if coding else (answer, "")
        answered += chunked(sent, tuple(sizes), headers=header) if number % 2 else whole(sent, headers=header)
    books = watch(asked, answered, cuts)
    assert books.usages == [a.usage for a in answers]
    assert books.reasons == []
    assert all(100 <= start < 200 <= end < 300 for start, end in books.spans)


@given(st.binary(max_size=400), st.binary(max_size=400), st.lists(st.integers(0, 1000), max_size=10))
def test_no_bytes_break_it(asked: bytes, answered: bytes, cuts: list[int]) -> None:
    good = by_name["chat"]
    watch(asked, answered, cuts, ends=True)
    broken = watch(request(good.path), whole(good)[:-30] + answered, cuts, ends=True)
    assert Unmetered.FAULT not in broken.reasons


def test_a_body_without_an_end_of_its_own_ends_with_the_connection() -> None:
    answer = by_name["chat"]
    answered = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + answer.body
    assert watch(request(answer.path), answered, [50], ends=True).usages == [answer.usage]
    assert watch(request(answer.path), answered[:-5], ends=True).reasons == [Unmetered.WITHOUT_USAGE]


def test_what_has_no_body_has_none() -> None:
    chat = by_name["chat"]
    asked = (
        request("/v1/models", b"", method="HEAD")
        + request("/a", b"", method="GET")
        + request("/b", b"")
        + request(chat.path, headers="Expect: 100-continue\r\n")
    )
    answered = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nContent-Type: application/json\r\n\r\n"
        + b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n"
        + b"HTTP/1.1 204 No Content\r\n\r\n"
        + b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + whole(chat)
    )
    for cut in range(len(answered)):
        books = watch(asked, answered, [cut])
        assert (books.usages, books.reasons) == ([chat.usage], [])


def test_an_answer_that_comes_before_the_request_is_complete() -> None:
    books = Kept()
    observer = Observer(books)
    asked = request("/v1/chat/completions", b"x" * 1000)
    observer.from_client(asked[:-500], 1.0)
    observer.from_upstream(whole(by_name["chat"]), 2.0)
    observer.from_client(asked[-500:] + request("/v1/chat/completions"), 3.0)
    observer.from_upstream(whole(by_name["stream"]), 4.0)
    assert books.spans == [(1.0, 2.0), (3.0, 4.0)]


def test_only_a_post_counts() -> None:
    # GET /v1/responses/ID tells again what was told to the POST.
    answer = by_name["responses"]
    books = watch(request("/v1/responses/r1", b"", method="GET"), whole(answer))
    assert (books.usages, books.reasons, books.most) == ([], [], 0)


def test_an_error_is_no_request() -> None:
    answer = by_name["chat"]._replace(body=b'{"error": {"message": "no such model"}}')
    books = watch(request(answer.path), whole(answer, status="404 Not Found"))
    assert (books.usages, books.reasons) == ([], [])


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        (JSON, b'{"model": "m", "choices": []}', Unmetered.WITHOUT_USAGE),
        (JSON, b'{"usage": {"prompt_tokens": 5, "completion_tokens": -1}}', Unmetered.WRONG_USAGE),
        (JSON, b'{"usage": {"prompt_tokens": 5.5, "completion_tokens": 1}}', Unmetered.WRONG_USAGE),
        (JSON, b'{"usage": {"prompt_tokens": true, "completion_tokens": 1}}', Unmetered.WRONG_USAGE),
        (JSON, b'{"usage": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}}}', Unmetered.WRONG_USAGE),
        (JSON, b'{"usage": {"prompt_tokens": 1e400}}', Unmetered.WRONG_USAGE),
        (JSON, b'{"usage": {"prompt_tokens": 5', Unmetered.WITHOUT_USAGE),
        (JSON, b'{"usage": {"total_tokens": 5}}', Unmetered.WITHOUT_USAGE),
        (JSON, b"[" * 100_000 + b'"usage": {', Unmetered.WITHOUT_USAGE),
        (JSON, b'{"usage": {"prompt_tokens": ' + b"9" * 10_000 + b"}}", Unmetered.WITHOUT_USAGE),
        ("text/html", b"<html>", Unmetered.NOT_READ),
        (NDJSON, b'{"done": false, "response": "a"}\n', Unmetered.STREAM_WITHOUT_USAGE),
        (SSE, b"data: " + b"x" * 1_100_000 + b'"usage": {"prompt_tokens": 1}\n\n', Unmetered.TOO_LARGE),
        (JSON, b'{"a": "' + b"x" * 9_000_000 + b'", "usage": {"prompt_tokens": 1}}', Unmetered.TOO_LARGE),
    ],
    ids=str,
)
def test_what_cannot_be_metered_is_not_guessed(content_type: str, body: bytes, reason: Unmetered) -> None:
    answer = Answer("", "/v1/chat/completions", content_type, body, None)
    books = watch(request(answer.path), chunked(answer, (60_000,)))
    assert (books.usages, books.reasons) == ([], [reason])


def test_codings_that_are_not_read() -> None:
    answer = by_name["chat"]
    assert watch(request(answer.path), whole(answer, headers="Content-Encoding: br\r\n")).reasons == [Unmetered.NOT_DECODED]
    assert watch(request(answer.path), whole(answer, headers="Content-Encoding: gzip\r\n")).reasons == [Unmetered.NOT_DECODED]
    bomb, header = encoded(answer._replace(body=b" " * 300_000_000), "gzip")
    assert watch(request(answer.path), whole(bomb, headers=header)).reasons == [Unmetered.TOO_LARGE]


def test_megabytes_of_numbers_are_no_burden() -> None:
    numbers = b"[" + b", ".join(b"-0.0123456789%04d" % n for n in range(4096)) + b"]"
    data = b", ".join(b'{"embedding": %s}' % numbers for _ in range(300))
    body = b'{"model": "e", "data": [%s], "usage": {"prompt_tokens": 4000}}' % data
    assert len(body) > 20_000_000
    answer = Answer("", "/v1/embeddings", JSON, body, Usage("e", 4000, None, 0))
    assert watch(request(answer.path), chunked(answer, (65_000,)), list(range(0, len(body), 50_000))).usages == [answer.usage]


def test_a_long_line_that_is_not_the_usage_does_not_matter() -> None:
    body = b"data: " + b"x" * 1_500_000 + b"\n\n" + by_name["stream"].body
    books = watch(request("/v1/chat/completions"), chunked(by_name["stream"]._replace(body=body), (50_000,)))
    assert books.usages == [by_name["stream"].usage]


def test_cut_off_before_the_usage() -> None:
    answer = by_name["stream"]
    for end in (5, 200, len(whole(answer)) - len(answer.body) // 2):
        books = watch(request(answer.path), whole(answer)[:end], ends=True)
        assert (books.usages, books.reasons) == ([], [Unmetered.CUT_OFF])
    anthropic = by_name["messages, stream"]
    assert watch(request(anthropic.path), whole(anthropic)[:-250], ends=True).reasons == [Unmetered.CUT_OFF]


def test_cut_off_where_usage_is_told_all_along() -> None:
    answer = by_name["stream with continuous usage"]
    end = chunked(answer).index(b'"b"') - 20
    books = watch(request(answer.path), chunked(answer)[:end], ends=True)
    assert (books.usages, books.reasons) == ([Usage("tiny", 21, None, 1)], [])


@pytest.mark.parametrize("early", [b"", b"\x81\x05bytes of another protocol"])
def test_an_upgrade_ends_the_metering(early: bytes) -> None:
    upgrade = request("/v1/realtime", b"", method="GET", headers="Connection: Upgrade\r\nUpgrade: websocket\r\n")
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    books = watch(upgrade + early, switched + whole(by_name["chat"]))
    assert (books.usages, books.reasons) == ([], [Unmetered.UPGRADED])


def test_an_upgrade_that_is_declined_changes_nothing() -> None:
    chat = by_name["chat"]
    offered = request(chat.path, headers="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n")
    books = watch(offered + request(chat.path), whole(chat) + whole(chat), [600])
    assert (books.usages, books.reasons) == ([chat.usage] * 2, [])


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"\x15\x03\x01"),
        (b"", b"220 smtp ready\r\n"),
        (request("/a"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        (request("/a"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n"),
        (request("/a"), b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000),
    ],
)
def test_what_is_not_http(asked: bytes, answered: bytes) -> None:
    books = watch(asked, answered)
    assert (books.usages, books.reasons) == ([], [Unmetered.NOT_FOLLOWED])


def test_names_of_models_that_no_label_can_have() -> None:
    for name in ("a\nb", "x" * 200, " a", 5, None, {"a": 1}):
        body = json.dumps({"model": name, "usage": {"prompt_tokens": 1}}).encode()
        answer = Answer("", "/v1/embeddings", JSON, body, None)
        assert watch(request(answer.path), whole(answer)).usages == [Usage("", 1, None, 0)]


def test_nothing_of_what_passed_is_kept() -> None:
    books = Kept()
    observer = Observer(books)
    for answer in ANSWERS:
        observer.from_client(request(answer.path, b'{"prompt": "a secret"}'), 1.0)
        observer.from_upstream(chunked(answer), 2.0)
    assert observer.idle
    seen: set[int] = set()
    assert not [t for t in _texts(observer, seen) if "secret" in t or TRAP[:8] in t]


def _texts(value: object, seen: set[int]) -> list[str]:
    """All text that can be reached from an object."""
    if id(value) in seen:
        return []
    seen.add(id(value))
    if isinstance(value, str):
        return [value]
    if isinstance(value, bytes | bytearray):
        return [bytes(value).decode("latin-1")]
    return [t for each in gc.get_referents(value) if not isinstance(each, type) and not callable(each) for t in _texts(each, seen)]
