"""The fields of a pushed report: single values, read strictly. Readers raise ValueError with words for people."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from tokenwatt.settings import values
from tokenwatt.settings.addresses import server_url

KEY_CHARACTERS: Final = 200
URL_CHARACTERS: Final = 500

_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_RFC_3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def text_up_to(most: int, what: str) -> Callable[[object], str]:
    """A reader of text without control characters, at most so long. ``what`` it is, for people."""

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{values.shown(value)} is not text; write {what} as a string")
        if len(value) > most:
            raise ValueError(f"{values.shown(value)} has {len(value)} characters; {what} has at most {most}")
        if _UNPRINTABLE.search(value):
            raise ValueError(f"{values.shown(value)} holds control characters or half a surrogate pair; {what} is text that can be shown")
        return value

    return read


def key_text(value: object) -> str:
    """A key as its client chose it: any text that is not empty.

    Raises:
        ValueError: in words for people.
    """
    key = text_up_to(KEY_CHARACTERS, "an idempotency key")(value)
    if not key:
        raise ValueError("it is empty; write a key that no other report has, or leave it out")
    return key


def whole(most: int) -> Callable[[object], int]:
    """A reader of whole numbers from 0 to ``most``."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{values.shown(value)} is not a whole number; write one without a fraction and without quotes")
        if not 0 <= value <= most:
            shown = values.shown(value) if abs(value) < 10**30 else "it"
            raise ValueError(f"{shown} is out of bounds; write a whole number from 0 to {most}")
        return value

    return read


def name(value: object) -> str:
    """A server's name, as the settings have it."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{values.shown(value)} is no name; write the server's name as a string")
    return values.name(value)


def url(value: object) -> str:
    """Where a server listens, as the settings have it."""
    return server_url(text_up_to(URL_CHARACTERS, "a url")(value))


def instant_ns(value: object) -> int:
    """Nanoseconds since the epoch."""
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        try:
            return (datetime.fromisoformat(value.upper()) - _EPOCH) // timedelta(microseconds=1) * 1000
        except ValueError:  # the 31st of February
            pass
    raise ValueError(f"{values.shown(value)} is not an instant; write RFC 3339 with a time zone, for example 2026-01-31T12:00:00.5Z")
