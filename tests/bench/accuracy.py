"""What the books are worth: an hour of faults, and windows under bursts, against the truth of the simulation."""

from __future__ import annotations

from tests.ledger.hour import run_hour
from tests.ledger.windows import worst_window_error

Row = tuple[str, float, str, str]


def measure() -> list[Row]:
    """Rows of (name, value, unit, goal)."""
    hour = run_hour(1)
    wrong = sum(booked != true for booked, true in hour.tokens.values())
    worst_board = max(abs(measured / true - 1) for measured, true in hour.board_uj.values())
    return [
        ("energy after an hour of faults, error", abs(hour.energy_error) * 100, "%", "at most 0.2"),
        ("the same, worst board", worst_board * 100, "%", "at most 0.2"),
        ("servers whose tokens are not exact", wrong, "", "0"),
        ("failed scrapes in that hour", hour.failures, "", ""),
        ("restarts in that hour", hour.restarts, "", ""),
        ("tokens per joule over 60 s, 8 s on and off, worst", worst_window_error(seconds=1200)[0] * 100, "%", "at most 1"),
    ]
