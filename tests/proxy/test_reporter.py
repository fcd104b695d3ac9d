"""What the meter is told, and when: nothing is lost while it is away, nothing counts twice."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.process import wait_for
from tests.proxy.meter import Meter
from tests.proxy.running import Running
from tests.proxy.upstream import Peer, Upstream
from tokenwatt.export.push_report import read_body
from tokenwatt.proxy.post import Post, TokenFileError
from tokenwatt.proxy.sums import Sums
from tokenwatt.proxy.usage import Usage

UPSTREAM = "http://127.0.0.1:11434"


def book(proxy: Running, *usages: Usage, from_s: float = 1000.0, to_s: float = 1001.5) -> None:
    for usage in usages:
        proxy._loop.call_soon_threadsafe(proxy.reporter.metered, usage, from_s, to_s)


def test_what_a_report_holds(meter: Meter) -> None:
    with Running(UPSTREAM, meter.url, every_s=0.2) as proxy:
        book(proxy, Usage("a", 10, 4, 3), Usage("a", 1, 0, 0), from_s=1000.0)
        book(proxy, Usage("a", 5, None, 2), Usage("b", 7, None, 0), from_s=999.25, to_s=1003.0)
        meter.wait_for(lambda: meter.tokens().total() == 28)
        meter.wait_for(lambda: len(meter.posts) == 1)
    (path, headers, reports), *_ = meter.posts
    assert (path, headers["content-type"], "authorization" in headers) == ("/api/v1/tokens", "application/json", False)
    shown = [{key: value for key, value in r.items() if key not in ("idempotency_key", "server", "url", "running")} for r in reports]
    span = {"from": "1970-01-01T00:16:39.250000Z", "to": "1970-01-01T00:16:43.000000Z"}
    assert shown == [
        {"model": "a", "kind": "prompt_computed", "count": 12, **span},
        {"model": "a", "kind": "prompt_cached", "count": 4, "from": "1970-01-01T00:16:40.000000Z", "to": "1970-01-01T00:16:41.500000Z"},
        {"model": "a", "kind": "generation", "count": 5, **span},
        {"model": "b", "kind": "prompt_computed", "count": 7, **span},
        {"model": "b", "kind": "generation", "count": 0, **span},
    ]
    assert {(r["server"], r["url"], r["running"]) for r in reports} == {("ollama", UPSTREAM, 0)}
    assert len({r["idempotency_key"] for r in reports}) == 5
    read = read_body(json.dumps(reports).encode(), now_ns=10**18, wall_ns=2000 * 10**9).reports
    assert [(r.model, r.kind, r.count) for r, _ in read] == [(r["model"], r["kind"], r["count"]) for r in reports]


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    sums = Sums()
    sums.add(Usage("a", 1, None, 1), 2000.0, 1000.0)
    assert {each.span()["from"] <= each.span()["to"] for each in sums.take().values()} == {True}


def test_names_of_models_are_bounded() -> None:
    sums = Sums()
    for n in range(1000):
        sums.add(Usage(f"made-up-{n}", 1, None, 1), 1.0, 2.0)
    taken = sums.take()
    assert len(taken) <= 2 * 65
    assert sum(each.count for each in taken.values()) == 2000


def test_a_meter_that_is_away_gets_everything_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tokenwatt.proxy")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Running(UPSTREAM, f"http://127.0.0.1:{port}") as proxy:
        book(proxy, Usage("a", 10, 4, 3))
        wait_for(lambda: "connection refused" in caplog.text)
        for n in range(1000):  # they wait as one sum for each model and kind
            book(proxy, Usage("a", 1, 0, 1), from_s=2000.0 + n, to_s=2001.0 + n)
        meter = Meter(port)
        meter.wait_for(lambda: meter.tokens() == {"prompt_computed": 1006, "prompt_cached": 4, "generation": 1003})
        assert len(meter.accepted) == 6
        assert meter.accepted[-1]["to"] == "1970-01-01T00:50:00.000000Z"
        wait_for(lambda: "takes reports again" in caplog.text)
        meter.close()
    assert caplog.text.count("connection refused") == 1


def test_an_answer_that_is_lost_does_not_count_twice(meter: Meter) -> None:
    meter.answers = [None, None]
    meter.count_unanswered = True
    with Running(UPSTREAM, meter.url) as proxy:
        book(proxy, Usage("a", 10, None, 3))
        meter.wait_for(lambda: len(meter.posts) == 1)
        book(proxy, Usage("a", 100, None, 30))
        meter.wait_for(lambda: meter.tokens() == {"prompt_computed": 110, "generation": 33})
    assert meter.posts[0][2] == meter.posts[1][2] == meter.posts[2][2]  # the same keys, the same body


@pytest.mark.parametrize("status", [401, 403, 404, 409, 429, 500, 503])
def test_a_refusal_that_can_be_mended_keeps_the_tokens(meter: Meter, status: int, caplog: pytest.LogCaptureFixture) -> None:
    meter.answers = [(status, '{"detail": "no, because"}')] * 2
    with Running(UPSTREAM, meter.url) as proxy:
        book(proxy, Usage("a", 10, None, 3))
        meter.wait_for(lambda: meter.tokens() == {"prompt_computed": 10, "generation": 3})
    assert caplog.text.count(f"{status} no, because") == 1


def test_a_report_that_is_wrong_for_good_does_not_hold_up_the_next(meter: Meter, caplog: pytest.LogCaptureFixture) -> None:
    meter.answers = [(422, '{"detail": [{"msg": "too old"}]}')]
    with Running(UPSTREAM, meter.url) as proxy:
        book(proxy, Usage("a", 10, None, 3))
        meter.wait_for(lambda: len(meter.posts) == 1)
        book(proxy, Usage("a", 1, None, 1))
        meter.wait_for(lambda: meter.tokens() == {"prompt_computed": 1, "generation": 1})
    assert "refused a report, 13 tokens are lost: 422" in caplog.text
    assert "too old" in caplog.text


def test_running_requests_are_told_while_they_run(meter: Meter) -> None:
    with Running(UPSTREAM, meter.url, heartbeat_s=0.05) as proxy:
        proxy._loop.call_soon_threadsafe(proxy.reporter.began)
        time.sleep(0.15)
        assert meter.posts == []  # no model is known yet, and none is made up
        book(proxy, Usage("a", 1, None, 1))
        meter.wait_for(lambda: len(meter.accepted) >= 6)
        assert {r["running"] for r in meter.accepted} == {1}
        assert [(r["model"], r["kind"], r["count"]) for r in meter.accepted[2:5]] == [("a", "generation", 0)] * 3
        proxy._loop.call_soon_threadsafe(proxy.reporter.ended)
        meter.wait_for(lambda: meter.accepted[-1]["running"] == 0)
        told = len(meter.posts)
        time.sleep(0.3)
        assert len(meter.posts) == told  # nothing runs, nothing to tell
    assert len({r["idempotency_key"] for r in meter.accepted}) == len(meter.accepted)
    assert datetime.datetime.fromisoformat(meter.accepted[-1]["from"]).timestamp() == pytest.approx(time.time(), abs=30)


def test_what_is_left_at_the_end_is_told_or_said(meter: Meter, caplog: pytest.LogCaptureFixture) -> None:
    with Running(UPSTREAM, meter.url, every_s=100) as proxy:
        book(proxy, Usage("a", 1, None, 1))
        meter.wait_for(lambda: len(meter.posts) == 1)
        book(proxy, Usage("a", 2, None, 2))
    assert meter.tokens() == {"prompt_computed": 3, "generation": 3}
    assert "lost" not in caplog.text
    with Running(UPSTREAM) as proxy:  # nobody listens on port 9
        book(proxy, Usage("a", 2, None, 2))
        wait_for(lambda: "connection refused" in caplog.text)
        book(proxy, Usage("a", 5, None, 5))
    assert "did not take the last report: 14 tokens are lost" in caplog.text


def test_the_token_may_change(meter: Meter, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    post = Post(meter.url, path)
    for number, token in enumerate(("first", "second")):
        path.write_text(f"{token}\n")
        assert asyncio.run(post(b"[]")).status == 200
        assert meter.posts[number][1]["authorization"] == f"Bearer {token}"
    path.unlink()
    assert asyncio.run(post(b"[]")) == (None, f"--token-file {path} cannot be read: No such file or directory")
    path.write_text("two\nlines")
    with pytest.raises(TokenFileError, match="one line"):
        Post(meter.url, path)


@pytest.mark.parametrize(
    ("said", "text"), [(b"SSH-2.0-x\r\n\r\n", "not HTTP/1.1"), (b"", "without an answer"), (None, "no answer in time")], ids=str
)
def test_a_meter_that_is_none(said: bytes | None, text: str, upstream: Callable[..., Upstream]) -> None:
    def script(peer: Peer) -> None:
        peer.receive_until(b"[]")
        if said is None:
            peer.receive()
        else:
            peer.sock.sendall(said)

    answer = asyncio.run(Post(upstream(script).url, None, timeout_s=0.5)(b"[]"))
    assert answer.status is None
    assert text in answer.text
