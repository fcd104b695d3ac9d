"""The stream over real sockets: every snapshot, no queue for the slow, a prompt end."""

from __future__ import annotations

import asyncio
import json
import time
from http.client import HTTPResponse
from typing import Any

import pytest
from starlette.types import Message

from tests.export.conftest import Served
from tests.export.snapshots import node
from tokenwatt.export import answers
from tokenwatt.export.publisher import Publisher
from tokenwatt.export.stream import EventStream
from tokenwatt.snapshot import Snapshot


def _event(stream: HTTPResponse) -> Any:
    assert stream.readline() == b"event: snapshot\n"
    data = stream.readline()
    assert stream.readline() == b"\n"
    return json.loads(data.removeprefix(b"data: "))


def _tokens(event: Any) -> int:
    tokens: int = event["servers"]["items"][0]["models"][0]["tokens"]["generation"]
    return tokens


def test_every_snapshot_arrives_at_every_subscriber(served: Served) -> None:
    served.publisher.publish(node(2, 1, tokens=0))
    streams = [served.open("/api/v1/stream") for _ in range(3)]
    assert all(s.headers["content-type"].startswith("text/event-stream") for s in streams)
    assert [_tokens(_event(s)) for s in streams] == [0, 0, 0], "the current one comes at once"
    for n in range(1, 20):
        served.publisher.publish(node(2, 1, tokens=n))
        assert [_tokens(_event(s)) for s in streams] == [n, n, n]


def test_an_event_is_all_of_one_snapshot(served: Served) -> None:
    served.publisher.publish(node())
    event = _event(served.open("/api/v1/stream"))
    answers.Live.model_validate(event)
    assert list(event["efficiency"]) == event["status"]["windows"]
    assert event["gpus"]["time"] == event["servers"]["time"] == event["efficiency"]["1m"]["to"] == event["status"]["time"]


def test_a_client_that_does_not_read_holds_up_neither_writer_nor_others(served: Served) -> None:
    served.publisher.publish(node(tokens=0))
    served.open_raw("/api/v1/stream")
    reader = served.open("/api/v1/stream")
    assert _tokens(_event(reader)) == 0
    for n in range(1, 60):  # 42 kB each: together more than the slow one's buffers hold
        before = time.monotonic()
        served.publisher.publish(node(tokens=n))
        assert time.monotonic() - before < 0.5
        assert _tokens(_event(reader)) == n
    assert served.request("/metrics")[0].status == 200


def test_a_client_that_reads_again_gets_the_newest(served: Served) -> None:
    served.publisher.publish(node(tokens=0))
    slow, reader = served.open_raw("/api/v1/stream"), served.open("/api/v1/stream")
    _event(reader)
    for n in range(1, 60):
        served.publisher.publish(node(tokens=n))
        _event(reader)
    answer = HTTPResponse(slow, method="GET")
    answer.begin()
    got = [_tokens(_event(answer))]
    while got[-1] != 59:
        got.append(_tokens(_event(answer)))
    assert got == sorted(set(got))
    assert len(got) < 60, "some were skipped"
    answer.close()


def test_places_are_bounded_and_given_back_when_a_client_goes(demo: Served) -> None:
    demo.publisher.publish(node(1, 1))
    kept = demo.open("/api/v1/stream")
    gone = demo.open_raw("/api/v1/stream")
    assert gone.recv(1)
    assert "All 2 streams are taken" in demo.json("/api/v1/stream", 503)["detail"]
    gone.close()
    deadline = time.monotonic() + 10
    while (again := demo.open("/api/v1/stream")).status != 200:
        assert time.monotonic() < deadline, "the place of a client that is gone was not given back"
        again.read()
    _event(kept)


def test_streams_end_promptly_when_the_server_stops(served: Served) -> None:
    served.publisher.publish(node())
    streams = [served.open("/api/v1/stream") for _ in range(3)]
    for stream in streams:
        _event(stream)
    before = time.monotonic()
    served.stop()
    assert time.monotonic() - before < 1
    assert [stream.read() for stream in streams] == [b"", b"", b""], "ended in order, not cut off"


def test_a_client_that_does_not_read_delays_the_stop_by_two_seconds_at_most(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.publisher.publish(node(tokens=0))
    served.open_raw("/api/v1/stream")
    reader = served.open("/api/v1/stream")
    _event(reader)
    for n in range(1, 60):
        served.publisher.publish(node(tokens=n))
        _event(reader)
    before = time.monotonic()
    served.stop()
    assert time.monotonic() - before < 2
    assert [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []


def test_a_heartbeat_comes_while_there_is_no_snapshot() -> None:
    publisher = Publisher()
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        if sent.count(b": no snapshot\n\n") == 2:
            publisher.close_subscriptions()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def render(_: Snapshot) -> bytes:
        return b"event"

    async def run() -> None:
        publisher.publish(node(0, 0))
        await EventStream(publisher.changes(), render, heartbeat_s=0.01)({"type": "http", "method": "GET"}, receive, send)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert sent[:2] == [b"", b"event"]
    assert b": no snapshot\n\n" in sent[2:]
