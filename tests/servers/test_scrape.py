from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers.conftest import Make, bad, good
from tests.servers.fake_server import CLOSE, NO_TOKENS, FakeServer, Reply, Request, answer, be_vllm, vllm_page
from tokenwatt.procfs import start_ticks
from tokenwatt.servers.engines.vllm import VLLM
from tokenwatt.servers.page.counters import wanted
from tokenwatt.types import Listener, SeriesKey, ServerFailure, ServerReading

GENERATION = SeriesKey("tiny", "generation", 'engine="0"')


# --- what a reading says -----------------------------------------------------------------------------------------------------------------


def test_a_reading(server: FakeServer, scraper: Make) -> None:
    page = vllm_page(start=time.time() - 100)
    be_vllm(server, page)
    before_ns = time.monotonic_ns()
    got = good(scraper(server.url).scrape())
    assert before_ns < got.t_ns < time.monotonic_ns()
    assert (got.server, got.engine, got.version, got.update, got.cached) == ("chat", "vllm", "0.32.0", "step", "known")
    assert got.counters == {
        SeriesKey("tiny", "prompt_computed", 'engine="0",source="local_compute"'): 40,
        SeriesKey("tiny", "prompt_cached", 'engine="0",source="local_cache_hit"'): 8,
        GENERATION: 100,
    }
    assert (got.running, got.waiting, got.size_bytes) == (2, 1, len(page))
    assert got.process_start_ns is not None
    assert got.process_start_ns == pytest.approx(got.t_ns - 100e9, abs=2e9)
    assert 0 < got.duration_ns < 2e9
    assert got.listener == Listener(os.getpid(), start_ticks(os.getpid()) or 0)


def test_the_time_of_a_reading_is_the_middle_of_its_request(server: FakeServer, scraper: Make) -> None:
    be_vllm(server)

    def late(_: Request) -> Reply:
        server.closing.wait(0.3)
        return answer(vllm_page())

    server.serve("/metrics/", late)
    got = good(scraper(server.url, engine="vllm").scrape())
    assert 0.3e9 <= got.duration_ns < 1e9
    assert 0.15e9 <= time.monotonic_ns() - got.t_ns < 1e9


def test_counters_move(server: FakeServer, scraper: Make) -> None:
    pages = iter([vllm_page(generation=n) for n in (100, 250)])
    be_vllm(server, lambda: next(pages))
    chat = scraper(server.url)
    assert [good(chat.scrape()).counters[GENERATION] for _ in range(2)] == [100, 250]
    assert server.connections == 1


def test_the_version_is_asked_once_a_start(server: FakeServer, scraper: Make) -> None:
    starts = iter([1_790_000_000.5, 1_790_000_000.5, 1_790_000_100.5, 1_790_000_100.5])
    be_vllm(server, lambda: vllm_page(start=next(starts)))
    chat = scraper(server.url)
    first, second = (good(chat.scrape()) for _ in range(2))
    assert (len(server.asked("/version")), first.process_start_ns) == (1, second.process_start_ns)
    server.serve("/version", answer(b'{"version":"0.33.0"}', content_type="application/json"))
    third, fourth = (good(chat.scrape()) for _ in range(2))
    assert (third.version, fourth.version, len(server.asked("/version"))) == ("0.33.0", "0.33.0", 2)
    assert third.process_start_ns is not None
    assert second.process_start_ns is not None
    assert third.process_start_ns - second.process_start_ns == pytest.approx(100e9, abs=1e9)


@pytest.mark.parametrize(
    "version", [answer(b"nothing", status="404 Not Found"), answer(b"[]"), answer(b"{{"), answer(b'{"version":1}'), b"\n"]
)
def test_a_server_without_a_version_is_read_all_the_same(version: bytes, server: FakeServer, scraper: Make) -> None:
    be_vllm(server)
    server.serve("/version", version)
    chat = scraper(server.url)
    assert [good(chat.scrape()).version for _ in range(2)] == ["", ""]
    assert len(server.asked("/version")) == 1


def test_the_model_is_asked_for_where_the_series_do_not_name_it(server: FakeServer, scraper: Make) -> None:
    be_vllm(server, vllm_page().replace(b',model_name="tiny"', b""))
    chat = scraper(server.url, engine="vllm")
    assert {key.model for key in good(chat.scrape()).counters} == {"tiny"}
    assert {key.model for key in good(chat.scrape()).counters} == {"tiny"}
    assert len(server.asked("/v1/models")) == 1
    server.serve("/v1/models", answer(b"", status="401 Unauthorized"))
    assert {key.model for key in good(scraper(server.url, engine="vllm").scrape()).counters} == {""}


def test_the_models_are_not_asked_for_where_they_are_known(server: FakeServer, scraper: Make) -> None:
    be_vllm(server)
    good(scraper(server.url, engine="vllm").scrape())
    assert server.asked("/v1/models") == []


# --- which page --------------------------------------------------------------------------------------------------------------------------


def test_asks_for_the_wanted_names_only(server: FakeServer, scraper: Make) -> None:
    be_vllm(server)
    chat = scraper(server.url)
    good(chat.scrape())
    good(chat.scrape())
    assert server.asked("/metrics") == []
    request, later = server.asked("/metrics/")
    marks_of_others = {"nv_inference_request_success", "request_predict_seconds", "dynamo_component_uptime_seconds"}
    assert set(parse_qs(request.query)["name[]"]) == wanted([VLLM]).types.keys() | marks_of_others
    assert set(parse_qs(later.query)["name[]"]) < wanted([VLLM]).types.keys()
    assert request.headers["accept"] == "text/plain;version=0.0.4;q=1,*/*;q=0.1"
    assert request.headers["accept-encoding"] == "identity"
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    "reply",
    [
        answer(b""),
        answer(NO_TOKENS),
        answer(vllm_page(), status="307 Temporary Redirect", headers="Location: /metrics\r\n"),
        answer(b"not found", status="404 Not Found"),
        answer(b"oops", status="500 Internal Server Error"),
        answer(b"<html></html>", content_type="text/html"),
        answer(b"{}", content_type="application/json"),
        answer(vllm_page(), headers="Content-Encoding: gzip\r\n"),
        answer(vllm_page()[:-1]),
    ],
)
def test_a_server_that_does_not_filter_is_asked_for_the_whole_page_from_then_on(reply: bytes, server: FakeServer, scraper: Make) -> None:
    be_vllm(server)
    server.serve("/metrics/", reply)
    chat = scraper(server.url)
    assert [good(chat.scrape()).counters[GENERATION] for _ in range(3)] == [100] * 3
    assert (len(server.asked("/metrics/")), len(server.asked("/metrics"))) == (1, 3)


def test_after_a_restart_the_filter_is_tried_again(server: FakeServer, scraper: Make) -> None:
    be_vllm(server, filters=False)
    chat = scraper(server.url)
    good(chat.scrape())
    server.refuse()
    assert bad(chat.scrape()).gone
    be_vllm(server)
    server.listen()
    good(chat.scrape())
    good(chat.scrape())
    assert (len(server.asked("/metrics/")), len(server.asked("/metrics"))) == (3, 1)


def test_a_path_prefix_and_a_metrics_path_are_kept(server: FakeServer, scraper: Make) -> None:
    server.serve("/node 1/prom/x", answer(vllm_page()))
    server.serve("/node%201/prom/x", answer(vllm_page()))
    chat = scraper(f"{server.url}/node%201/", metrics_path="/prom/x", engine="vllm")
    good(chat.scrape())
    assert [r.path for r in server.requests] == ["/node%201/prom/x/", "/node%201/prom/x", "/node%201/version"]


def test_another_server_on_the_port_is_found_out(server: FakeServer, scraper: Make) -> None:
    be_vllm(server)
    chat = scraper(server.url)
    good(chat.scrape())
    be_vllm(server, NO_TOKENS)
    assert "no token counters" in bad(chat.scrape()).reason
    be_vllm(server)
    good(chat.scrape())


# --- why there is no reading -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer(b"", status="401 Unauthorized"), "HTTP 401 for /metrics: it wants a key, give api_key_file"),
        (answer(b"", status="403 Forbidden"), "HTTP 403 for /metrics: it wants a key, give api_key_file"),
        (answer(b"", status="404 Not Found"), "HTTP 404 for /metrics: there are no metrics; give metrics_path"),
        (answer(b"", status="503 Service Unavailable"), "HTTP 503 for /metrics"),
        (answer(vllm_page(), status="302 Found", headers="Location: /login\r\n"), "HTTP 302 for /metrics: a redirect"),
        (answer(b"<!doctype html>", content_type="text/html"), "/metrics: the answer is a web page (HTML)"),
        (answer(b'{"detail":"x"}', content_type="application/json"), "/metrics: the answer is JSON"),
        (answer(b""), "/metrics: the page is empty"),
        (
            answer(NO_TOKENS),
            "/metrics has no token counters: looked for those of all engines; of another server, name them (engine generic)",
        ),
        (answer(vllm_page().replace(b"_total counter", b"_total gauge")), "is a gauge on this page, not a counter"),
        (answer(vllm_page(), headers="Content-Encoding: gzip\r\n"), "/metrics is compressed"),
        (answer(b"x" * (9 << 20)), "answers with more than 8 MiB"),
        (b"220 mail.example ESMTP\r\n", "does not answer in HTTP/1.1"),
    ],
)
def test_the_reason_is_one_sentence_for_people(reply: bytes, reason: str, server: FakeServer, scraper: Make) -> None:
    for path in ("/metrics", "/metrics/"):
        server.serve(path, reply)
    chat = scraper(server.url)
    for _ in range(2):
        failure = bad(chat.scrape())
        assert reason in failure.reason
        assert "\n" not in failure.reason
        assert (failure.server, failure.gone, failure.rejected) == ("chat", False, False)
    be_vllm(server)
    good(chat.scrape())


@pytest.mark.parametrize("filters", [True, False])
@pytest.mark.parametrize("value", ["nan", "inf", "-5", "0.25"])
def test_a_value_that_no_server_can_mean_is_rejected(value: str, filters: bool, server: FakeServer, scraper: Make) -> None:
    be_vllm(server, vllm_page(generation=float(value)), filters=filters)
    failure = bad(scraper(server.url).scrape())
    assert failure.rejected
    assert failure.reason.startswith(f"vllm:generation_tokens_total is {value}")


def test_nobody_there_is_gone(server: FakeServer, scraper: Make) -> None:
    server.refuse()
    assert bad(scraper(server.url).scrape()).gone


def test_a_server_that_hangs_is_left_within_its_time(server: FakeServer, scraper: Make) -> None:
    be_vllm(server)
    chat = scraper(server.url)
    good(chat.scrape())
    server.serve("/metrics/", lambda _: [b""] if server.closing.wait(30) else [])
    started = time.monotonic()
    failure = bad(chat.scrape())
    assert 1.9 < time.monotonic() - started < 3
    assert "does not answer within 2 s" in failure.reason
    assert not failure.gone


def test_a_bad_url_or_engine_is_an_error_before_anything_runs(scraper: Make) -> None:
    for url in ("ftp://x", "http://", "chat:8000", "http://a b/", "http://x?y=1", "http://user:word@x/", "http://x:99999"):
        with pytest.raises(ValueError, match=r".+"):
            scraper(url)
    with pytest.raises(ValueError, match="sglangg is no engine"):
        scraper("http://x", engine="sglangg")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.binary(max_size=300), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n\r\n", vllm_page()]))
def test_whatever_comes_is_a_reading_or_a_failure(server: FakeServer, scraper: Make, noise: bytes, start: bytes) -> None:
    be_vllm(server)
    for path in ("/metrics", "/metrics/", "/version", "/v1/models"):
        server.serve(path, [start + noise, CLOSE])
    assert isinstance(scraper(server.url).scrape(), ServerReading | ServerFailure)


# --- who answers -------------------------------------------------------------------------------------------------------------------------

_SERVER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(listener.getsockname()[1], flush=True)
while True:
    sock, _ = listener.accept()
    while b"\\r\\n\\r\\n" in (data := sock.recv(65536)):
        body = b"vllm:prompt_tokens_total 1\\nvllm:generation_tokens_total 1\\n"
        sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
    sock.close()
"""


@pytest.fixture
def process() -> Iterator[Callable[[int], tuple[subprocess.Popen[str], int]]]:
    """Starts servers in processes of their own, on a port or any."""
    running: list[subprocess.Popen[str]] = []

    def start(port: int = 0) -> tuple[subprocess.Popen[str], int]:
        running.append(subprocess.Popen([sys.executable, "-c", _SERVER, str(port)], stdout=subprocess.PIPE, text=True))
        assert running[-1].stdout is not None
        return running[-1], int(running[-1].stdout.readline())

    yield start
    for each in running:
        each.kill()
        each.wait()
        assert each.stdout is not None
        each.stdout.close()


def test_the_process_that_answers_is_known_and_so_is_its_end(
    process: Callable[..., tuple[subprocess.Popen[str], int]], scraper: Make
) -> None:
    first, port = process()
    chat = scraper(f"http://127.0.0.1:{port}", engine="vllm")
    assert good(chat.scrape()).listener == Listener(first.pid, start_ticks(first.pid) or 0)
    first.kill()
    first.wait()
    assert bad(chat.scrape()).gone
    second, _ = process(port)
    assert good(chat.scrape()).listener == Listener(second.pid, start_ticks(second.pid) or 0)


def test_a_restart_between_two_reads_is_another_listener(process: Callable[..., tuple[subprocess.Popen[str], int]], scraper: Make) -> None:
    first, port = process()
    chat = scraper(f"http://127.0.0.1:{port}", engine="vllm")
    good(chat.scrape())
    first.kill()
    first.wait()
    second, _ = process(port)
    got = good(chat.scrape())
    assert got.listener is not None
    assert got.listener.pid == second.pid


def test_a_failure_after_the_process_ended_is_gone_whatever_answers_then(
    process: Callable[..., tuple[subprocess.Popen[str], int]], server: FakeServer, scraper: Make
) -> None:
    first, port = process()
    chat = scraper(f"http://127.0.0.1:{port}", engine="vllm")
    good(chat.scrape())
    first.kill()
    first.wait()
    server.refuse()
    server.port = port
    server.listen()
    server.serve("/metrics", answer(b"", status="502 Bad Gateway"))
    failure = bad(chat.scrape())
    assert failure.gone
    assert "502" in failure.reason
    assert not bad(chat.scrape()).gone
