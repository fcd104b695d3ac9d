"""What is shown loads back to the same settings, says where each value is from, and holds no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.settings.conftest import Load
from tests.settings.test_load import CONTRACT, FULL
from tokenwatt.settings.load import load
from tokenwatt.settings.model import Settings
from tokenwatt.settings.show import show


@pytest.mark.parametrize("text", ["", CONTRACT, FULL])
def test_what_is_shown_loads_back(load_text: Load, text: str) -> None:
    loaded = load_text(text)
    shown = show(loaded.settings, loaded.origins)
    assert load_text(shown).settings == loaded.settings


TRAPS = [
    "off",
    "null",
    "1e3",
    "12:30",
    "0x1f",
    "- a",
    "a: b",
    "#a",
    "<<",
    "=",
    "~",
    "2026-01-01",
    "é",
    "'",
    "a,b",
    "1_0",
    "@",
    "\U0001f525",
]
NAMES = st.one_of(st.text(min_size=1), st.sampled_from(TRAPS)).filter(
    lambda t: t == t.strip() and t.isprintable() and t != "retired" and len(t) <= 128
)
PRICES = st.floats(0, 1e9)
SERVERS = st.lists(
    st.fixed_dictionaries(
        {"url": st.integers(1, 65535).map("http://10.0.0.1:{}".format)},
        optional={
            "name": NAMES,
            "gpus": st.lists(st.one_of(st.integers(0, 1023), st.uuids().map("GPU-{}".format)), min_size=1, unique=True),
            "group": NAMES,
            "api_key_file": NAMES.map("/run/{}".format),
        },
    ),
    unique_by=(lambda s: s["url"], lambda s: s.get("name", s["url"])),
    max_size=4,
)
ANY = st.fixed_dictionaries(
    {},
    optional={
        "listen": st.sampled_from(["0.0.0.0:0", "[::1]:9", "localhost:80"]),
        "sampling": st.fixed_dictionaries({"power": st.integers(20, 200).map("{}ms".format)}),
        "windows": st.lists(st.integers(2, 86_400), min_size=1, max_size=5, unique=True).map(lambda ws: [f"{w}s" for w in ws]),
        "host": st.sampled_from(["auto", "off"]),
        "servers": SERVERS,
        "cost": st.fixed_dictionaries(
            {}, optional={"gpu_hourly": st.dictionaries(NAMES, PRICES, max_size=3), "pue": st.floats(1, 10), "energy_price_per_kwh": PRICES}
        ),
        "store": st.fixed_dictionaries({"path": NAMES.filter(lambda t: not t.startswith("~"))}),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=50)
@given(ANY)
def test_anything_that_is_shown_loads_back(load_text: Load, data: dict[str, Any]) -> None:
    written = load_text(yaml.safe_dump(data, default_style='"', allow_unicode=True))
    shown = show(written.settings, written.origins)
    assert load_text(shown).settings == written.settings
    yaml.safe_load(shown)  # what other programs read it with


def test_what_is_not_a_default_has_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("sampling: {power: 100ms, tokens: 2s}\nservers:\n  - url: http://a:1\nstore:\n  keep: 7d\n")
    loaded = load(path, {"TOKENWATT_WINDOWS": "1m"}, {"listen": "127.0.0.1:0"})
    lines = show(loaded.settings, loaded.origins).splitlines()
    assert [line for line in lines if "#" in line] == [
        "listen: 127.0.0.1:0  # --listen",
        f"  tokens: 2s  # {path}:1",
        "windows: [1m]  # TOKENWATT_WINDOWS",
        f"    url: http://a:1  # {path}:3",
        f"  keep: 7d  # {path}:5",
    ]
    assert "  - name: vllm-1" in lines
    assert "  power: 100ms" in lines


def test_a_key_in_a_query_is_not_shown(load_text: Load) -> None:
    loaded = load_text('cost: {source: {url: "https://a/b?key=hunter2", json_path: c}}')
    shown = show(loaded.settings, loaded.origins)
    assert "hunter2" not in shown
    assert ", query not shown" in next(line for line in shown.splitlines() if "***" in line)


def test_settings_made_in_code_are_shown_too() -> None:
    assert "#" not in show(Settings(), {})
