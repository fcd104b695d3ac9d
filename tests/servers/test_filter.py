"""Pages of which only the wanted names are asked for: which those are, and what they cost."""

from __future__ import annotations

import os
import time
from urllib.parse import parse_qs

from tests.servers.conftest import Make, bad, good
from tests.servers.engine_servers import page_of
from tests.servers.fake_server import FakeServer, Reply, Request, answer, be_vllm
from tokenwatt.procfs import start_ticks
from tokenwatt.servers.engines.description import PROCESS_START
from tokenwatt.servers.engines.vllm import VLLM
from tokenwatt.servers.page.counters import wanted
from tokenwatt.servers.starts import started_ns
from tokenwatt.types import Listener

SLEEP = "vllm:engine_sleep_state"
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
LONG_NAME = "meta-llama/Llama-3.1-405B-Instruct-FP8"


def own_start() -> float:
    """When this process, which the fake server is in, was started, as a server tells it."""
    me = Listener(os.getpid(), start_ticks(os.getpid()) or 0)
    return time.time() - (time.monotonic_ns() - started_ns(me)) / 1e9


class FilteringVllm:
    """The page of a real vLLM 0.32, of which the names asked for are shown, as prometheus_client does."""

    def __init__(self, server: FakeServer, start: float) -> None:
        self.page = page_of("vllm-0.32.0")[0].decode()
        self.page = "".join(self._with_start(line, start) for line in self.page.splitlines(keepends=True))
        be_vllm(server)
        server.serve("/metrics/", self._filtered)
        server.serve("/metrics", lambda _: answer(self.page.encode()))
        self._server = server

    def names(self) -> list[set[str]]:
        """What was asked for, each time."""
        return [set(parse_qs(request.query)["name[]"]) for request in self._server.asked("/metrics/")]

    def move(self, before: str, after: str) -> None:
        assert before in self.page
        self.page = self.page.replace(before, after)

    def _filtered(self, request: Request) -> Reply:
        names = set(parse_qs(request.query)["name[]"])
        shown, head = [], ""
        for line in self.page.splitlines(keepends=True):
            if line.startswith("# HELP"):
                head = line
            elif line.startswith("#"):
                head += line
            elif line.replace("{", " ").split(" ")[0] in names:
                shown.append(head + line)
                head = ""
        return answer("".join(shown).encode())

    @staticmethod
    def _with_start(line: str, start: float) -> str:
        return f"{PROCESS_START} {start}\n" if line.startswith(PROCESS_START) else line


def test_under_1_kb_also_with_a_long_name(server: FakeServer, scraper: Make) -> None:
    vllm = FilteringVllm(server, own_start())
    vllm.page = vllm.page.replace('"tiny"', f'"{LONG_NAME}"')
    chat = scraper(server.url)
    first, *rest = (good(chat.scrape()) for _ in range(9))
    assert {r.size_bytes < 1000 for r in rest} == {True}
    assert server.asked("/metrics") == []
    all_names, *short = vllm.names()
    assert all_names >= {*VLLM.counters(), SLEEP, PROCESS_START}
    marks_of_others = all_names - wanted([VLLM]).types.keys()
    counters = all_names - marks_of_others - {SLEEP, PROCESS_START, RUNNING, WAITING, "vllm:prompt_tokens_by_source_total"}
    runs, waits = counters | {RUNNING}, counters | {WAITING}
    assert short == [runs, runs, runs, waits] * 2
    for got in rest:
        assert (got.counters, got.process_start, got.process_start_ns) == (first.counters, first.process_start, first.process_start_ns)
        assert (got.running, got.waiting, got.asleep, got.cached) == (first.running, first.waiting, False, "known")


def test_what_was_not_asked_for_is_as_it_was_told_last(server: FakeServer, scraper: Make) -> None:
    vllm = FilteringVllm(server, own_start())
    chat = scraper(server.url)
    good(chat.scrape())
    for gauge, count in ((RUNNING, 3), (WAITING, 7)):
        vllm.move(f'{gauge}{{engine="0",model_name="tiny"}} 0', f'{gauge}{{engine="0",model_name="tiny"}} {count}')
    told = [(got.running, got.waiting) for got in (good(chat.scrape()) for _ in range(4))]
    assert told == [(3, 0), (3, 0), (3, 0), (3, 7)]
    vllm.move(f'{RUNNING}{{engine="0",model_name="tiny"}} 3', f'{RUNNING}{{engine="0",model_name="tiny"}} 0')
    got = good(chat.scrape())
    assert (got.running, got.waiting) == (0, 7)


def test_the_start_is_asked_for_over_each_new_connection(server: FakeServer, scraper: Make) -> None:
    vllm = FilteringVllm(server, own_start())
    chat = scraper(server.url)
    first = good(chat.scrape())
    good(chat.scrape())
    server.hang_up()
    vllm.move(f"{PROCESS_START} {first.process_start}", f"{PROCESS_START} 1790000000.5")
    assert good(chat.scrape()).process_start == 1_790_000_000.5
    assert [PROCESS_START in names for names in vllm.names()] == [True, False, False, True]


def test_the_start_is_always_asked_for_where_another_may_be_behind_the_listener(server: FakeServer, scraper: Make) -> None:
    vllm = FilteringVllm(server, own_start() - 60)
    chat = scraper(server.url)
    for _ in range(3):
        good(chat.scrape())
    assert all(PROCESS_START in names for names in vllm.names())


def test_whether_it_sleeps_is_asked_for_while_nothing_runs(server: FakeServer, scraper: Make) -> None:
    vllm = FilteringVllm(server, own_start())
    vllm.move('sleep_state="discard_all"} 0.0', 'sleep_state="discard_all"} 1.0')
    chat = scraper(server.url)
    assert good(chat.scrape()).asleep
    chat._start.asleep_asked_ns -= 10 * 10**9
    assert good(chat.scrape()).asleep
    vllm.move('num_requests_running{engine="0",model_name="tiny"} 0', 'num_requests_running{engine="0",model_name="tiny"} 1')
    assert good(chat.scrape()).asleep is False
    chat._start.asleep_asked_ns -= 10 * 10**9
    good(chat.scrape())
    assert [names == {SLEEP} for names in vllm.names()] == [False, True, False, False, False]


def test_who_does_not_tell_of_sleep_apart_is_read_all_the_same(server: FakeServer, scraper: Make) -> None:
    vllm = FilteringVllm(server, own_start())
    chat = scraper(server.url)
    first = good(chat.scrape())
    vllm.page = "".join(line for line in vllm.page.splitlines(keepends=True) if SLEEP not in line)
    chat._start.asleep_asked_ns -= 10 * 10**9
    got = good(chat.scrape())
    assert (got.counters, got.asleep) == (first.counters, False)


def test_a_server_that_stops_filtering_is_read_by_the_same_counters(server: FakeServer, scraper: Make) -> None:
    FilteringVllm(server, own_start())
    chat = scraper(server.url)
    first = good(chat.scrape())
    server.serve("/metrics/", answer(b""))
    got = good(chat.scrape())
    assert (set(got.counters), got.process_start) == (set(first.counters), first.process_start)
    assert got.size_bytes > 10 * first.size_bytes


def test_a_scheme_that_is_gone_while_another_is_there_is_a_failure_until_a_restart(server: FakeServer, scraper: Make) -> None:
    vllm = FilteringVllm(server, own_start())
    chat = scraper(server.url)
    good(chat.scrape())
    vllm.move("vllm:prompt_tokens_cached_total", "vllm:prompt_tokens_elsewhere_total")
    for _ in range(3):
        failure = bad(chat.scrape())
        assert "and now shows only vllm:prompt_tokens_by_source_total" in failure.reason
        assert not failure.gone
    vllm.page = "".join(FilteringVllm._with_start(line, own_start() + 5) for line in vllm.page.splitlines(keepends=True))
    assert {key.kind for key in good(chat.scrape()).counters} == {"prompt_computed", "prompt_cached", "generation"}
