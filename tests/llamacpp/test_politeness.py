"""Looking at a real llama-server neither wakes a model that sleeps nor loads one."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.llamacpp.conftest import Start
from tests.vllm.ledger import followed
from tokenwatt.servers.scrape import Scraper
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import ServerFailure, ServerReading

pytestmark = pytest.mark.llamacpp

IDLE_S = 2


def test_a_server_falls_asleep_while_it_is_read_and_sleeps_on(start: Start, model: Path) -> None:
    server = start("--model", str(model), "--alias", "tiny", "--metrics", "--sleep-idle-seconds", str(IDLE_S))
    with followed(server.url) as ledger:
        counted = server.stream("before it sleeps", max_tokens=3000)
        ledger.agrees(counted)
        assert ledger.wait(lambda: ledger.readings[-1].asleep is True, timeout_s=5 * IDLE_S)
        # Longer than its patience: whatever wakes it would show.
        seen = len(ledger.readings)
        until = time.monotonic() + 1.5 * IDLE_S
        assert ledger.wait(lambda: time.monotonic() > until and len(ledger.readings) >= seen + 5)
        assert all(r.asleep for r in ledger.readings[seen:])
        assert server.asleep()
        assert {tuple(r.counters.values()) for r in ledger.readings[seen:]} == {tuple(ledger.readings[seen].counters.values())}

        counted += server.complete("it wakes for a request", max_tokens=25)
        ledger.agrees(counted)
        assert ledger.readings[-1].listener == ledger.readings[0].listener
        assert not ledger.failures


def test_a_router_is_read_and_loads_nothing(start: Start, model: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for name in ("alpha", "beta"):
        shutil.copy(model, models / f"{name}.gguf")
    router = start("--models-dir", str(models), "--metrics")

    def loaded() -> set[str]:
        return {m["id"] for m in router.get("/v1/models")[1]["data"] if m["status"]["value"] != "unloaded"}

    def tokens() -> dict[tuple[str, str], int]:
        reading = scraper.scrape()
        assert isinstance(reading, ServerReading), reading
        return {(key.model, key.kind): n for key, n in reading.counters.items() if n}

    scraper = Scraper(ServerTarget("router", router.url))
    for _ in range(3):
        assert tokens() == {}
    assert loaded() == set()
    counted = {("beta", kind): n for kind, n in router.complete("the first request loads it", max_tokens=20, model="beta").items() if n}
    assert tokens() == counted
    assert loaded() == {"beta"}
    counted |= {("alpha", kind): n for kind, n in router.complete("and another", max_tokens=30, model="alpha").items() if n}
    assert tokens() == counted
    scraper.close()


def test_without_metrics_it_says_what_to_do(start: Start, model: Path) -> None:
    server = start("--model", str(model))
    scraper = Scraper(ServerTarget("tiny", server.url))
    result = scraper.scrape()
    scraper.close()
    assert isinstance(result, ServerFailure)
    assert "--metrics" in result.reason
    assert not result.gone
