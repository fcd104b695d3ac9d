"""The body of a push: one report of tokens or a list of them, read strictly. One that is wrong refuses all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Any, Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema, model_validator
from pydantic_core import ErrorDetails

from tokenwatt.export import push_fields as fields
from tokenwatt.settings import values
from tokenwatt.types import KINDS, Kind, TokenReport

REPORTS_MAX: Final = 1000
COUNT_MAX: Final = 10**12
RUNNING_MAX: Final = 10**6
MODEL_CHARACTERS: Final = 200

TOKENS_A_SECOND_MAX: Final = 10**9
"""More than that no node makes."""
AHEAD_MAX_NS: Final = 60 * 10**9
"""So far may another machine's clock be ahead of ours."""

_SAID_MAX: Final = 5
_SECOND_NS: Final = 10**9

KeyOfReport = tuple[str, bytes]
"""An idempotency key, and a digest of what came with it."""


class BadBody(Exception):
    """The body cannot be used: which part of it and why, in words for people. ``status`` is HTTP's."""

    def __init__(self, text: str, status: int = 422) -> None:
        super().__init__(text)
        self.status = status


class Body(NamedTuple):
    """What a body holds: its reports, and the JSON that they were in."""

    reports: list[tuple[TokenReport, KeyOfReport | None]]
    found: object


def _field(read: Callable[[Any], Any], schema: dict[str, Any]) -> Any:
    return PlainValidator(lambda value: None if value is None else read(value)), WithJsonSchema(schema)


_INSTANT: Final = {"type": ["string", "null"], "format": "date-time"}


class Report(BaseModel):
    """Tokens that a process made, or that it saw a server make."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)

    server: Annotated[str, PlainValidator(fields.name), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 128})]
    """Its name: as the settings or /api/v1/servers have it, or a new one. 'retired' is reserved."""
    model: Annotated[
        str,
        PlainValidator(fields.text_up_to(MODEL_CHARACTERS, "a model")),
        WithJsonSchema({"type": "string", "maxLength": MODEL_CHARACTERS}),
    ]
    """The model that made them."""
    kind: Annotated[Kind, PlainValidator(values.choice(*KINDS)), WithJsonSchema({"enum": list(KINDS)})]
    """Kinds are disjoint: prompt_computed has no cached tokens in it. unsplit, where prompt and generation cannot be told apart."""
    count: Annotated[int, PlainValidator(fields.whole(COUNT_MAX)), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": COUNT_MAX})]
    """How many were made since the last report, not in all. 0 says that this kind is told, and that there were none."""
    from_: Annotated[int | None, *_field(fields.instant_ns, _INSTANT)] = Field(default=None, alias="from")
    """When the first of them was made. Together with ``to``."""
    to: Annotated[int | None, *_field(fields.instant_ns, _INSTANT)] = None
    """When the last of them was made."""
    running: Annotated[
        int | None, *_field(fields.whole(RUNNING_MAX), {"type": ["integer", "null"], "minimum": 0, "maximum": RUNNING_MAX})
    ] = None
    """Requests that the server runs now. Forgotten after 60 s."""
    url: Annotated[str | None, *_field(fields.url, {"type": ["string", "null"], "maxLength": fields.URL_CHARACTERS})] = None
    """Where the server listens, if on this machine: its process, and so its GPUs, are found by it."""
    idempotency_key: Annotated[
        str | None, *_field(fields.key_text, {"type": ["string", "null"], "minLength": 1, "maxLength": fields.KEY_CHARACTERS})
    ] = None
    """The same report with the same key is counted once, however often it is sent."""

    @model_validator(mode="after")
    def _span(self) -> Self:
        if (self.from_ is None) != (self.to is None):
            raise ValueError("from and to belong together; give both or none")
        if self.from_ is not None and self.to is not None:
            if self.to < self.from_:
                raise ValueError("to is before from; write the earlier instant as from")
            if self.count * _SECOND_NS > TOKENS_A_SECOND_MAX * (self.to - self.from_ + _SECOND_NS):
                raise ValueError(f"count is more than {TOKENS_A_SECOND_MAX} tokens a second from from to to; look at the unit of each")
        return self


def read_body(raw: bytes, *, now_ns: int, wall_ns: int) -> Body:
    """The reports in a body. ``now_ns`` and ``wall_ns`` are one instant on the monotonic and on the wall clock.

    Raises:
        BadBody: it is no JSON, or a report in it is wrong.
    """
    found = _json(raw)
    items = found if isinstance(found, list) else [found]
    if not 1 <= len(items) <= REPORTS_MAX:
        raise BadBody(f"The list holds {len(items)} reports; send 1 to {REPORTS_MAX}.")
    reports = []
    for number, item in enumerate(items, 1):
        try:
            reports.append(_report(item, now_ns, wall_ns))
        except ValueError as e:
            raise BadBody(f"{f'Report {number} of {len(items)}' if isinstance(found, list) else 'The report'}: {e}.") from None
    return Body(reports, found)


def digest(found: object) -> bytes:
    """Of what JSON says, however it is spaced and ordered."""
    return hashlib.blake2b(json.dumps(found, sort_keys=True).encode(), digest_size=16).digest()


def _report(item: object, now_ns: int, wall_ns: int) -> tuple[TokenReport, KeyOfReport | None]:
    if not isinstance(item, dict):
        raise ValueError("it is no JSON object; write {...} with server, model, kind and count")
    try:
        report = Report.model_validate(item)
    except ValidationError as e:
        raise ValueError(". ".join(_said(error) for error in e.errors(include_url=False, include_input=False)[:_SAID_MAX])) from None
    span_ns = None
    if report.from_ is not None and report.to is not None:
        if report.to > wall_ns + AHEAD_MAX_NS:
            raise ValueError("to: it is in the future; are both clocks right?")
        span_ns = now_ns - (wall_ns - report.from_), now_ns - (wall_ns - report.to)
    tokens = TokenReport(report.server, report.model, report.kind, report.count, span_ns, report.running, report.url)
    return tokens, (report.idempotency_key, digest(item)) if report.idempotency_key is not None else None


def _said(error: ErrorDetails) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "missing":
        return f"{name}: it is missing"
    if error["type"] == "extra_forbidden":
        known = [field.alias or key for key, field in Report.model_fields.items()]
        near = values.nearest(name[: fields.KEY_CHARACTERS], known)
        return f"{values.shown(name)} is no field of a report; {f'did you mean {near}?' if near else 'there are: ' + ', '.join(known)}"
    text = str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"]
    return f"{name}: {text}" if name else text


def _json(raw: bytes) -> object:
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError:
        raise BadBody("The body is not UTF-8.", 400) from None
    except RecursionError:
        raise BadBody("The body is no list of reports: it is nested too deeply.", 400) from None
    except json.JSONDecodeError as e:
        raise BadBody(f"The body is no JSON: {e.msg} at line {e.lineno}, column {e.colno}.", 400) from None
    except ValueError:  # a number of thousands of digits
        raise BadBody("The body holds a number that is too long.") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise BadBody(f"{values.shown(name)} is given twice in one object; remove one of the two.")
        found[name] = value
    return found
