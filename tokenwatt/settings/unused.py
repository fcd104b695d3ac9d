"""Settings of the contract that this version reads and does not act on: said, so that nobody takes them for working."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from tokenwatt.settings.fields import Section
from tokenwatt.settings.model import Settings
from tokenwatt.settings.problems import KeyPath, dotted
from tokenwatt.settings.servers import Counters

UNUSED: Final[tuple[KeyPath, ...]] = (
    ("web_config",), ("probes_without_auth",), ("host",), ("discovery", "kubernetes"), ("cost",), ("carbon",), ("store",),
)  # fmt: skip
"""Keys, and all that is below them."""

# Defaults ask for nothing, except these: they promise something, and are told when the user wrote them.
_ASKS_FOR_NOTHING: Final[Mapping[KeyPath, object]] = {("host",): "off"}


def unused_keys(settings: Settings, origins: Mapping[str, str] | None = None) -> list[str]:
    """One line for each key that was given, asks for something, and has no effect in this version. ``origins``: as of ``Loaded``."""
    paths = [path for path in _given(settings, ()) if any(path[: len(unused)] == unused for unused in UNUSED)]
    told = [(path, "is read but not used by this version") for path in paths]
    for i, server in enumerate(settings.servers):
        if server.counters != Counters() and server.reads_as != "generic":
            told.append((("servers", i, "counters"), f"is not used: the counters of engine {server.engine} are known"))
    return [f"{_prefix(dotted(path), origins or {})}{dotted(path)}: {what}" for path, what in told]


def _prefix(key: str, origins: Mapping[str, str]) -> str:
    origin = _origin(key, origins)
    return f"{origin}: " if origin else ""


def _origin(key: str, origins: Mapping[str, str]) -> str | None:
    # A section that only variables made has no origin of its own.
    return origins.get(key) or next((origin for k, origin in origins.items() if k.startswith(f"{key}.")), None)


def _given(section: Section, around: KeyPath) -> Iterator[KeyPath]:
    fields = type(section).model_fields
    for name in (n for n in fields if n in section.model_fields_set):
        path = (*around, fields[name].alias or name)
        value = getattr(section, name)
        default = fields[name].get_default(call_default_factory=True)
        if path == ("servers",):
            for i, server in enumerate(value):
                yield from _given(server, (*path, i))
        elif isinstance(value, Section) and isinstance(default, Section):
            yield from _given(value, path)
        elif value != _ASKS_FOR_NOTHING.get(path, default):
            yield path
