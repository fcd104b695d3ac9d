"""The JSON of a snapshot: whole, honest about what is not known, and adding up."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings

from tests.export.snapshots import SECOND_NS, node, snapshots
from tokenwatt.export import answers, views
from tokenwatt.export.text import rfc3339
from tokenwatt.snapshot import Snapshot, Window


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def _json(answer: answers.Answer) -> Any:
    """As a client reads it, with numbers to the last digit."""
    return json.loads(answer.model_dump_json(), parse_constant=_refuse, parse_float=Decimal)


def _uj(joules: Decimal | int) -> int:
    return round(Decimal(joules) * 10**6)


@given(snapshots())
@settings(max_examples=30, deadline=None)
def test_a_live_event_reads_back_and_holds_every_key(snapshot: Snapshot) -> None:
    text = views.live(snapshot, snapshot.t_ns).model_dump_json()
    json.loads(text, parse_constant=_refuse)
    assert "\n" not in text, "an event's data is one line"
    # Unknown keys are refused, and no model has a default: a key that is missing is refused too.
    assert answers.Live.model_validate_json(text).model_dump_json() == text


@given(snapshots())
@settings(max_examples=30, deadline=None)
def test_figures_are_exact_and_null_where_unknown(snapshot: Snapshot) -> None:
    gpus, servers = _json(views.gpus(snapshot))["items"], _json(views.servers(snapshot))["items"]
    for g, item in zip(snapshot.gpus, gpus, strict=True):
        for joules, microjoules in ((item["energy_j"], g.energy_uj), (item["unattributed_energy_j"], g.unattributed_uj)):
            assert (None if joules is None else _uj(joules)) == microjoules
        assert (item["power_w"] is None) == (g.power_mw is None)
        assert (item["memory_used_bytes"], item["sm_clock_hz"]) == (g.memory_used_bytes, g.sm_clock_hz)
        assert (item["processes"] is None, item["clock_events"] is None) == (g.processes is None, g.clock_events is None)
    for s, item in zip(snapshot.servers, servers, strict=True):
        assert _uj(item["pending_energy_j"]) == s.pending_uj
        for m, model in zip(s.models, item["models"], strict=True):
            assert {k: v for k, v in model["tokens"].items() if v is not None} == m.tokens
            assert {k: _uj(v) for k, v in model["energy_j"].items() if v is not None} == m.energy_uj


@given(snapshots())
@settings(max_examples=20, deadline=None)
def test_totals_are_sums_of_integers(snapshot: Snapshot) -> None:
    totals = views.status(snapshot, snapshot.t_ns).totals
    sums: list[tuple[float, list[int]]] = [
        (totals.gpu_energy_j, [g.energy_uj or 0 for g in snapshot.gpus]),
        (totals.energy_j, [uj for s in snapshot.servers for m in s.models for uj in m.energy_uj.values()]),
        (totals.unattributed_energy_j, [g.unattributed_uj or 0 for g in snapshot.gpus]),
        (totals.pending_energy_j, [s.pending_uj for s in snapshot.servers]),
    ]
    for joules, parts_uj in sums:
        # The nearest double: a sum of doubles would be off by more after a few terms.
        assert abs(Fraction(joules) - Fraction(sum(parts_uj), 10**6)) <= Fraction(math.ulp(joules)) / 2


def test_energy_of_a_real_node_is_conserved_to_the_microjoule() -> None:
    totals = _json(views.status(node(), 0))["totals"]
    parts = ("energy_j", "unattributed_energy_j", "pending_energy_j")
    assert _uj(totals["gpu_energy_j"]) == sum(_uj(totals[part]) for part in parts)
    assert _uj(totals["energy_j"]) == sum(e for s in node().servers for m in s.models for e in m.energy_uj.values())


def test_efficiency_has_the_fields_of_the_contract() -> None:
    snapshot = node(1, 1, wall_s=1_700_000_000.5)
    answer = _json(views.efficiency(snapshot, snapshot.windows[1]))
    (item,) = answer.pop("items")
    assert answer == {"window_s": 60, "to": "2023-11-14T22:13:20.500Z", "simulated": False}
    tokens = {"generation": 308820, "prompt_computed": 3088200, "prompt_cached": 60000, "unsplit": None}
    per_s = {"generation": Decimal("5147.123"), "prompt_computed": Decimal("51470.5"), "prompt_cached": 1000, "unsplit": None}
    assert {k: v for k, v in item.items() if k != "joules_per_token"} == {
        "server": "chat-0",
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "from": "2023-11-14T22:12:20.250Z",
        "to": "2023-11-14T22:13:20.250Z",
        "coverage_ratio": Decimal("0.9983"),
        "tokens": tokens,
        "energy_j": {"active": Decimal("36007.40736"), "idle": 720, "unobserved": 0},
        "power_w": Decimal("612.123456"),
        "tokens_per_second": per_s,
        "tokens_per_joule": {"generation": Decimal("8.408"), "processed": Decimal("92.49"), "total": Decimal("94.12")},
        "update": "step",
        "cached": "known",
    }
    assert list(item["joules_per_token"]) == ["generation", "processed", "total"]


def test_a_window_of_part_of_a_second_has_its_fraction() -> None:
    snapshot = node(0, 0)
    assert _json(views.efficiency(snapshot, Window("500ms", SECOND_NS // 2)))["window_s"] == Decimal("0.5")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_number_is_null(value: float) -> None:
    snapshot = node(1, 0)
    gpu = replace(snapshot.gpus[0], agreement_ratio=value)
    assert _json(views.gpus(replace(snapshot, gpus=(gpu,))))["items"][0]["agreement_ratio"] is None


@given(snapshots())
@settings(max_examples=10, deadline=None)
def test_instants_are_rfc3339_in_utc_with_milliseconds(snapshot: Snapshot) -> None:
    text = rfc3339(snapshot.wall_s)
    assert text.endswith("Z")
    assert len(text) == len("2023-11-14T22:13:20.500Z")
    assert abs(datetime.fromisoformat(text).astimezone(UTC).timestamp() - snapshot.wall_s) <= 0.001
