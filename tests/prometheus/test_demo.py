"""The demo as people run it, scraped by a real Prometheus: PromQL over the paired counters against the meter's own figures."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.process import Daemon
from tests.prometheus.conftest import Prometheus

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(240)]

GENERATED = 'sum by (server) (tokenwatt_tokens_total{kind="generation"}'
JOULES = "sum by (server) (tokenwatt_energy_joules_total"
GAUGE = 'sum by (server) (tokenwatt_tokens_per_joule{tokens="generation", window="1m"})'
LAST_MINUTE = f"({GENERATED}) - {GENERATED} offset 1m)) / ({JOULES}) - {JOULES} offset 1m))"


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, ["demo", "--debug"])
    yield daemon.ready()
    assert daemon.stop() == 0, daemon.log


def test_promql_over_the_counters_agrees_with_the_gauges_and_rest(demo: Daemon, start_prometheus: Callable[[str], Prometheus]) -> None:
    prometheus = start_prometheus(f"127.0.0.1:{demo.port}")
    prometheus.wait_for(f"count({LAST_MINUTE} and {GAUGE}) == 3", timeout_s=120)
    # Both are of one scrape and so of one snapshot. The counters' minute is from interval to interval, the gauge's is 60 s to the
    # nanosecond: with loads that go on and off they differ by what happened in between.
    by_counters, by_gauge = prometheus.query(LAST_MINUTE), prometheus.query(f"{GAUGE} and {LAST_MINUTE}")
    assert by_counters.keys() == by_gauge.keys()
    for server, value in by_counters.items():
        assert by_gauge[server] == pytest.approx(value, rel=0.02), server
    rest = {item["server"]: item["tokens_per_joule"]["generation"] for item in demo.json("/api/v1/efficiency?window=1m")["items"]}
    for server, value in prometheus.query(GAUGE).items():
        assert rest[dict(server)["server"]] == pytest.approx(value, rel=0.05), server
    # Conservation, in PromQL: what was measured is owned, unattributed or pending.
    owned = "sum(tokenwatt_energy_joules_total) + sum(tokenwatt_unattributed_energy_joules_total) + sum(tokenwatt_pending_energy_joules)"
    assert prometheus.value(f"sum(tokenwatt_gpu_energy_joules_total) - ({owned})") == pytest.approx(0, abs=1e-6)
    assert prometheus.value("tokenwatt_simulated") == 1


def test_promtool_is_content(demo: Daemon, promtool: str) -> None:
    status, page = demo.get("/metrics")
    assert status == 200
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
