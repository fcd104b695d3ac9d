"""A settings file as plain values, with the line of every key: what is read before anything is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from tokenwatt.settings.problems import KeyPath, SettingsError, dotted
from tokenwatt.settings.values import plain, printable

# A node has tens of servers; 500 of them are 60 kB. PyYAML reads about 100 kB a second, so that a file far beyond costs seconds.
_MAX_BYTES: Final = 512 * 1024
# Aliases make exponentially many values out of a short file ("billion laughs").
_MAX_VALUES: Final = 50_000
_MAX_DEPTH: Final = 20

_MERGE: Final = "<<"
_PLAIN_TAGS: Final = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null")}  # !!float "0.5", as some programs write
_TAGS: Final = _PLAIN_TAGS | {f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map")}

# What PyYAML says, and what would be right. The first match counts.
_HINTS: Final = (
    ("character '\\t'", "YAML indents with spaces, not tabs"),
    ("mapping values are not allowed", "indent keys of one level alike, and put text that holds ': ' in quotes"),
    ("could not find expected ':'", "write 'key: value'"),
    ("expected <block end>", "indent keys of one level alike"),
    ("expected ',' or", "close the bracket or brace, and separate what is in it by commas"),
    ("quoted scalar", "close the quote"),
    ("undefined alias", "define the anchor with & before it is used with *"),
    ("expected a single document", "remove the line with ---"),
    ("cannot start any token", "put the text in quotes"),
    ("special characters are not allowed", "remove the control character"),
)


@dataclass(frozen=True)
class Document:
    """``values`` as plain mappings, lists and scalars; ``lines`` has the line of each key and list entry; ``problems`` what was wrong."""

    name: str
    values: dict[str, object] = field(default_factory=dict)
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    problems: tuple[tuple[int, str], ...] = ()
    """Duplicate keys and the like, by line: what does not keep the rest from being read."""


def read(path: Path) -> Document:
    """The settings file at ``path``. An empty file is an empty document.

    Raises:
        SettingsError: there is no such file, it cannot be read, or it is not a YAML mapping.
    """
    name = printable(str(path))
    return parse(name, _text(name, path))


def parse(name: str, text: str) -> Document:
    """As :func:`read`, of ``text``; ``name`` is the file's name in messages."""
    try:
        # No tag is resolved and no object made: BaseLoader knows only text, lists and mappings.
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as e:
        raise SettingsError([_syntax(name, e)]) from None
    except yaml.reader.ReaderError as e:
        line = text.count("\n", 0, e.position) + 1
        raise SettingsError([f"{name}:{line}: is not YAML: {e.reason}; {_hint(e.reason)}"]) from None
    except RecursionError:
        raise SettingsError([f"{name}: is nested too deeply; the settings have at most 5 levels"]) from None
    if root is None or (isinstance(root, yaml.ScalarNode) and plain(root.value) is None):
        return Document(name)
    if not isinstance(root, yaml.MappingNode):
        raise SettingsError([f"{name}:{_line(root)}: is not a mapping; write 'key: value' lines, for example 'listen: 127.0.0.1:28900'"])
    reader = _Reader(name)
    values = reader.mapping(root, ())
    return Document(name, values, reader.lines, tuple(reader.problems))


def _text(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:  # a pipe is fine: tokenwatt config check --config <(helm template ...)
            data = file.read(_MAX_BYTES + 1)
    except OSError as e:
        raise SettingsError([f"{name}: cannot be read: {(e.strerror or str(e)).lower()}; give the path of a YAML file"]) from None
    if len(data) > _MAX_BYTES:
        raise SettingsError([f"{name}: is larger than {_MAX_BYTES // 1024} KiB; give a settings file"])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise SettingsError([f"{name}:{line}: is not text in UTF-8; give a YAML file saved as UTF-8"]) from None
    if "\0" in text:
        raise SettingsError([f"{name}: is not a text file; give a YAML file"])
    return text


def _syntax(name: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    what = printable(error.problem or error.context or "the text breaks off")
    return f"{name}:{mark.line + 1 if mark else 1}: is not YAML: {what}; {_hint(f'{error.problem} {error.context}')}"


def _hint(problem: str) -> str:
    return next((hint for words, hint in _HINTS if words in problem), "see the line, and the one before it")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Reader:
    """Turns nodes into values, once; remembers lines and problems."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[tuple[int, str]] = []

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        own: dict[str, int] = {}
        merged: list[tuple[yaml.Node, yaml.Node]] = []
        for key, value in node.value:
            if _is_merge(key):
                merged += self._merged(value, path)
            elif not isinstance(key, yaml.ScalarNode):
                self._problem(key, path, "a key is a list or a mapping; write text before the colon")
            elif key.value in own:
                self._problem(key, (*path, key.value), f"is given twice, first in line {own[key.value]}; remove one of the two")
            else:
                own[key.value] = _line(key)
                values[key.value] = self._entry(key, value, path)
        for key, value in merged:  # what is written here is stronger than what is merged into it
            self._bound(key, path)
            if isinstance(key, yaml.ScalarNode) and key.value not in values:
                values[key.value] = self._entry(key, value, path)
        return values

    def _entry(self, key: yaml.ScalarNode, value: yaml.Node, path: KeyPath) -> object:
        self.lines[*path, key.value] = _line(key)
        return self._value(value, (*path, key.value))

    def _merged(self, node: yaml.Node, path: KeyPath) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode) and not any(_is_merge(k) for k, _ in source.value):
                yield from source.value
            else:
                self._problem(source, (*path, _MERGE), "takes mappings that merge nothing themselves; write <<: *anchor")

    def _value(self, node: yaml.Node, path: KeyPath) -> object:
        self._bound(node, path)
        if node.tag not in _TAGS:
            self._problem(node, path, f"the tag {printable(node.tag)} means nothing here; remove it")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*path, i)) for i, item in enumerate(node.value)]
        return plain(node.value) if _is_plain(node) or node.tag in _PLAIN_TAGS else node.value

    def _item(self, node: yaml.Node, path: KeyPath) -> object:
        self.lines[path] = _line(node)
        return self._value(node, path)

    def _problem(self, node: yaml.Node, path: KeyPath, text: str) -> None:
        where = f"{dotted(path)}: " if path else ""
        self.problems.append((_line(node), f"{where}{text}"))

    def _bound(self, node: yaml.Node, path: KeyPath) -> None:
        self._count += 1
        if self._count > _MAX_VALUES or len(path) > _MAX_DEPTH:  # an alias to what it is part of has no depth at all
            what = f"holds more than {_MAX_VALUES} values" if self._count > _MAX_VALUES else f"is nested more than {_MAX_DEPTH} levels deep"
            raise SettingsError([f"{self._name}:{_line(node)}: {what}, counting aliases; remove the alias or the nesting"])


def _is_merge(key: yaml.Node) -> bool:
    return key.value == _MERGE and _is_plain(key)


def _is_plain(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None
