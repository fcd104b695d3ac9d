"""The types of single settings: how pydantic reads each one, and how it is written back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from tokenwatt.settings import addresses, values
from tokenwatt.settings.problems import KeyPath
from tokenwatt.snapshot import Window

CROSS = "tokenwatt_cross"
"""The error type of values that are each right but do not go together. Its context has ``found``: a list of (text, places)."""

Found = tuple[str, tuple[KeyPath, ...]]
"""What does not go together, and the places to name: the first of them that was given, else the first."""


def refuse(found: Iterable[Found]) -> None:
    """Raise one error for all that was found. Nothing found: nothing raised."""
    listed = list(found)
    if listed:
        raise PydanticCustomError(CROSS, "{text}", {"text": ". ".join(text for text, _ in listed), "found": listed})


class Section(BaseModel):
    """Settings that belong together. Immutable; attribute names carry units, the file's keys are their aliases."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _empty(kind: Callable[[], object]) -> BeforeValidator:
    # "servers:" with every entry commented out is null to YAML, and "none given" to people.
    return BeforeValidator(lambda value: kind() if value is None else value)


def _path(value: object, info: ValidationInfo) -> Path:
    """A file. A relative path is relative to the settings file, as in Prometheus."""
    written = values.text(value) if not isinstance(value, Path) else str(value)
    if written.startswith("~"):
        raise ValueError(f"{values.shown(value)} has a ~, which only a shell expands; write the whole path")
    if "\0" in written:
        raise ValueError(f"{values.shown(value)} holds a zero byte; write a path")
    base: Path | None = (info.context or {}).get("directory")
    return base / written if base else Path(written)


def _reader(read: Callable[[Any], Any], write: Callable[[Any], Any] | None = None) -> Any:
    """Annotations for a value read by ``read``. With ``write`` it is dumped as people write it."""
    return (PlainValidator(read), *((PlainSerializer(write),) if write else ()))


EMPTY_SECTION = _empty(dict)
EMPTY_LIST = _empty(list)

FilePath = Annotated[Path, *_reader(_path, str)]
Text = Annotated[str, *_reader(values.text)]
Name = Annotated[str, *_reader(values.name)]
Label = Annotated[str, *_reader(values.label)]
Boolean = Annotated[bool, *_reader(values.boolean)]
WindowField = Annotated[Window, *_reader(values.window, lambda w: w.label)]
Listen = Annotated[str, *_reader(addresses.listen_address)]
ServerUrl = Annotated[str, *_reader(addresses.server_url)]
SourceUrl = Annotated[str, *_reader(addresses.source_url)]
MetricsPath = Annotated[str, *_reader(addresses.metrics_path)]
GpuField = Annotated[int | str, *_reader(values.gpu)]
Currency = Annotated[str, *_reader(values.currency)]
Timezone = Annotated[str, *_reader(values.timezone)]
TimeOfDay = Annotated[int, *_reader(values.time_of_day_minutes, values.time_of_day_text)]
Price = Annotated[float, *_reader(values.number(0, example="0.25"))]


def duration(lowest: str, highest: str) -> Any:
    """Annotations of a duration within bounds, in nanoseconds."""
    return _reader(values.duration_between(lowest, highest), values.duration_text)


def number(lowest: float, highest: float = math.inf, *, example: str, above: bool = False) -> Any:
    """Annotations of a finite number from ``lowest`` (or above it) to ``highest``."""
    return _reader(values.number(lowest, highest, example=example, above=above))
