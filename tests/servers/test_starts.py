"""What holds for one start of a server: when it was, and what is counted from then on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.servers.conftest import Make, good
from tests.servers.engine_servers import answer_json, be_engine, page_of
from tests.servers.fake_server import FakeServer, answer, be_vllm, vllm_page
from tokenwatt.procfs import start_ticks
from tokenwatt.servers.starts import Start, counts_itself, is_start_of, started_ns
from tokenwatt.types import Listener, SeriesKey

Run = Callable[..., Listener]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts processes with these words on their command line."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> Listener:
        code = "import sys; print(flush=True); sys.stdin.read()"
        running.append(subprocess.Popen([sys.executable, "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        stdout = running[-1].stdout
        assert stdout is not None
        stdout.readline()
        return Listener(running[-1].pid, start_ticks(running[-1].pid) or 0)

    yield start
    for each in running:
        each.communicate()


def test_a_process_says_when_it_was_started(run: Run) -> None:
    before_ns = time.monotonic_ns()
    listener = run()
    after_ns = time.monotonic_ns()
    assert before_ns - 10_000_000 <= started_ns(listener) <= after_ns
    assert is_start_of(listener, before_ns)
    assert not is_start_of(listener, before_ns - 5 * 10**9)


@pytest.mark.parametrize(
    ("words", "itself"),
    [
        (["serve", "m"], True),
        (["text-generation-router", "--port", "80"], True),
        (["port-forward", "svc/vllm", "8000"], False),
        (["-m", "sglang_router.launch_router"], False),
        (["litellm-proxy"], False),
        (["nginx: master process"], False),
    ],
)
def test_who_listens_for_another_is_no_start_of_its_counters(words: list[str], itself: bool, run: Run) -> None:
    assert counts_itself(run(*words)) is itself


def test_a_process_that_is_gone_is_trusted_in_nothing() -> None:
    assert not counts_itself(Listener(2**22 + 1, 1))


def test_without_a_start_on_the_page_the_listener_has_one(server: FakeServer, scraper: Make) -> None:
    be_vllm(server, vllm_page(start=None))
    got = good(scraper(server.url).scrape())
    assert got.process_start is None
    assert got.process_start_ns == pytest.approx(started_ns(Listener(os.getpid(), start_ticks(os.getpid()) or 0)), abs=1e6)


def test_a_start_on_the_page_goes_before_the_listeners(server: FakeServer, scraper: Make) -> None:
    be_vllm(server, vllm_page(start=time.time() - 1000))
    got = good(scraper(server.url).scrape())
    assert got.process_start_ns == pytest.approx(got.t_ns - 1000e9, abs=2e9)


def test_another_listener_is_another_start() -> None:
    start = Start(listener=Listener(1, 2))
    assert start.is_another(None, Listener(1, 3))
    assert not start.is_another(None, None)
    assert not start.is_another(None, Listener(1, 2))
    assert Start(process_start=5.0).is_another(6.0, None)


# --- engines that show nothing before their first request --------------------------------------------------------------------------------


def test_a_fresh_page_is_a_reading_without_series_and_the_counters_settle_later(server: FakeServer, scraper: Make) -> None:
    be_engine(server, "sglang-0.5.23-fresh")
    chat = scraper(server.url)
    fresh = good(chat.scrape())
    assert (fresh.engine, fresh.counters) == ("sglang", {})
    body, said = page_of("sglang-0.5.23")
    server.serve("/metrics", answer(body, content_type=said["content_type"]))
    got = good(chat.scrape())
    assert {key.kind for key in got.counters} == {"prompt_computed", "prompt_cached", "generation"}
    assert got.update == "step"


# --- what the settings say ---------------------------------------------------------------------------------------------------------------


def test_a_member_whose_tokens_are_counted_elsewhere_says_whether_it_works(server: FakeServer, scraper: Make) -> None:
    pages = iter([vllm_page(generation=n).replace(b"running{", b"other{") for n in (100, 100, 150, 150)])
    be_vllm(server, lambda: next(pages), filters=False)
    member = scraper(server.url, engine="vllm", tokens=False)
    readings = [good(member.scrape()) for _ in range(4)]
    assert [r.running for r in readings] == [None, None, 1, None]
    assert {len(r.counters) for r in readings} == {0}


def test_of_such_a_member_requests_that_run_are_told_as_they_are(server: FakeServer, scraper: Make) -> None:
    be_vllm(server)
    assert good(scraper(server.url, engine="vllm", tokens=False).scrape()).running == 2


def test_counters_that_the_settings_name(server: FakeServer, scraper: Make) -> None:
    server.serve("/stats", answer(b"# TYPE in_total counter\nin_total 5\n# TYPE out_total counter\nout_total 7\n"))
    answer_json(server, "/v1/models", {"data": [{"id": "own"}]})
    got = good(scraper(server.url, engine="generic", metrics_path="/stats", counters=("in_total", None, "out_total")).scrape())
    assert (got.engine, got.cached) == ("generic", "unknown")
    assert got.counters == {SeriesKey("own", "prompt_computed", ""): 5, SeriesKey("own", "generation", ""): 7}


def test_generic_without_counters_is_an_error_before_anything_runs(scraper: Make) -> None:
    with pytest.raises(ValueError, match="nothing to count"):
        scraper("http://x", engine="generic")
