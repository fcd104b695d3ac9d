"""The settings in force: flags over environment over file over defaults, with the origin of each value and all that is wrong at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tokenwatt.settings import schema
from tokenwatt.settings.addresses import server_url
from tokenwatt.settings.document import Document, read
from tokenwatt.settings.fields import CROSS, Found
from tokenwatt.settings.model import Settings
from tokenwatt.settings.problems import KeyPath, Origins, SettingsError, dotted
from tokenwatt.settings.servers import duplicates
from tokenwatt.settings.unused import unused_keys
from tokenwatt.settings.values import plain, printable, shown

PREFIX: Final = "TOKENWATT_"
NOT_SETTINGS: Final = {"TOKENWATT_CONFIG", "TOKENWATT_DEBUG", "TOKENWATT_PURE_PYTHON"}
"""Variables that mean something, and are no settings."""

Problem = tuple[KeyPath, str]

# What pydantic says of a wrong shape, and what would be right. Scalars are read by tokenwatt.settings.values, which says it itself.
_SHAPES: Final = {
    "model_type": "is not a mapping; write keys below it",
    "dict_type": "is not a mapping; write keys below it",
    "mapping_type": "is not a mapping; write keys below it",
    "tuple_type": "is not a list; write it in brackets: [...]",
}


@dataclass(frozen=True)
class Loaded:
    """Settings that were read. ``origins`` tells by dotted key where each given value is from; ``warnings`` are for the log, one a line."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[str, ...]


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, str]) -> Loaded:
    """Read the settings file at ``path`` (None: there is none), the TOKENWATT_* variables of ``environ`` and ``flags`` by dotted key.

    Raises:
        SettingsError: something is wrong; the error holds all of it.
    """
    document = read(path) if path else Document("")
    origins = Origins(document.name, document.lines)
    data = document.values
    for key, variable, text in _given(environ, flags):
        _override(data, origins, key, variable, text)
    try:
        settings = Settings.model_validate(data, context={"directory": path.absolute().parent if path else Path.cwd()})
    except ValidationError as e:
        raise SettingsError(_told(_problems(e, data, origins), document, origins)) from None
    if document.problems:
        raise SettingsError(_told([], document, origins))
    told = origins.text()
    return Loaded(settings, told, (*_unknown_variables(environ), *unused_keys(settings, told)))


def _given(environ: Mapping[str, str], flags: Mapping[str, str]) -> Iterator[tuple[KeyPath, str, str]]:
    """(key, name of the variable or flag, text), the weaker first. An empty variable counts as not given: compose files set such."""
    for variable, key in schema.environment().items():
        if environ.get(variable):
            yield key, variable, environ[variable]
    for flag, text in flags.items():
        yield tuple(flag.split(".")), "--" + flag.replace(".", "-").replace("_", "-"), text


def _override(data: dict[str, object], origins: Origins, path: KeyPath, name: str, text: str) -> None:
    section = data
    for part in path[:-1]:
        below = section.get(str(part))
        if below is None:
            below = section[str(part)] = {}
        if not isinstance(below, dict):  # wrong in the file, and refused for it
            return
        section = below
    section[str(path[-1])] = _value(path, text)
    origins.override(path, name)


def _value(path: KeyPath, text: str) -> object:
    key = schema.key_at(path)
    if key and key.shape == "list":
        return [plain(part.strip()) for part in text.split(",")]
    # The paths of a file are relative to it; these to where the command was started.
    return str(Path(text).absolute()) if key and key.is_path and not text.startswith("~") else plain(text.strip())


def _problems(error: ValidationError, data: Mapping[str, object], origins: Origins) -> list[Problem]:
    found: list[Problem] = []
    for detail in error.errors(include_url=False):
        found += _problem(detail, origins)
    # Where an entry of the servers is wrong in itself, pydantic does not compare them; the user should hear of duplicates all the same.
    found += (p for p in _duplicates(data, origins) if p not in found)
    return found


def _problem(detail: Any, origins: Origins) -> Iterator[Problem]:
    """One error of pydantic in our words."""
    loc: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")  # pydantic's mark on what is wrong with a key itself
    kind = detail["type"]
    if kind == CROSS:
        yield from _placed(detail["ctx"]["found"], loc, origins)
    elif kind == "extra_forbidden":
        yield loc, f"unknown key; {schema.right_key(loc)}"
    elif kind == "missing":
        yield loc, f"is missing; write for example {schema.example(loc)}"
    elif kind == "value_error":
        yield loc, str(detail["ctx"]["error"])
    else:
        yield loc, f"{shown(detail['input'])} {_SHAPES.get(kind) or detail['msg']}"


def _placed(found: Iterable[Found], loc: KeyPath, origins: Origins) -> Iterator[Problem]:
    for text, places in found:
        paths = [(*loc, *place) for place in places]
        yield next((p for p in paths if origins.given(p)), paths[0]), text


def _duplicates(data: Mapping[str, object], origins: Origins) -> Iterator[Problem]:
    servers = data.get("servers")
    entries = [s if isinstance(s, dict) else {} for s in servers] if isinstance(servers, list) else []
    yield from _placed(duplicates([(_text(s.get("name")), _url(s.get("url"))) for s in entries]), ("servers",), origins)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _url(value: object) -> str:
    try:
        return server_url(value)
    except ValueError:
        return ""


def _told(problems: Iterable[Problem], document: Document, origins: Origins) -> list[str]:
    """The lines of a SettingsError, in the order of the file."""
    lines = [((line, ""), f"{document.name}:{line}: {text}") for line, text in document.problems]
    for path, text in problems:
        origin = origins.of(path) or document.name
        lines.append((origins.order(path), f"{origin}: {dotted(path)}: {text}" if path else f"{origin}: {text}"))
    return [text for _, text in sorted(lines, key=lambda line: line[0])]


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    known = {*schema.environment(), *NOT_SETTINGS}
    unknown = sorted(printable(name) for name in environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        yield f"variables that are no settings, ignored: {', '.join(unknown)}"
