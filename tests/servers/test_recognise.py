"""Who is asked what, and in which order, before a server is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.conftest import Make, bad, good
from tests.servers.engine_servers import answer_json, be_engine, be_known, forget, page_of, pages
from tests.servers.fake_server import NO_TOKENS, FakeServer, answer, be_vllm, vllm_page
from tokenwatt.servers.engines import ENGINES, NOT_METERED
from tokenwatt.servers.engines.description import Engine, NotMetered

WHO = ("/info", "/v1/metadata", "/api/version", "/health/readiness")
"""What is asked of who does not say in its list of models."""

ANYWHERE = ("/engine_metrics", "/prometheus/metrics", "/v1/metrics", "/metrics")
"""Where the page of who does not say is looked for. The last may be drained by reading."""

ASKED = {
    "aphrodite-0.24": ("/v1/models", "/metrics", "/version"),
    "dynamo-1.6.1-frontend": ("/v1/models", *WHO, *ANYWHERE),
    "kserve-0.21": ("/v1/models", *WHO, *ANYWHERE),
    "lemonade-2026.11": ("/v1/models", "/metrics", "/api/v1/health"),
    "llamacpp-2026-11": ("/v1/models", "/props", "/metrics", "/slots"),
    "lmdeploy-0.18": ("/v1/models", "/metrics"),
    "localai-2026.11": ("/v1/models", *WHO, *ANYWHERE),
    "mistralrs-two-counters": ("/v1/models", *WHO, *ANYWHERE),
    "nim-1.x": ("/v1/models", "/info", "/v1/metadata", "/v1/metrics", "/v1/version"),
    "ray-2.60": ("/v1/models", *WHO, *ANYWHERE),
    "sglang-0.5.23": ("/v1/models", "/metrics", "/server_info"),
    "tei-1.8": ("/v1/models", "/info", "/metrics"),
    "tgi-3.3": ("/v1/models", "/info", "/metrics"),
    "triton-tensorrtllm-backend": ("/v1/models", "/metrics"),
    "trtllm-1.3": ("/v1/models", "/prometheus/metrics", "/version"),
    "vllm-0.33.0.trimmed": ("/v1/models", "/metrics/", "/metrics", "/version"),
    "xinference-4.1": ("/v1/models", "/metrics"),
}


def asked(server: FakeServer) -> list[str]:
    return [request.path for request in server.requests]


def test_each_engine_is_here() -> None:
    assert {page_of(name)[1]["engine"] for name in ASKED} == set(ENGINES)


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_and_in_which_order(name: str, server: FakeServer, scraper: Make) -> None:
    engine = be_engine(server, name)
    assert good(scraper(server.url).scrape()).engine == engine.name
    assert tuple(asked(server)) == ASKED[name]


@pytest.mark.parametrize("name", pages())
def test_each_page_is_recognised(name: str, server: FakeServer, scraper: Make) -> None:
    engine = be_engine(server, name)
    got = good(scraper(server.url).scrape())
    assert got.engine == engine.name
    assert "" not in {key.model for key in got.counters} or not (engine.owned_by or engine.model)


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize("mood", ["well", "no page", "no counters", "busy", "wants a key"])
@pytest.mark.parametrize("name", ASKED)
def test_what_an_engine_forbids_is_never_asked(name: str, mood: str, configured: bool, server: FakeServer, scraper: Make) -> None:
    engine = be_engine(server, name)
    for path, _ in engine.never:
        server.serve(path.partition("?")[0], server.paths.get(path.partition("?")[0], answer(b"harm")))
    if mood == "no page":
        forget(server)
        be_known(server, engine)
    elif mood == "no counters":
        server.serve(engine.metrics_paths[0], answer(NO_TOKENS))
    elif mood == "busy":
        for path in list(server.paths):
            answer_json(server, path, {}, status="503 Service Unavailable")
    elif mood == "wants a key":
        answer_json(server, "/v1/models", {"error": "Unauthorized"}, status="401 Unauthorized")
    chat = scraper(server.url, engine=engine.name if configured else "auto")
    for _ in range(2):
        chat.scrape()
    forbidden = {path for path, _ in engine.never if "?" not in path}
    if mood == "wants a key" and not configured:
        forbidden -= {"/metrics"}  # trtllm-serve takes no keys: who wants one is another
    assert not forbidden & {path.rstrip("/") for path in asked(server)}
    assert not [r for r in server.requests if "model=" in r.query]
    assert server.requests


def test_a_metrics_path_of_the_settings_is_not_asked_where_the_engine_forbids_it(server: FakeServer, scraper: Make) -> None:
    be_engine(server, "trtllm-1.3")
    failure = bad(scraper(server.url, engine="trtllm", metrics_path="/metrics/").scrape())
    assert failure.reason.startswith("/metrics/ is not asked: hands out JSON")
    assert asked(server) == []


def test_as_long_as_nothing_is_said_the_page_that_one_engine_drains_is_left(server: FakeServer, scraper: Make) -> None:
    answer_json(server, "/v1/models", {}, status="503 Service Unavailable")
    server.serve("/metrics", answer(vllm_page()))
    bad(scraper(server.url).scrape())
    assert server.asked("/metrics") == server.asked("/metrics/") == []
    be_vllm(server)
    assert good(scraper(server.url).scrape()).engine == "vllm"


def test_who_says_nothing_is_asked_last_where_one_engine_is_drained(server: FakeServer, scraper: Make) -> None:
    body, said = page_of("trtllm-1.3")
    server.serve("/prometheus/metrics", answer(body, content_type=said["content_type"]))
    chat = scraper(server.url)
    for _ in range(2):
        assert good(chat.scrape()).engine == "trtllm"
    assert server.asked("/metrics") == []


def test_a_list_of_models_that_wants_a_key_is_no_end(server: FakeServer, scraper: Make) -> None:
    be_vllm(server)
    answer_json(server, "/v1/models", {"error": "Unauthorized"}, status="401 Unauthorized")
    got = good(scraper(server.url).scrape())
    assert (got.engine, got.version) == ("vllm", "0.32.0")


# --- engines inside others ---------------------------------------------------------------------------------------------------------------


def own_models(server: FakeServer, owner: str) -> None:
    answer_json(server, "/v1/models", {"data": [{"id": "m", "owned_by": owner}]})


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("kserve-0.21-idle", "vllm"),
        ("triton-vllm-backend", "vllm"),
        ("dynamo-1.6.1-worker-vllm", "vllm"),
        ("dynamo-1.6.1-worker-sglang", "sglang"),
        ("nim-2.x-vllm", "vllm"),
    ],
)
def test_a_server_whose_models_belong_to_the_engine_inside_is_known_by_its_page(
    name: str, owner: str, server: FakeServer, scraper: Make
) -> None:
    body, said = page_of(name)
    engine = ENGINES[said["engine"]]
    server.serve(engine.metrics_paths[0], answer(body, content_type=said["content_type"]))
    own_models(server, owner)
    chat = scraper(server.url)
    for _ in range(2):
        assert good(chat.scrape()).engine == engine.name


def test_where_the_engine_inside_shows_no_counters_the_one_around_it_is_asked(server: FakeServer, scraper: Make) -> None:
    own_models(server, "vllm")
    server.serve("/metrics", answer(NO_TOKENS))
    body, said = page_of("nim-1.x")
    server.serve("/v1/metrics", answer(body, content_type=said["content_type"]))
    assert good(scraper(server.url).scrape()).engine == "nim"
    assert asked(server) == ["/v1/models", "/metrics/", "/metrics", "/v1/metrics", "/v1/version", "/v1/metadata"]


@pytest.mark.parametrize("missing", [True, False])
def test_where_nobody_shows_them_they_are_switched_off(missing: bool, server: FakeServer, scraper: Make) -> None:
    own_models(server, "vllm")
    if not missing:
        server.serve("/metrics", answer(NO_TOKENS))
    failure = bad(scraper(server.url).scrape())
    assert failure.not_metered == "vllm"
    assert failure.reason.startswith("vllm cannot be metered, because " + ("HTTP 404 for /metrics" if missing else "/metrics has no"))
    assert "vllm:generation_tokens_total" in failure.reason or missing


# --- keys --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_server_that_wants_a_key_for_all_says_so(key: str | None, tmp_path: Path, server: FakeServer, scraper: Make) -> None:
    for path in ("/v1/models", "/props", *WHO, *ANYWHERE):
        answer_json(server, path, {"error": "Unauthorized"}, status="401 Unauthorized")
    file = None
    if key is not None:
        file = tmp_path / "key"
        file.write_text(key)
        file.chmod(0o600)
    failure = bad(scraper(server.url, api_key_file=file).scrape())
    says = "it wants a key, give api_key_file" if key is None else "the key in api_key_file is not accepted"
    assert failure.reason == f"HTTP 401 for /metrics: {says}"
    assert failure.not_metered is None


# --- pages before the first request ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"# TYPE x counter\n"])
@pytest.mark.parametrize(("engine", "configured"), [("tgi", True), ("tgi", False), ("tei", True), ("tei", False), ("localai", True)])
def test_a_page_with_nothing_yet_is_a_reading_where_the_engine_is_known(
    engine: str, configured: bool, body: bytes, server: FakeServer, scraper: Make
) -> None:
    be_known(server, ENGINES[engine])
    server.serve("/metrics", answer(body))
    chat = scraper(server.url, engine=engine if configured else "auto")
    for _ in range(2):
        got = good(chat.scrape())
        assert (got.engine, got.counters) == (engine, {})
    page, said = page_of({"tgi": "tgi-3.3", "tei": "tei-1.8", "localai": "localai-2026.11"}[engine])
    server.serve("/metrics", answer(page, content_type=said["content_type"]))
    assert good(chat.scrape()).counters


@pytest.mark.parametrize("engine", ["vllm", "auto"])
def test_an_empty_page_of_another_is_none(engine: str, server: FakeServer, scraper: Make) -> None:
    server.serve("/metrics", answer(b""))
    assert "the page is empty" in bad(scraper(server.url, engine=engine).scrape()).reason


# --- servers without counters ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [n for n in NOT_METERED if n.owned_by or n.identity], ids=lambda n: n.name)
def test_a_server_that_has_no_counters_is_named(known: NotMetered, server: FakeServer, scraper: Make) -> None:
    be_known(server, known)
    chat = scraper(server.url)
    for _ in range(2):
        failure = bad(chat.scrape())
        assert failure.not_metered == known.name
        assert failure.reason == f"{known.name} cannot be metered, because {known.because}"


@pytest.mark.parametrize(("known", "beginning"), [(n, b) for n in NOT_METERED for b in n.page], ids=str)
def test_a_page_that_cannot_be_read_is_named(known: NotMetered, beginning: str, server: FakeServer, scraper: Make) -> None:
    server.serve("/metrics", answer(f"# TYPE x counter\n{beginning}x 5\n".encode()))
    assert bad(scraper(server.url).scrape()).not_metered == known.name


def test_a_server_that_only_looks_like_one_without_counters_is_read(server: FakeServer, scraper: Make) -> None:
    be_engine(server, "localai-2026.11")
    answer_json(server, "/api/version", {"version": "3.0"})  # for the clients of Ollama
    assert good(scraper(server.url).scrape()).engine == "localai"


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize("status", ["404 Not Found", "501 Not Implemented", ""])
@pytest.mark.parametrize("engine", [e for e in ENGINES.values() if e.owned_by], ids=lambda e: e.name)
def test_counters_that_are_switched_off_are_not_metered(
    engine: Engine, status: str, configured: bool, server: FakeServer, scraper: Make
) -> None:
    be_known(server, engine)
    for path in engine.metrics_paths:
        server.serve(path, answer(b"off", status=status) if status else answer(NO_TOKENS))
    failure = bad(scraper(server.url, engine=engine.name if configured else "auto").scrape())
    assert failure.not_metered == engine.name
    assert failure.reason.startswith(f"{engine.name} cannot be metered, because ")
    assert failure.reason.endswith(f"({engine.no_counters})")


def test_a_server_that_nobody_knows_says_what_to_do(server: FakeServer, scraper: Make) -> None:
    server.serve("/metrics", answer(NO_TOKENS))
    failure = bad(scraper(server.url).scrape())
    assert failure.not_metered is None
    assert "engine generic" in failure.reason


# --- another server on the port ----------------------------------------------------------------------------------------------------------


def test_another_engine_on_the_port_is_recognised_anew(server: FakeServer, scraper: Make) -> None:
    be_vllm(server)
    chat = scraper(server.url)
    assert good(chat.scrape()).engine == "vllm"
    forget(server)
    be_engine(server, "sglang-0.5.23")
    got = good(chat.scrape())
    assert (got.engine, got.version) == ("sglang", "1.2.3")
    forget(server)
    be_engine(server, "trtllm-1.3")
    before = len(server.requests)
    chat.scrape()
    assert good(chat.scrape()).engine == "trtllm"
    # The page of the engine before was asked for once: it was known to be that one, and nobody can know before asking.
    assert [p for p in asked(server)[before:] if p in ("/metrics", "/metrics/")] == ["/metrics"]


def test_a_configured_engine_is_never_looked_for_otherwise(server: FakeServer, scraper: Make) -> None:
    be_engine(server, "sglang-0.5.23")
    chat = scraper(server.url, engine="vllm")
    for _ in range(3):
        assert bad(chat.scrape()).not_metered == "vllm"
    assert set(asked(server)) == {"/metrics", "/metrics/"}


@pytest.mark.parametrize("engine", ["auto", "sglang"])
def test_a_router_of_sglang_is_read_at_its_own_path(engine: str, server: FakeServer, scraper: Make) -> None:
    body, said = page_of("sglang-0.5.23-router")
    server.serve("/engine_metrics", answer(body, content_type=said["content_type"]))
    got = good(scraper(server.url, engine=engine).scrape())
    assert (got.engine, got.running, {key.model for key in got.counters}) == ("sglang", said["running"], set(said["tokens"]))
