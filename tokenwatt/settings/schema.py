"""What keys there are, and where: taken from the models, so that it cannot differ from them."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from tokenwatt.settings.model import Settings
from tokenwatt.settings.problems import KeyPath, dotted
from tokenwatt.settings.values import nearest

Shape = Literal["scalar", "list", "section", "sections", "map"]


@dataclass(frozen=True)
class Key:
    """One key: its shape, what is below it, and whether its value is a path."""

    shape: Shape
    below: type[BaseModel] | None
    is_path: bool


@cache
def keys(model: type[BaseModel]) -> Mapping[str, Key]:
    """The keys of one section, as the file writes them."""
    return {info.alias or name: _key(info.annotation) for name, info in model.model_fields.items()}


def environment() -> dict[str, KeyPath]:
    """The variables that give settings: TOKENWATT_ and the path of the key, for scalars and lists of scalars."""
    return {"TOKENWATT_" + "_".join(path).upper(): path for path in _leaves(Settings, ())}


def key_at(path: KeyPath) -> Key | None:
    """The key at a place. None: there is none."""
    *around, last = path
    section = _section_at(tuple(around))
    return keys(section).get(str(last)) if section else None


def example(path: KeyPath) -> str:
    """A line that gives a key that must be given."""
    *around, last = path
    section = _section_at(tuple(around)) or Settings
    examples = next((f.examples for name, f in section.model_fields.items() if (f.alias or name) == last), None) or ["..."]
    return f"{last}: {examples[0]}"


def right_key(path: KeyPath) -> str:
    """What an unknown key was probably meant to be, as the end of a sentence."""
    *around, last = path
    here = tuple(around)
    known = keys(_section_at(here) or Settings)
    word = str(last)
    near = nearest(word, known, 0.7)
    if near:
        return f"write {dotted((*here, near))}"
    elsewhere = [p for p in _places(Settings, ()) if p.endswith(f".{word}") or p == word]
    if elsewhere:
        return f"it belongs elsewhere: {' or '.join(elsewhere)}"
    return f"known here: {', '.join(known)}"


def _leaves(model: type[BaseModel], around: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, key in keys(model).items():
        if key.shape == "section" and key.below:
            yield from _leaves(key.below, (*around, name))
        elif key.shape in ("scalar", "list"):
            yield (*around, name)


def _places(model: type[BaseModel], around: KeyPath) -> Iterator[str]:
    """All keys of all levels, as ``servers[].url``."""
    for name, key in keys(model).items():
        written = dotted((*around, name)).replace("['*']", "[]")
        yield written
        if key.below:
            yield from _places(key.below, (*around, name, "*") if key.shape in ("sections", "map") else (*around, name))


def _section_at(path: KeyPath) -> type[BaseModel] | None:
    section: type[BaseModel] | None = Settings
    inside: Shape = "section"
    for part in path:
        if inside in ("sections", "map"):  # the part is an index, or a key of the user's own
            inside = "section"
            continue
        key = keys(section).get(str(part)) if section else None
        section, inside = (key.below, key.shape) if key else (None, "scalar")
    return section


def _key(annotation: object) -> Key:
    bare = _bare(annotation)
    origin = typing.get_origin(bare)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return Key("section", bare, False)
    if origin is tuple:
        item = _bare(typing.get_args(bare)[0])
        return Key("sections", item, False) if isinstance(item, type) and issubclass(item, BaseModel) else Key("list", None, False)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        item = _bare(typing.get_args(bare)[1])
        return Key("map", item if isinstance(item, type) and issubclass(item, BaseModel) else None, False)
    return Key("scalar", None, bare is Path)


def _bare(annotation: object) -> object:
    """The type without ``Annotated`` and without ``| None``."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _bare(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        some = [a for a in typing.get_args(annotation) if a is not type(None)]
        return _bare(some[0]) if len(some) == 1 else annotation
    return annotation
