"""llama-server in router mode: all models that are loaded are read, and none is loaded or woken."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.servers.conftest import Make, bad, good
from tests.servers.engine_servers import be_engine, forget
from tests.servers.fake_server import FakeServer, Reply, Request, answer, be_vllm
from tokenwatt.servers.engines.llamacpp import LLAMACPP
from tokenwatt.servers.http.endpoint import Endpoint
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import SeriesKey


class Model:
    """One model of the router, with what its own server would tell."""

    def __init__(self, state: str = "loaded", *, predicted: int = 0, running: int = 0, slots: int = 0) -> None:
        self.state = state
        self.predicted = predicted
        self.running = running
        self.slots = slots
        self.args = ["llama-server", "--metrics"]
        self.status = "200 OK"
        """Of its page."""

    def page(self) -> bytes:
        lines = [
            "# TYPE llamacpp:prompt_tokens_total counter",
            "llamacpp:prompt_tokens_total 40",
            "# TYPE llamacpp:prompt_tokens_cached_total counter",
            "llamacpp:prompt_tokens_cached_total 4",
            "# TYPE llamacpp:tokens_predicted_total counter",
            f"llamacpp:tokens_predicted_total {self.predicted}",
            f"llamacpp:requests_processing {self.running}",
            "llamacpp:requests_deferred 1",
        ]
        return "".join(f"{line}\n" for line in lines).encode()


class Router:
    """Answers as the real one does, and takes it ill if a question would load a model, or wake one without need."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.models: dict[str, Model] = {}
        self.build = "b11669-Debian"
        self.no_slots = False
        self.harm: list[str] = []
        server.serve("/v1/models", self._list)
        server.serve("/props", self._props)
        server.serve("/metrics", self._metrics)
        server.serve("/slots", self._slots)

    def asked(self) -> list[str]:
        return [f"{r.path}?{r.query}".rstrip("?") for r in self.server.requests]

    def _list(self, _: Request) -> Reply:
        data = [
            {"id": name, "owned_by": "llamacpp", "status": {"value": model.state, "args": model.args}}
            for name, model in self.models.items()
        ]
        return _json({"data": data})

    def _props(self, request: Request) -> Reply:
        if request.query:
            self._model(request)
        return _json({"role": "router", "default_generation_settings": {"params": None}, "build_info": self.build})

    def _metrics(self, request: Request) -> Reply:
        model = self._model(request)
        if model is None:
            return _json({"error": {"code": 400, "message": "model name is missing from the request"}}, "400 Bad Request")
        return answer(model.page(), status=model.status, headers="Connection: close\r\n")

    def _slots(self, request: Request) -> Reply:
        model = self._model(request)
        if model is None or not model.running:
            self.harm.append("slots of a model that runs nothing")
            return _json([])
        if self.no_slots:
            return _json({"error": {"code": 501}}, "501 Not Implemented")
        return _json([{"is_processing": True, "next_token": [{"n_decoded": model.slots}]}])

    def _model(self, request: Request) -> Model | None:
        """The one that is named, if it is loaded."""
        query = parse_qs(request.query)
        if query.get("autoload") != ["false"] and "model" in query:
            self.harm.append(f"loads {query['model']}")
        model = self.models.get(query.get("model", [""])[0])
        return model if model is not None and model.state in ("loaded", "sleeping") else None


def _json(said: Any, status: str = "200 OK") -> bytes:
    return answer(json.dumps(said).encode(), status=status, content_type="application/json")


def generation(model: str) -> SeriesKey:
    return SeriesKey(model, "generation", "")


@pytest.fixture
def router(server: FakeServer) -> Router:
    return Router(server)


@pytest.mark.parametrize("engine", ["auto", "llamacpp"])
def test_the_models_that_are_loaded_are_read_as_one_server(engine: str, router: Router, scraper: Make) -> None:
    router.models = {"a": Model(predicted=100), "b": Model("unloaded"), "c": Model(predicted=7), "d": Model("loading")}
    chat = scraper(router.server.url, engine=engine)
    for _ in range(2):
        got = good(chat.scrape())
        assert (got.engine, got.version, got.update, got.cached) == ("llamacpp", "b11669-Debian", "completion", "known")
        assert (got.running, got.waiting, got.asleep, got.in_flight) == (0, 2, False, None)
        assert {key.model for key in got.counters} == {"a", "c"}
        assert (got.counters[generation("a")], got.counters[generation("c")], len(got.counters)) == (100, 7, 6)
    assert router.harm == []
    assert router.asked()[-3:] == ["/v1/models", "/metrics?model=a&autoload=false", "/metrics?model=c&autoload=false"]


def test_without_a_model_it_is_up_and_counts_nothing(router: Router, scraper: Make) -> None:
    chat = scraper(router.server.url)
    for models in ({}, {"a": Model("unloaded")}, {}):
        router.models = models
        got = good(chat.scrape())
        assert (got.engine, got.counters, got.running, got.asleep) == ("llamacpp", {}, 0, False)
    router.models = {"a": Model(predicted=5)}
    assert good(chat.scrape()).counters[generation("a")] == 5
    router.models["a"].state = "unloaded"
    assert good(chat.scrape()).counters == {}


def test_a_model_that_goes_between_the_list_and_its_page_is_left_out(router: Router, scraper: Make) -> None:
    router.models = {"a": Model(predicted=1), "b": Model(predicted=2)}
    chat = scraper(router.server.url)
    good(chat.scrape())
    router.models["a"].status = "400 Bad Request"
    assert {key.model for key in good(chat.scrape()).counters} == {"b"}


def test_names_are_quoted(router: Router, scraper: Make) -> None:
    names = ["org/model:Q4&autoload=true", "ü #1?x=%20"]
    router.models = {name: Model(predicted=3, running=1) for name in names}
    got = good(scraper(router.server.url).scrape())
    assert {key.model for key in got.counters} == set(names)
    assert router.harm == []


def test_tokens_in_flight_are_asked_of_those_that_run(router: Router, scraper: Make) -> None:
    router.models = {"a": Model(running=1, slots=12), "b": Model(), "c": Model(running=2, slots=30)}
    chat = scraper(router.server.url)
    got = good(chat.scrape())
    assert (got.running, got.update, got.in_flight) == (3, "step", {"a": 12, "c": 30})
    assert [asked for asked in router.asked() if "slots" in asked] == [f"/slots?model={m}&autoload=false" for m in "ac"]
    for model in router.models.values():
        model.running = 0
    got = good(chat.scrape())
    assert (got.update, got.in_flight) == ("step", None)
    assert router.harm == []


def test_models_that_show_no_slots_are_asked_once(router: Router, scraper: Make) -> None:
    router.models, router.no_slots = {"a": Model(running=1), "b": Model(running=1)}, True
    chat = scraper(router.server.url)
    for _ in range(3):
        got = good(chat.scrape())
        assert (got.update, got.in_flight) == ("completion", None)
    assert len(router.server.asked("/slots")) == 1


def test_models_that_sleep_are_read_from_the_cache(router: Router, scraper: Make) -> None:
    router.models = {"a": Model("sleeping", predicted=9), "b": Model("loaded")}
    for model in router.models.values():
        model.args += ["--sleep-idle-seconds", "60"]
    chat = scraper(router.server.url)
    assert good(chat.scrape()).asleep is False
    router.models["b"].state = "sleeping"
    got = good(chat.scrape())
    assert (got.asleep, got.counters[generation("a")]) == (True, 9)


def test_a_build_that_reading_keeps_awake_is_left_alone(router: Router, scraper: Make) -> None:
    router.build, router.models = "b9760-abc", {"a": Model()}
    chat = scraper(router.server.url)
    good(chat.scrape())
    router.models["a"].args += ["--sleep-idle-seconds", "60"]
    before = len(router.server.asked("/metrics"))
    failure = bad(chat.scrape())
    assert (failure.not_metered, len(router.server.asked("/metrics"))) == ("llamacpp", before)
    assert "upgrade" in failure.reason


def test_one_that_cannot_be_read_leaves_no_half_reading(router: Router, scraper: Make) -> None:
    router.models = {"a": Model(), "b": Model()}
    chat = scraper(router.server.url)
    router.models["b"].status = "503 Service Unavailable"
    assert bad(chat.scrape()).reason.startswith("HTTP 503 for /metrics?model=b")
    router.models["b"].status = "501 Not Implemented"
    failure = bad(chat.scrape())
    assert failure.not_metered == "llamacpp"
    assert "--metrics" in failure.reason
    router.models["b"].status = "200 OK"
    assert {key.model for key in good(chat.scrape()).counters} == {"a", "b"}


def test_more_models_than_any_host_has_are_refused(router: Router, scraper: Make) -> None:
    router.models = {f"m{i}": Model() for i in range(33)}
    assert "33 models" in bad(scraper(router.server.url).scrape()).reason
    assert all("model=" not in asked for asked in router.asked())


def test_it_is_not_asked_in_passing(router: Router, scraper: Make) -> None:
    router.models = {"a": Model(predicted=1)}
    chat = scraper(router.server.url)
    good(chat.scrape())
    before = len(router.server.requests)
    assert chat.scrape_quickly(1) is None
    assert len(router.server.requests) == before


def test_a_plain_server_on_its_port_is_found_out(router: Router, scraper: Make) -> None:
    router.models = {"a": Model(predicted=1)}
    chat = scraper(router.server.url)
    good(chat.scrape())
    forget(router.server)
    be_engine(router.server, "llamacpp-2026-11")
    assert {key.model for key in good(chat.scrape()).counters} == {"m"}
    forget(router.server)
    Router(router.server).models["b"] = Model()
    bad(chat.scrape())
    assert {key.model for key in good(chat.scrape()).counters} == {"b"}
    forget(router.server)
    be_vllm(router.server)
    assert good(chat.scrape()).engine == "vllm"


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/slots", "/props", "/%6detrics"])
@pytest.mark.parametrize(
    ("query", "allowed"),
    [
        ("", True),
        ("?model=a&autoload=false", True),
        ("?autoload=false&model=a", True),
        ("?model=a", False),
        ("?model=", False),
        ("?mod%65l=a", False),
        ("?model=a&autoload=true", False),
        ("?model=a&autoload=", False),
        ("?model=a&autoload=false&autoload=true", False),
        ("?model=a%26autoload=false", False),
    ],
)
def test_no_question_that_loads_a_model_can_be_put(path: str, query: str, allowed: bool) -> None:
    endpoint = Endpoint(ServerTarget("x", "http://127.0.0.1:1"))
    endpoint.forbidden = dict(LLAMACPP.never)
    assert (endpoint.forbids(path + query) is None) == allowed
