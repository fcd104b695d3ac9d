"""What a real Prometheus makes of /metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.export.conftest import Served
from tests.export.snapshots import SECOND_NS, node
from tests.prometheus.conftest import Prometheus
from tokenwatt.export.families import FAMILIES
from tokenwatt.snapshot import Snapshot

pytestmark = pytest.mark.prometheus

STEP_TOKENS = 5000
STEP_UJ = 612_345_678


@pytest.fixture
def served() -> Iterator[Served]:
    """An app without a writer."""
    served = Served()
    yield served
    served.close()


@pytest.fixture
def live() -> Iterator[Served]:
    """An app whose snapshot moves on ten times a second, by the same tokens and the same joules."""
    served = Served()
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.wait(0.1):
            n += 1
            served.publisher.publish(_step(n))

    writer = threading.Thread(target=write)
    writer.start()
    yield served
    stop.set()
    writer.join()
    served.close()


def _step(n: int) -> Snapshot:
    snapshot = node(1, 1)
    (server,) = snapshot.servers
    (model,) = server.models
    model = replace(model, energy_uj={"active": n * STEP_UJ, "idle": 0, "unobserved": 0}, tokens={"generation": n * STEP_TOKENS})
    return replace(snapshot, servers=(replace(server, models=(model,)),))


def test_prometheus_reads_every_family_and_pairs_the_counters(live: Served, start_prometheus: Callable[[str], Prometheus]) -> None:
    prometheus = start_prometheus(f"127.0.0.1:{live.server.port}")
    prometheus.wait_for("count_over_time(tokenwatt_tokens_total[1m]) >= 5")
    assert prometheus.value("up") == 1
    _check_metadata(prometheus)
    # The increases are extrapolated alike, so what was a ratio of whole steps stays one.
    ratio = prometheus.value(
        'sum(increase(tokenwatt_tokens_total{kind="generation"}[1m])) / sum(increase(tokenwatt_energy_joules_total[1m]))'
    )
    assert ratio == pytest.approx(STEP_TOKENS / (STEP_UJ / 1e6), rel=1e-9)
    at = time.time() - 0.5
    steps = prometheus.value('tokenwatt_tokens_total{kind="generation"}', at) / STEP_TOKENS
    assert prometheus.value('tokenwatt_energy_joules_total{state="active"}', at) == steps * STEP_UJ / 1e6


def _check_metadata(prometheus: Prometheus) -> None:
    (target,) = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    known = {name: entries[0] for name, entries in prometheus.get("metadata").items() if name.startswith("tokenwatt_")}
    assert {name: (e["type"], e["help"]) for name, e in known.items()} == {f.name: (f.type, f.help) for f in FAMILIES}


def test_a_meter_that_stopped_is_down_not_idle(served: Served, start_prometheus: Callable[[str], Prometheus]) -> None:
    prometheus = start_prometheus(f"127.0.0.1:{served.server.port}")
    served.publisher.publish(node(t_ns=time.monotonic_ns() + 60 * SECOND_NS))
    prometheus.wait_for("up == 1 and tokenwatt_simulated == 0")
    served.publisher.publish(node(t_ns=time.monotonic_ns() - 11 * SECOND_NS))
    prometheus.wait_for("up == 0")
    assert prometheus.query("tokenwatt_simulated") == {}
    (target,) = prometheus.get("targets")["activeTargets"]
    assert "503" in target["lastError"]
