"""/metrics says what the snapshot says: exactly, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from prometheus_client.parser import text_string_to_metric_families

from tests.export.snapshots import node, snapshots
from tokenwatt.export.families import FAMILIES
from tokenwatt.export.prometheus import render
from tokenwatt.export.text import encodable
from tokenwatt.snapshot import Snapshot

Series = dict[tuple[str, ...], float]

OPTIONAL_OF_GPU = {
    "gpu_power_watts": "power_mw",
    "gpu_power_limit_watts": "power_limit_mw",
    "gpu_utilization_ratio": "utilization_ratio",
    "gpu_memory_used_bytes": "memory_used_bytes",
    "gpu_memory_total_bytes": "memory_total_bytes",
    "gpu_temperature_celsius": "temperature_celsius",
    "gpu_sm_clock_hertz": "sm_clock_hz",
    "gpu_energy_agreement_ratio": "agreement_ratio",
}
OPTIONAL_OF_SERVER = {
    "server_requests_running": "running",
    "server_requests_waiting": "waiting",
    "server_last_sample_timestamp_seconds": "last_sample_wall_s",
    "server_scrape_duration_seconds": "scrape_duration_s",
    "server_scrape_bytes": "scrape_bytes",
}


def parsed(page: bytes) -> dict[str, Series]:
    """Samples by name and label values, as client_python's parser reads them."""
    out: dict[str, Series] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            series = out.setdefault(sample.name.removeprefix("tokenwatt_"), {})
            labels = _in_order(sample.name, sample.labels)
            assert labels not in series, "a series is there twice"
            series[labels] = sample.value
    return out


def _in_order(name: str, labels: dict[str, str]) -> tuple[str, ...]:
    (family,) = (f for f in FAMILIES if f.name == name)
    assert set(labels) == set(family.labels)
    return tuple(labels[label] for label in family.labels)


def _labels(*values: str) -> tuple[str, ...]:
    return tuple(encodable(v) for v in values)


def _micro(series: Series) -> dict[tuple[str, ...], int]:
    return {labels: round(Fraction(value) * 10**6) for labels, value in series.items()}


@given(snapshots())
@settings(max_examples=30, deadline=None)
def test_the_page_says_what_the_snapshot_says(snapshot: Snapshot) -> None:
    page = parsed(render(snapshot))
    _check_bit_for_bit(page, snapshot)
    _check_exact(page, snapshot)
    _check_absent(page, snapshot)


def _check_bit_for_bit(page: dict[str, Series], snapshot: Snapshot) -> None:
    left = dict(page)
    for family in FAMILIES:
        expected = {_labels(*labels): value for labels, value in family.collect(snapshot)}
        assert left.pop(family.name.removeprefix("tokenwatt_"), {}) == expected
    assert left == {}


def _check_exact(page: dict[str, Series], snapshot: Snapshot) -> None:
    """Energies to the microjoule, tokens to the token."""
    gpus = {_labels(str(g.gpu.index), g.gpu.uuid): g for g in snapshot.gpus}
    models = {_labels(s.name, m.model): m for s in snapshot.servers for m in s.models}
    assert _micro(page.get("gpu_energy_joules_total", {})) == {k: g.energy_uj for k, g in gpus.items() if g.energy_uj is not None}
    assert _micro(page.get("unattributed_energy_joules_total", {})) == {
        k: g.unattributed_uj for k, g in gpus.items() if g.unattributed_uj is not None
    }
    assert _micro(page.get("pending_energy_joules", {})) == {_labels(s.name): s.pending_uj for s in snapshot.servers}
    assert _micro(page.get("energy_joules_total", {})) == {(*k, state): uj for k, m in models.items() for state, uj in m.energy_uj.items()}
    assert page.get("tokens_total", {}) == {(*k, kind): n for k, m in models.items() for kind, n in m.tokens.items()}


def _check_absent(page: dict[str, Series], snapshot: Snapshot) -> None:
    """What is None has no series, and what is not has one."""
    gpus = {_labels(str(g.gpu.index), g.gpu.uuid): g for g in snapshot.gpus}
    servers = {_labels(s.name): s for s in snapshot.servers}
    for name, field in OPTIONAL_OF_GPU.items():
        assert set(page.get(name, {})) == {k for k, g in gpus.items() if getattr(g, field) is not None}
    for name, field in OPTIONAL_OF_SERVER.items():
        assert set(page.get(name, {})) == {k for k, s in servers.items() if getattr(s, field) is not None}
    groups = {_labels(s.name, s.group) for s in snapshot.servers if s.group is not None}
    assert set(page.get("server_group_info", {})) == groups


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_number_is_left_out(value: float) -> None:
    snapshot = node(1, 0)
    page = parsed(render(replace(snapshot, gpus=(replace(snapshot.gpus[0], agreement_ratio=value),))))
    assert "gpu_energy_agreement_ratio" not in page
    assert len(page["gpu_power_watts"]) == 1


def test_every_family_shows_help_and_type_once_also_without_samples() -> None:
    lines = render(node(0, 0)).decode().splitlines()
    assert [line for line in lines if line.startswith("# HELP")] == [f"# HELP {f.name} {f.help}" for f in FAMILIES]
    assert [line for line in lines if line.startswith("# TYPE")] == [f"# TYPE {f.name} {f.type}" for f in FAMILIES]


def test_there_are_no_created_series() -> None:
    assert b"_created" not in render(node())


def test_labels_are_escaped() -> None:
    snapshot = node(0, 1)
    (server,) = snapshot.servers
    page = render(replace(snapshot, servers=(replace(server, name='a"b\\c\nd'),)))
    assert rb'tokenwatt_server_up{server="a\"b\\c\nd"} 1.0' in page.splitlines()


def test_half_a_surrogate_pair_does_not_take_down_the_page() -> None:
    snapshot = node(0, 1)
    (server,) = snapshot.servers
    page = render(replace(snapshot, servers=(replace(server, name="caf\u00e9 \ud83d"),)))
    assert 'tokenwatt_server_up{server="caf\u00e9 ?"} 1.0' in page.decode().splitlines()


def test_promtool_has_no_complaint() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not os.environ.get("CI"), "promtool is missing (Debian's package prometheus has it)"
        pytest.skip("promtool is missing (Debian's package prometheus has it)")
    done = subprocess.run([promtool, "check", "metrics"], input=render(node()), capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
