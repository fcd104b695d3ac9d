"""docs/engines.md is what the table of engines makes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tokenwatt.servers.engines import ENGINES, NOT_METERED
from tokenwatt.servers.engines.description import Engine, NotMetered
from tokenwatt.servers.engines.docs import Cost, page

ROOT = Path(__file__).parents[2]


def test_the_committed_page_agrees_with_the_engines() -> None:
    command = [sys.executable, "-m", "tokenwatt.servers.engines.docs"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    assert (ROOT / "docs" / "engines.md").read_text() == made, "run: python -m tokenwatt.servers.engines.docs > docs/engines.md"


def test_every_engine_is_on_it_with_every_name_it_is_read_by() -> None:
    lines = page({}).splitlines()
    for engine in ENGINES.values():
        mine = "\n".join(line for line in lines if line.startswith(f"| {engine.name} |"))
        counted = [c.name for c in engine.counters().values() if c.kind is not None or c.kinds]
        assert counted
        assert all(f"`{name}" in mine for name in counted)
        assert all(f"`{path}`" in mine for path in engine.metrics_paths)
        assert all(f"| `{path}` | {why} |" in mine for path, why in engine.never)


def test_every_row_has_as_many_cells_as_its_title() -> None:
    columns = 0
    for line in page({}).splitlines():
        cells = line.count("|") if line.startswith("|") else 0
        assert cells in (0, columns) or columns == 0, line
        columns = cells


def test_what_was_measured_is_on_it_and_what_was_not_is_told() -> None:
    cost = Cost(version="1.2", page="/metrics/?name[]", bytes=51234, cpu_ms=2.3, date="2026-11-23", machine="2 cores")
    text = page({"vllm": [cost]})
    assert "| vllm | 1.2 | `/metrics/?name[]` | 51,234 | 2.3 ms | 2026-11-23, 2 cores |" in text
    assert "| vllm | - |" not in text
    assert "| sglang | - | - | - | - | - |" in text


def test_what_cannot_be_metered_says_why_and_what_would_help() -> None:
    text = page({})
    assert all(f"- {software.name} cannot be metered, because {software.because}." in text for software in NOT_METERED)
    assert all("tokenwatt proxy" in s.because or "are metered where they run" in s.because for s in NOT_METERED)
    assert all(s.owned_by or s.identity or s.page for s in NOT_METERED)


def test_nothing_that_is_known_a_server_by_is_known_two_by() -> None:
    known: list[Engine | NotMetered] = [*ENGINES.values(), *NOT_METERED]
    owners = [owner for one in known for owner in one.owned_by]
    answers = [answer for one in known for answer in one.identity]
    assert len(set(owners)) == len(owners)
    assert len(set(answers)) == len(answers)


def test_no_path_is_both_asked_and_never_asked() -> None:
    for engine in ENGINES.values():
        asked = {*engine.metrics_paths, *(a.path for a in (*engine.identity, *engine.version, *engine.model, *engine.asleep))}
        assert asked.isdisjoint(path for path, _ in engine.never)
