"""llama-server: read without waking it, and with the tokens of requests that run."""

from __future__ import annotations

import time

import pytest

from tests.servers.conftest import Make, bad, good
from tests.servers.engine_servers import answer_json
from tests.servers.fake_server import FakeServer, Reply, Request, answer
from tokenwatt.servers.engines.llamacpp import LLAMACPP
from tokenwatt.servers.in_flight import tokens_in_flight
from tokenwatt.types import SeriesKey

GENERATION = SeriesKey("m.gguf", "generation", "")


class Llama:
    """A llama-server that counts its page's readings, and says whether it sleeps."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.asleep = False
        self.running = 0
        self.predicted = 100
        self.slots: object = []
        self.slots_status = "200 OK"
        answer_json(server, "/v1/models", {"data": [{"id": "m.gguf", "owned_by": "llamacpp"}]})
        server.serve("/metrics", self._page)
        server.serve("/props", self._props)
        server.serve("/slots", self._slots)

    def asked(self) -> list[str]:
        return [r.path for r in self.server.requests]

    def _page(self, _: Request) -> Reply:
        assert not self.asleep, "that would wake it"
        lines = [
            "# TYPE llamacpp:prompt_tokens_total counter",
            "llamacpp:prompt_tokens_total 40",
            "# TYPE llamacpp:tokens_predicted_total counter",
            f"llamacpp:tokens_predicted_total {self.predicted}",
            "# TYPE llamacpp:requests_processing gauge",
            f"llamacpp:requests_processing {self.running}",
        ]
        return answer("".join(f"{line}\n" for line in lines).encode())

    def _props(self, _: Request) -> Reply:
        body = f'{{"default_generation_settings":{{}},"build_info":"b11000-abc","is_sleeping":{str(self.asleep).lower()}}}'
        return answer(body.encode(), content_type="application/json")

    def _slots(self, _: Request) -> Reply:
        assert not self.asleep, "that would wake it"
        answer_json(self.server, "/.slots", self.slots, status=self.slots_status)
        return self.server.paths["/.slots"](Request("", "", {}))


def slot(tokens: object, *, busy: bool = True) -> dict[str, object]:
    return {"id": 0, "is_processing": busy, "prompt": "a secret", "next_token": [{"n_decoded": tokens, "has_next_token": True}]}


@pytest.fixture
def llama(server: FakeServer) -> Llama:
    return Llama(server)


def test_a_sleeping_server_is_not_woken_and_what_it_had_holds(llama: Llama, scraper: Make) -> None:
    chat = scraper(llama.server.url)
    awake = good(chat.scrape())
    assert (awake.asleep, awake.running, awake.counters[GENERATION]) == (False, 0, 100)
    llama.asleep = True
    before = len(llama.asked())
    for _ in range(2):
        started_ns = time.monotonic_ns()
        held = good(chat.scrape())
        assert (held.asleep, held.running, held.waiting, held.counters) == (True, 0, 0, awake.counters)
        assert started_ns < held.t_ns < time.monotonic_ns()
        assert held.listener == awake.listener
    assert set(llama.asked()[before:]) == {"/props"}
    llama.asleep, llama.predicted = False, 150
    got = good(chat.scrape())
    assert (got.asleep, got.counters[GENERATION]) == (False, 150)


def test_also_in_passing(llama: Llama, scraper: Make) -> None:
    chat = scraper(llama.server.url)
    good(chat.scrape())
    llama.asleep = True
    held = chat.scrape_quickly(1)
    assert held is not None
    assert held.asleep


def test_one_that_sleeps_at_first_sight_is_not_woken(llama: Llama, scraper: Make) -> None:
    llama.asleep = True
    chat = scraper(llama.server.url)
    for _ in range(2):
        assert "it sleeps" in bad(chat.scrape()).reason
    assert not {"/metrics", "/slots"} & set(llama.asked())


@pytest.mark.parametrize("status", ["401 Unauthorized", "500 Internal Server Error"])
def test_who_does_not_say_whether_it_sleeps_is_not_risked(status: str, llama: Llama, scraper: Make) -> None:
    chat = scraper(llama.server.url)
    good(chat.scrape())
    answer_json(llama.server, "/props", {}, status=status)
    before = len(llama.server.asked("/metrics"))
    assert f"HTTP {status[:3]} for /props" in bad(chat.scrape()).reason
    assert len(llama.server.asked("/metrics")) == before


def test_while_requests_run_it_cannot_sleep_and_is_not_asked(llama: Llama, scraper: Make) -> None:
    llama.running = 1
    chat = scraper(llama.server.url)
    good(chat.scrape())
    before = len(llama.asked())
    good(chat.scrape())
    assert llama.asked()[before:] == ["/metrics", "/slots"]


def test_slots_are_asked_for_after_the_page_and_only_while_requests_run(llama: Llama, scraper: Make) -> None:
    chat = scraper(llama.server.url)
    idle = good(chat.scrape())
    assert (idle.update, idle.in_flight) == ("completion", None)
    llama.running, llama.slots = 2, [slot(7), slot(99, busy=False), slot(5)]
    before = len(llama.asked())
    busy = good(chat.scrape())
    assert llama.asked()[before:] == ["/props", "/metrics", "/slots"]
    assert (busy.update, busy.in_flight) == ("step", {"m.gguf": 12})
    llama.running = 0
    done = good(chat.scrape())
    assert (done.update, done.in_flight) == ("step", None)
    assert len(llama.server.asked("/slots")) == 1


def test_a_server_that_shows_no_slots_is_asked_once(llama: Llama, scraper: Make) -> None:
    llama.running, llama.slots, llama.slots_status = 1, {"error": {"code": 501}}, "501 Not Implemented"
    chat = scraper(llama.server.url)
    for _ in range(3):
        got = good(chat.scrape())
        assert (got.update, got.in_flight) == ("completion", None)
    assert len(llama.server.asked("/slots")) == 1


def test_one_answer_of_the_slots_that_fails_changes_nothing_else(llama: Llama, scraper: Make) -> None:
    llama.running, llama.slots = 1, [slot(7)]
    chat = scraper(llama.server.url)
    good(chat.scrape())
    llama.slots_status = "503 Service Unavailable"
    got = good(chat.scrape())
    assert (got.update, got.in_flight, got.running) == ("step", None, 1)
    llama.slots_status = "200 OK"
    assert good(chat.scrape()).in_flight == {"m.gguf": 7}


@pytest.mark.parametrize("said", [None, {}, "x", [slot("7")], [slot(7), slot(-1)], [slot(True)], [slot(7), {"is_processing": True}]])
def test_what_is_no_list_of_numbers_is_not_known(said: object) -> None:
    assert LLAMACPP.in_flight is not None
    assert tokens_in_flight(said, LLAMACPP.in_flight) is None


def test_both_shapes_of_a_slot_are_read() -> None:
    assert LLAMACPP.in_flight is not None
    older = {"is_processing": True, "next_token": {"n_decoded": 3}}
    assert tokens_in_flight([slot(4), older, {"is_processing": False}, "x"], LLAMACPP.in_flight) == 7
