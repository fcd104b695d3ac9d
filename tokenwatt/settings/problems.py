"""What is wrong with settings, and how it is said: one line a problem, with its place and what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tokenwatt.settings.values import printable

KeyPath = tuple[str | int, ...]
"""A place in the settings: ``("servers", 0, "url")``."""

_LONGEST_KEY = 60


class SettingsError(Exception):
    """The settings cannot be used. The text has one line a problem: ``FILE:LINE: KEY: what is wrong; what would be right``."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def dotted(path: KeyPath) -> str:
    """A place as people write it: ``servers[0].url``. Keys that are not plain words are quoted in brackets."""
    parts = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif re.fullmatch(r"[\w-]+", part) and len(part) <= _LONGEST_KEY:
            parts.append(f".{part}")
        else:
            parts.append(f"['{printable(part[:_LONGEST_KEY])}']")
    return "".join(parts).removeprefix(".")


class Origins:
    """Where each given value came from: ``FILE:LINE``, the name of a variable, or that of a flag."""

    def __init__(self, file: str, lines: Mapping[KeyPath, int]) -> None:
        self._file = file
        self._lines = dict(lines)
        self._others: dict[KeyPath, str] = {}

    def override(self, path: KeyPath, name: str) -> None:
        """The value at ``path`` comes from the variable or flag ``name``, whatever the file says."""
        for gone in [p for p in self._lines if p[: len(path)] == path]:
            del self._lines[gone]
        self._others[path] = name

    def given(self, path: KeyPath) -> bool:
        """Whether the value at exactly ``path`` was given."""
        return path in self._others or path in self._lines

    def of(self, path: KeyPath) -> str | None:
        """Where the value at ``path``, or the smallest part around it that was given, comes from. None: from the defaults."""
        for length in range(len(path), 0, -1):
            around = path[:length]
            if around in self._others:
                return self._others[around]
            if around in self._lines:
                return f"{self._file}:{self._lines[around]}"
        # A section that only variables made: its first one.
        return next((name for p, name in self._others.items() if p[: len(path)] == path), None)

    def order(self, path: KeyPath) -> tuple[int, str]:
        """Sorts problems as a reader meets them: by line; then those of variables and flags."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._others:
                return 1 << 62, self._others[path[:length]]
            if path[:length] in self._lines:
                return self._lines[path[:length]], ""
        return 1 << 62, ""

    def text(self) -> dict[str, str]:
        """All of them by dotted key."""
        return {dotted(p): self.of(p) or "" for p in (*self._lines, *self._others)}
