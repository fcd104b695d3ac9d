"""docs/metrics.md is what the table of families makes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tokenwatt.export.families import FAMILIES

ROOT = Path(__file__).parents[2]


def test_the_committed_page_agrees_with_the_table() -> None:
    command = [sys.executable, "-m", "tokenwatt.export.docs"]
    page = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    assert (ROOT / "docs" / "metrics.md").read_text() == page, "run: python -m tokenwatt.export.docs > docs/metrics.md"
    assert all(f"| `{f.name}` |" in page for f in FAMILIES)
