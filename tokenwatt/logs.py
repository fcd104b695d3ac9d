"""Logs: one logfmt line a record, on stderr."""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys
from typing import Final

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

# What json leaves alone and a terminal or a line reader does not: C1 controls, line separators, direction overrides, lone surrogates.
_UNSAFE: Final = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def setup(level: str = "INFO") -> None:
    """Send records of ``level`` and above to stderr, and nowhere else. A second call replaces the first.

    Raises:
        ValueError: there is no such level.
    """
    if level.upper() not in LEVELS:
        raise ValueError(f"no log level '{level}'; write one of {', '.join(LEVELS)}")
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h.formatter, Logfmt)]:
        root.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Logfmt())
    root.addHandler(handler)
    root.setLevel(level.upper())


class Logfmt(logging.Formatter):
    """``time=... level=... logger=... msg="..."``, and ``exc="..."`` where there is a traceback. Never more than one line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without a line break at its end."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = f"time={time} level={record.levelname.lower()} logger={_word(record.name)} msg={_quoted(record.getMessage())}"
        if record.exc_info and record.exc_info[0]:
            line += f" exc={_quoted(self.formatException(record.exc_info))}"
        if record.stack_info:
            line += f" stack={_quoted(self.formatStack(record.stack_info))}"
        return line


def _word(text: str) -> str:
    return text if re.fullmatch(r"[\w.-]+", text, re.ASCII) else _quoted(text)


def _quoted(text: str) -> str:
    # JSON's escapes are those that logfmt readers (Loki, humanlog) undo.
    return _UNSAFE.sub(lambda m: f"\\u{ord(m[0]):04x}", json.dumps(text, ensure_ascii=False))
