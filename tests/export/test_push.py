"""POST /api/v1/tokens over real sockets, in front of the real sink."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.datastructures import Headers

from tests.export.conftest import Served
from tests.export.snapshots import node
from tokenwatt.export.publisher import Publisher
from tokenwatt.export.push import BODY_MAX_BYTES, add_push
from tokenwatt.export.push_access import PushAccess, Refused
from tokenwatt.export.serve import HttpServer
from tokenwatt.servers.push.pushed import PushedTokens
from tokenwatt.types import SeriesKey, ServerReading

JSON = {"Content-Type": "application/json"}
GOOD: dict[str, Any] = {"server": "batch", "model": "m", "kind": "generation", "count": 5}


class Pushing(Served):
    """The app of a node whose server chat-0 is read by the meter, and chat's counters are pushed."""

    def __init__(self, **rest: Any) -> None:
        self.new: list[tuple[str, str]] = []
        self.tokens = PushedTokens([], on_new=lambda name, url: self.new.append((name, url)))
        super().__init__(tokens=self.tokens, **rest)
        self.publisher.publish(node(1, 1))

    def push(self, body: Any, status: int = 200, *, host: str = "127.0.0.1", **headers: str) -> Any:
        """What comes of a push: the answer of 200, or the words of a refusal."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        response, answer = self.request("/api/v1/tokens", "POST", body=raw, headers=JSON | more, host=host)
        assert response.status == status, answer
        assert response.headers["content-type"] == "application/json"
        found = json.loads(answer)
        return found if status == 200 else found["detail"]

    def readings(self) -> dict[str, ServerReading]:
        found = (r for r in self.tokens.readings(time.monotonic_ns()) if isinstance(r, ServerReading))
        return {reading.server: reading for reading in found}

    def counted(self) -> dict[tuple[str, str], int]:
        return {(name, key.kind): count for name, reading in self.readings().items() for key, count in reading.counters.items()}

    def close(self) -> None:
        super().close()
        self.tokens.close()


@pytest.fixture
def served() -> Iterator[Pushing]:
    with closing(Pushing()) as s:
        yield s


@pytest.fixture(scope="module")
def shared() -> Iterator[Pushing]:
    """For tests of what is refused: nothing of it may be counted in the end."""
    with closing(Pushing()) as s:
        yield s
        assert s.tokens.names() == frozenset()


def now(after_s: float = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=after_s)).isoformat().replace("+00:00", "Z")


# --- what is accepted --------------------------------------------------------------------------------------------------------------------


def test_one_report_and_a_list_of_them(served: Pushing) -> None:
    assert served.push(GOOD) == {"accepted": 1, "duplicates": 0}
    assert served.push([GOOD, GOOD | {"kind": "prompt_cached", "count": 2}, GOOD | {"server": "other"}]) == {"accepted": 3, "duplicates": 0}
    assert served.counted() == {("batch", "generation"): 10, ("batch", "prompt_cached"): 2, ("other", "generation"): 5}


def test_everything_that_a_report_may_say(served: Pushing) -> None:
    full = {"from": now(-7), "to": now(30), "running": 2, "url": "http://192.0.2.1:11434/", "idempotency_key": "a"}
    assert served.push(GOOD | full)["accepted"] == 1
    nothing = dict.fromkeys(("from", "to", "running", "url", "idempotency_key"))
    assert served.push(GOOD | nothing)["accepted"] == 1
    reading = served.readings()["batch"]
    assert served.new == [("batch", "http://192.0.2.1:11434")]
    assert (reading.running, dict(reading.counters)) == (2, {SeriesKey("m", "generation", ""): 10})
    assert [count for bound, count in reading.latency or () if bound in (5.0, 10.0)] == [0, 1]


@pytest.mark.parametrize("instant", ["2026-01-31T12:00:00Z", "2026-01-31t12:00:00.123456789+02:00", "2026-01-31 12:00:00z"])
def test_instants_as_rfc_3339_has_them(served: Pushing, instant: str) -> None:
    assert served.push(GOOD | {"from": instant, "to": instant})["accepted"] == 1


def test_the_same_again_is_a_duplicate_and_something_else_a_conflict(served: Pushing) -> None:
    keyed = GOOD | {"idempotency_key": "a"}
    assert served.push(keyed) == {"accepted": 1, "duplicates": 0}
    # Other spacing, another order, and more beside it: the same report.
    respaced = json.dumps(dict(reversed(keyed.items())), indent=2).encode()
    assert served.push(respaced) == {"accepted": 0, "duplicates": 1}
    assert served.push([keyed, GOOD]) == {"accepted": 1, "duplicates": 1}
    assert "'a' came with another report before" in served.push(keyed | {"count": 6}, 409)
    assert served.push([GOOD, GOOD], Idempotency_Key="a") == {"accepted": 2, "duplicates": 0}
    assert served.push([GOOD, GOOD], Idempotency_Key="a") == {"accepted": 0, "duplicates": 2}
    assert "'a' came with another request before" in served.push(GOOD, 409, Idempotency_Key="a")
    assert served.counted() == {("batch", "generation"): 20}


def test_many_may_push_at_once(served: Pushing) -> None:
    def push(who: int) -> None:
        for i in range(10):
            assert served.push(GOOD | {"count": 1, "idempotency_key": f"{who // 2}/{i}"})["accepted"] in (0, 1)

    threads = [threading.Thread(target=push, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        served.readings()
    assert served.counted() == {("batch", "generation"): 20}


def test_a_thousand_reports_of_a_quarter_of_a_mebibyte(served: Pushing) -> None:
    body = json.dumps([GOOD] * 1000).encode()
    assert served.push(body + b" " * (BODY_MAX_BYTES - len(body))) == {"accepted": 1000, "duplicates": 0}
    assert served.counted() == {("batch", "generation"): 5000}


# --- what is refused ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"count": -1}, "count: -1 is out of bounds; write a whole number from 0 to 1000000000000."),
        ({"count": 10**12 + 1}, "is out of bounds"),
        ({"count": 10**4000}, "count: it is out of bounds"),
        ({"count": 1.0}, "count: 1.0 is not a whole number"),
        ({"count": True}, "count: true is not a whole number"),
        ({"count": "5"}, "count: '5' is not a whole number; write one without a fraction and without quotes."),
        ({"count": None}, "count: nothing is not a whole number"),
        ({"kind": "generations"}, "kind: 'generations' is not known; write generation."),
        ({"kind": ["generation"]}, "kind: a list is not known"),
        ({"server": ""}, "server: '' is no name"),
        ({"server": "retired"}, "server: 'retired' is the name that servers gone for a day share"),
        ({"server": "a\nb"}, "server: 'a\\nb' cannot be a name"),
        ({"server": "x" * 129}, "write up to 128 printable characters"),
        ({"server": 5}, "server: 5 is no name"),
        ({"model": "x" * 201}, "has 201 characters; a model has at most 200."),
        ({"model": "a\x00b"}, "model: 'a\\x00b' holds control characters"),
        ({"model": "\ud800"}, "half a surrogate pair"),
        ({"model": None}, "model: nothing is not text"),
        ({"running": -1}, "running: -1 is out of bounds"),
        ({"url": "localhost:11434"}, "write http://localhost:11434"),
        ({"url": "http://user:secret@h/"}, "holds a user or a password"),
        ({"url": "http://h/" + "x" * 500}, "a url has at most 500"),
        ({"idempotency_key": ""}, "idempotency_key: it is empty"),
        ({"idempotency_key": "k" * 201}, "at most 200"),
        ({"from": "2026-01-31T12:00:00Z"}, "from and to belong together"),
        ({"from": "2026-01-31T12:00:01Z", "to": "2026-01-31T12:00:00Z"}, "to is before from"),
        ({"from": "2026-01-31T12:00:00", "to": "2026-01-31T12:00:00Z"}, "from: '2026-01-31T12:00:00' is not an instant"),
        ({"from": "2026-02-31T12:00:00Z", "to": "2026-03-31T12:00:00Z"}, "from: '2026-02-31T12:00:00Z' is not an instant"),
        ({"from": 1769860800, "to": 1769860800}, "with a time zone, for example"),
        ({"from": "2026-01-31T12:00:00Z", "to": "9999-01-31T12:00:00Z"}, "to: it is in the future; are both clocks right?"),
        ({"count": 10**10, "from": "2026-01-31T12:00:00Z", "to": "2026-01-31T12:00:01Z"}, "more than 1000000000 tokens a second"),
        ({"cuont": 5}, "'cuont' is no field of a report; did you mean count?"),
        ({"from_": None}, "'from_' is no field of a report; did you mean from?"),
        ({"xyz": 5}, "'xyz' is no field of a report; there are: server, model, kind, count, from, to, running, url, idempotency_key."),
    ],
)
def test_one_that_is_wrong_refuses_all_and_is_named(shared: Pushing, wrong: dict[str, Any], words: str) -> None:
    assert words in (said := shared.push([GOOD, GOOD | wrong, GOOD], 422))
    assert said.startswith("Report 2 of 3: ")
    assert "secret" not in said
    assert shared.push(GOOD | wrong, 422).startswith("The report: ")


def test_what_is_missing_is_named(shared: Pushing) -> None:
    for name in GOOD:
        assert f"{name}: it is missing" in shared.push({key: value for key, value in GOOD.items() if key != name}, 422)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "The body is no JSON"),
        (b"{", 400, "at line 1, column 2"),
        (b'{"server": "\xff"}', 400, "not UTF-8"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b"[]", 422, "The list holds 0 reports; send 1 to 1000."),
        (json.dumps([GOOD] * 1001).encode(), 422, "The list holds 1001 reports"),
        (b"5", 422, "The report: it is no JSON object"),
        (b"[[]]", 422, "Report 1 of 1: it is no JSON object"),
        (b'{"count": ' + b"1" * 5000 + b"}", 422, "a number that is too long"),
        (b'{"count": 5, "count": 6}', 422, "'count' is given twice in one object"),
        (b'{"count": NaN}', 422, "nan is not a whole number"),
        (json.dumps({f"field{i}": 0 for i in range(15_000)}).encode(), 422, "no field of a report"),
    ],
)
def test_a_body_that_is_no_report_is_refused(shared: Pushing, body: bytes, status: int, words: str) -> None:
    assert words in (said := shared.push(body, status))
    assert len(said) < 1000


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=utf-16"])
def test_what_a_web_page_may_send_without_asking_is_refused(shared: Pushing, media_type: str) -> None:
    assert "Content-Type: application/json" in shared.push(GOOD, 415, Content_Type=media_type)


def test_a_compressed_body_is_refused(shared: Pushing) -> None:
    assert "without Content-Encoding" in shared.push(GOOD, 415, Content_Encoding="gzip")


def test_an_empty_or_long_key_of_the_request_is_refused(shared: Pushing) -> None:
    assert shared.push(GOOD, 422, Idempotency_Key="").startswith("Idempotency-Key: it is empty")
    assert "at most 200" in shared.push(GOOD, 422, Idempotency_Key="k" * 201)


def test_a_body_too_large_is_refused_with_and_without_a_length(shared: Pushing) -> None:
    large = b" " * (BODY_MAX_BYTES + 1)
    assert "larger than 256 KiB" in shared.push(large, 413)
    chunks = (large[i : i + 10_000] for i in range(0, len(large), 10_000))
    response, body = shared.request("/api/v1/tokens", "POST", body=chunks, headers=JSON)
    assert (response.status, b"larger than 256 KiB" in body) == (413, True)


def test_a_client_that_sends_slowly_is_not_waited_for(served: Pushing) -> None:
    snapshot = node()
    app = FastAPI()
    app.state.publisher = Publisher()
    add_push(app, served.tokens, lambda _: snapshot, None, limit_s=0.1)
    server = HttpServer(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(b"POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
            answer = b""
            while part := client.recv(4096):  # until the server hangs up
                answer += part
    finally:
        server.stop()
        thread.join(10)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not come within 0.1 s" in answer


def test_servers_that_are_read_take_no_pushes_by_name_or_url(shared: Pushing) -> None:
    assert "reads server 'chat-0' itself: tokens pushed for it would count twice" in shared.push([GOOD, GOOD | {"server": "chat-0"}], 409)
    assert "reads server 'chat-0' at http://localhost:8000 itself" in shared.push(GOOD | {"url": "http://localhost:8000"}, 409)


def test_a_url_where_nothing_was_read_is_free(served: Pushing) -> None:
    snapshot = node(1, 1)
    served.publisher.publish(replace(snapshot, servers=(replace(snapshot.servers[0], last_sample_wall_s=None),)))
    assert served.push(GOOD | {"url": "http://localhost:8000"})["accepted"] == 1


def test_a_server_that_pushes_shows_up_and_takes_more(served: Pushing) -> None:
    served.push(GOOD | {"url": "http://192.0.2.1:8000"})
    snapshot = node(1, 1)
    shown = replace(snapshot.servers[0], name="batch", url="http://192.0.2.1:8000", engine="generic")
    served.publisher.publish(replace(snapshot, servers=(*snapshot.servers, shown)))
    assert served.push(GOOD | {"url": "http://192.0.2.1:8000"})["accepted"] == 1


def test_what_the_sink_refuses_is_a_conflict(served: Pushing) -> None:
    assert "at most 100" in served.push([GOOD | {"server": f"s{i}"} for i in range(101)], 409)
    assert served.tokens.names() == frozenset()


def test_while_the_meter_does_not_run_nothing_is_taken(served: Pushing) -> None:
    served.publisher.publish(node(t_ns=time.monotonic_ns() - 11 * 10**9))
    assert "the meter has stopped sampling" in served.push(GOOD, 503)
    assert served.tokens.names() == frozenset()


def test_without_a_sink_there_is_no_such_path(demo: Served) -> None:
    assert demo.request("/api/v1/tokens", "POST", body=b"{}", headers=JSON)[0].status == 404
    assert "/api/v1/tokens" not in demo.json("/openapi.json")["paths"]


# --- who may ------------------------------------------------------------------------------------------------------------------------------


def test_web_pages_may_not(shared: Pushing) -> None:
    for origin in ("https://example.org", f"http://localhost:{shared.server.port}", "null"):
        assert "Web pages may not push" in shared.push(GOOD, 403, Origin=origin)


def test_who_comes_through_a_proxy_may_be_anybody(shared: Pushing) -> None:
    assert "write_token_file" in shared.push(GOOD, 403, X_Forwarded_For="127.0.0.1")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_processes_of_this_machine_may(peer: str) -> None:
    PushAccess(None).check(peer, Headers())


@pytest.mark.parametrize("peer", [None, "", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "0.0.0.0", "localhost"])
def test_others_may_not(peer: str | None) -> None:
    with pytest.raises(Refused, match="Only processes of this machine") as e:
        PushAccess(None).check(peer, Headers())
    assert e.value.status == 403


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_the_peer_is_judged_by_its_socket() -> None:
    with closing(Pushing(host="::")) as s:
        assert s.push(GOOD)["accepted"] == 1  # ::ffff:127.0.0.1
        assert s.push(GOOD, host="::1")["accepted"] == 1
        if (own := _address_of_this_machine()) is not None:
            assert "Only processes of this machine" in s.push(GOOD, 403, host=own)


def _address_of_this_machine() -> str | None:
    """One that is not loopback. What comes from it is another machine, for all that can be told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses a route, sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address


def test_with_a_token_it_is_needed_from_everybody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "token"
    file.write_text("first-secret\n")
    with closing(Pushing(write_token_file=file)) as s:
        said = [s.push(GOOD, 401), s.push(GOOD, 401, Authorization="Bearer wrong"), s.push(GOOD, 401, Authorization="Basic first-secret")]
        said += [s.push(GOOD, 401, Authorization="Bearer \xe9"), s.push(GOOD, 403, Authorization="Bearer first-secret", Origin="null")]
        response, _ = s.request("/api/v1/tokens", "POST", body=b"", headers=JSON)
        assert response.headers["www-authenticate"] == "Bearer"
        assert s.push(GOOD, Authorization="Bearer first-secret")["accepted"] == 1
        assert s.push(GOOD, Authorization="bearer first-secret", X_Forwarded_For="10.0.0.1")["accepted"] == 1
        file.write_text("second-secret")
        said.append(s.push(GOOD, 401, Authorization="Bearer first-secret"))
        assert s.push(GOOD, Authorization="Bearer second-secret")["accepted"] == 1
        assert not any("secret" in text for text in (*said, caplog.text))


def test_a_token_that_cannot_be_read_is_said_and_lets_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "token"
    with closing(Pushing(write_token_file=file)) as s:
        for _ in range(2):
            assert f"write_token_file {file} cannot be read: No such file" in s.push(GOOD, 503, Authorization="Bearer ")
        assert caplog.text.count("Nobody can push tokens") == 1
        file.write_text("two words of a secret")
        said = s.push(GOOD, 503, Authorization="Bearer two")
        assert f"{file} does not hold one line of visible characters" in said
        assert "secret" not in said + caplog.text
        file.write_text("secret")
        os.utime(file, ns=(0, 0))
        assert s.push(GOOD, Authorization="Bearer secret")["accepted"] == 1


# --- the document ------------------------------------------------------------------------------------------------------------------------


def test_openapi_documents_it_all(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with closing(Pushing(write_token_file=file)) as s:
        operation = s.json("/openapi.json")["paths"]["/api/v1/tokens"]["post"]
    assert set(operation["responses"]) == {"200", "400", "401", "403", "408", "409", "413", "415", "422", "503"}
    one, several = operation["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    assert set(one["properties"]) == {"server", "model", "kind", "count", "from", "to", "running", "url", "idempotency_key"}
    assert set(one["required"]) == {"server", "model", "kind", "count"}
    assert one["additionalProperties"] is False
    assert all("description" in field for field in one["properties"].values())
    assert several["maxItems"] == 1000
    assert [p["name"] for p in operation["parameters"]] == ["Idempotency-Key", "Authorization"]
