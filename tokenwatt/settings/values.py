"""Single values as people write them: read, checked, and written back. Needs neither YAML nor pydantic.

Each reader takes what the file, the environment or a flag gave and returns the value, or raises ValueError with words for people: what is
wrong, a semicolon, what would be right.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from typing import Final

from tokenwatt.snapshot import Window

_UNIT_NS: Final = {"d": 86_400_000_000_000, "h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000}
_WINDOW_UNITS: Final = ("h", "m", "s")
_DURATION: Final = re.compile(r"([0-9]{1,15})(ms|s|m|h|d)")
_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")
# Up to the last @, since a password that is not escaped may hold any character.
_USERINFO: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", re.DOTALL)
_QUERY: Final = re.compile(r"\?.*", re.DOTALL)

_SHOWN_CHARACTERS: Final = 60
_NAME_CHARACTERS: Final = 128

_BOOLEANS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def plain(text: str) -> object:
    """What an unquoted word means: nothing, true or false, a number, else itself.

    These are the rules of YAML 1.2. Those of 1.1 make ``off`` a boolean, and of ``12:30`` the number 750.
    """
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text[0] in "tT"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    special = {".nan": math.nan, ".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf}
    return special.get(text.lower(), text)


def printable(text: str) -> str:
    r"""``text`` on one line and harmless to terminals: control characters, line breaks, direction overrides as ``\x1b`` or ``\u2028``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def masked(text: str) -> str:
    """``text`` without what may be secret in a URL: user, password and query."""
    return _QUERY.sub("?***", _USERINFO.sub(r"\1***@", text)) if "/" in text or "@" in text else text


def shown(value: object) -> str:
    """A wrong value, as a message may quote it: short, on one line, without secrets."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = printable(masked(value))
        return f"'{text}'" if len(text) <= _SHOWN_CHARACTERS else f"'{text[:_SHOWN_CHARACTERS]}...'"
    if isinstance(value, int | float):
        return str(value)
    return "a mapping" if isinstance(value, dict) else "a list"


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of ``known`` that ``word`` was probably meant to be."""
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(word.lower(), by_lower, 1, cutoff)
    return by_lower[found[0]] if found else None


def duration_ns(value: object) -> int:
    """Nanoseconds of a duration such as ``100ms``, ``1s``, ``5m``, ``24h``, ``400d``."""
    found = plain(value.strip()) if isinstance(value, str) else value
    if isinstance(found, int | float) and not isinstance(found, bool):
        raise ValueError(f"{found} has no unit; write for example {found:g}s or {found:g}ms")
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{shown(value)} is not a duration; write a whole number and ms, s, m, h or d, for example 100ms, 1s, 5m")
    return int(match[1]) * _UNIT_NS[match[2]]


def duration_text(ns: int) -> str:
    """The shortest way to write ``ns``, a multiple of a millisecond: what :func:`duration_ns` reads back."""
    for unit, unit_ns in _UNIT_NS.items():
        if ns and ns % unit_ns == 0:
            return f"{ns // unit_ns}{unit}"
    return f"{ns // _UNIT_NS['ms']}ms"


def duration_between(lowest: str, highest: str, why: str = "") -> Callable[[object], int]:
    """A reader of durations within bounds. ``why`` gives the reason for the bounds."""
    lowest_ns, highest_ns = duration_ns(lowest), duration_ns(highest)

    def read(value: object) -> int:
        ns = duration_ns(value)
        if not lowest_ns <= ns <= highest_ns:
            raise ValueError(f"{shown(value)} is out of bounds; write {lowest} to {highest}{why}")
        return ns

    return read


def window(value: object) -> Window:
    """A trailing span of 1s to 24h. Its label is canonical, so that 60s and 1m are one window."""
    if isinstance(value, Window):
        return value
    ns = duration_ns(value)
    if ns % _UNIT_NS["s"] or not _UNIT_NS["s"] <= ns <= _UNIT_NS["d"]:
        raise ValueError(f"{shown(value)} cannot be a window; write whole seconds, 1s to 24h")
    unit = next(u for u in _WINDOW_UNITS if ns % _UNIT_NS[u] == 0)
    return Window(f"{ns // _UNIT_NS[unit]}{unit}", ns)


def boolean(value: object) -> bool:
    """True or false, also as yes/no and on/off."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise ValueError(f"{shown(value)} is neither true nor false; write true or false")


def number(lowest: float, highest: float = math.inf, *, example: str, above: bool = False) -> Callable[[object], float]:
    """A reader of finite numbers from ``lowest`` (or above it) to ``highest``."""
    bounds = f"of {'more than' if above else 'at least'} {lowest:g}" + ("" if highest == math.inf else f" and at most {highest:g}")

    def read(value: object) -> float:
        found = _number(value, example)
        if not math.isfinite(found):
            raise ValueError(f"{shown(value)} is not a finite number; write for example {example}")
        if found < lowest or found > highest or (above and found == lowest):
            raise ValueError(f"{shown(value)} is out of bounds; write a number {bounds}, for example {example}")
        return found

    return read


def _number(value: object, example: str) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip().replace(",", ".", 1)):
        raise ValueError(f"{shown(value)} is not a number; write the decimals after a point: {value.strip().replace(',', '.', 1)}")
    raise ValueError(f"{shown(value)} is not a number; write for example {example}")


def choice(*known: str) -> Callable[[object], str]:
    """A reader of one of a few words."""

    def read(value: object) -> str:
        if value is False and "off" in known:  # as other YAML tools write it
            return "off"
        if isinstance(value, str) and value in known:
            return value
        near = nearest(value, known) if isinstance(value, str) else None
        raise ValueError(f"{shown(value)} is not known; write {near or ' or '.join(known)}")

    return read


def text(value: object) -> str:
    """Text that is not empty."""
    if isinstance(value, bool | int | float):
        raise ValueError(f'{shown(value)} is not text; write it in quotes: "{shown(value)}"')
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{shown(value)} is not text; write text, or leave the key out")
    return value


def label(value: object) -> str:
    """A name for people and for metric labels."""
    found = text(value)
    if not found.isprintable() or found != found.strip() or len(found) > _NAME_CHARACTERS:
        raise ValueError(f"{shown(value)} cannot be a name; write up to {_NAME_CHARACTERS} printable characters, no spaces around them")
    return found


def name(value: object) -> str:
    """A server's name."""
    found = label(value)
    if found == "retired":  # the series that servers gone for a day are folded into
        raise ValueError("'retired' is the name that servers gone for a day share; write another name")
    return found


def gpu(value: object) -> int | str:
    """A GPU by its index or by its UUID."""
    found = plain(value) if isinstance(value, str) else value
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 1024:
        return found
    if isinstance(found, str) and re.fullmatch(r"GPU-[0-9A-Za-z.-]+", found):
        return found
    if isinstance(found, str) and found.startswith("MIG-"):
        raise ValueError(f"{shown(value)} is a MIG instance, which has no power of its own; write the index or UUID of its board")
    raise ValueError(f"{shown(value)} is not a GPU; write an index such as 0, or a UUID such as nvidia-smi -L prints: GPU-...")


def currency(value: object) -> str:
    """A currency by its three letters."""
    if isinstance(value, str) and re.fullmatch(r"[A-Z]{3}", value):
        return value
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z]{3}", value):
        raise ValueError(f"{shown(value)} is not a currency code; write {value.upper()}")
    raise ValueError(f"{shown(value)} is not a currency code; write three capital letters, for example USD or EUR")


def time_of_day_minutes(value: object) -> int:
    """Minutes since midnight of ``HH:MM``, 00:00 to 24:00."""
    match = re.fullmatch(r"([0-9]{2}):([0-5][0-9])", value) if isinstance(value, str) else None
    minutes = int(match[1]) * 60 + int(match[2]) if match else -1
    if not 0 <= minutes <= 1440:
        raise ValueError(f"{shown(value)} is not a time of day; write HH:MM, 00:00 to 24:00")
    return minutes


def time_of_day_text(minutes: int) -> str:
    """What :func:`time_of_day_minutes` reads back."""
    return f"{minutes // 60:02}:{minutes % 60:02}"


def timezone(value: object) -> str:
    """A time zone by its IANA name."""
    import zoneinfo

    zone = text(value)
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        right = nearest(zone, known) or ("for example Europe/Berlin or UTC" if known else "UTC, or install the package tzdata")
        raise ValueError(f"{shown(value)} is no time zone that this machine knows; write {right}") from None
    return zone
