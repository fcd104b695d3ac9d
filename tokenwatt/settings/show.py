"""The settings in force as YAML that loads back, each value that is not a default with its origin."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from tokenwatt.settings.model import Settings
from tokenwatt.settings.problems import KeyPath, dotted
from tokenwatt.settings.values import masked, plain

_SAFE_WORD: Final = re.compile(r"[A-Za-z0-9_./-]+(?::[A-Za-z0-9_./-]+)*")
_YAML_1_1: Final = yaml.resolver.Resolver()
# Without a value these say nothing about a server; shown they would be noise on each.
_SERVER_KEYS: Final = ("name", "url", "engine")


def show(settings: Settings, origins: Mapping[str, str]) -> str:
    """YAML of ``settings`` that loads back to the same, with ``origins`` (of ``Loaded``) as comments.

    There are no secrets in it: the settings hold only paths of secret files, and a URL that may hold a key in its query is shown without it
    (and marked, since it then does not load back to the same).
    """
    values = settings.model_dump(by_alias=True)
    default = Settings().model_dump(by_alias=True)
    values["servers"] = [{k: v for k, v in s.items() if k in _SERVER_KEYS or not _is_nothing(v)} for s in values["servers"]]
    return "\n".join(_mapping(values, default, origins, (), "")) + "\n"


def _mapping(
    values: Mapping[str, Any], default: Mapping[str, Any], origins: Mapping[str, str], path: KeyPath, indent: str
) -> Iterator[str]:
    for key, value in values.items():
        here = (*path, key)
        usual = default.get(key, _Unset)
        if isinstance(value, dict) and value:
            yield f"{indent}{_text(key)}:"
            yield from _mapping(value, usual if isinstance(usual, dict) else {}, origins, here, indent + "  ")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            yield f"{indent}{_text(key)}:"
            for i, item in enumerate(value):
                yield from _item(list(_mapping(item, {}, origins, (*here, i), "")), indent + "  ")
        else:
            notes = [origins[dotted(here)]] if value != usual and dotted(here) in origins else []
            safe = masked(value) if key == "url" else value
            notes += ["query not shown"] if safe != value else []
            yield f"{indent}{_text(key)}: {_value(safe)}{_comment(notes)}"


class _Unset:
    """No default: the key is not there without settings."""


def _item(lines: list[str], indent: str) -> Iterator[str]:
    for i, line in enumerate(lines):
        yield f"{indent}{'  ' if i else '- '}{line}"


def _comment(notes: list[str]) -> str:
    return f"  # {', '.join(notes)}" if notes else ""


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, str):
        return _text(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _text(text: str) -> str:
    # Not quoted is only what readers of YAML 1.1 and of 1.2 take for the same text: not off, 1e3, 12:30.
    other = _YAML_1_1.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    if _SAFE_WORD.fullmatch(text) and isinstance(plain(text), str) and other == "tag:yaml.org,2002:str":
        return text
    return str(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=1 << 30)).rstrip("\n")


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, dict) and not any(v for v in value.values()))
