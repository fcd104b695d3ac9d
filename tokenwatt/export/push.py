"""POST /api/v1/tokens: processes report the tokens they made. The only handler that changes anything, and it hands all to a sink."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from fastapi import FastAPI, HTTPException, Request
from pydantic import Field
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from tokenwatt.export import answers
from tokenwatt.export.push_access import PushAccess, Refused
from tokenwatt.export.push_fields import KEY_CHARACTERS, key_text
from tokenwatt.export.push_report import REPORTS_MAX, BadBody, Body, KeyOfReport, Report, digest, read_body
from tokenwatt.settings.addresses import url_key
from tokenwatt.snapshot import Snapshot
from tokenwatt.types import TokenReport

BODY_MAX_BYTES: Final = 256 * 1024
BODY_LIMIT_S: Final = 10.0
"""A client that sends more slowly is not waited for."""


class Outcome(Protocol):
    """What came of a push. ``refusal``: why nothing of it was counted, in one sentence."""

    @property
    def accepted(self) -> int:
        """How many reports were counted."""

    @property
    def duplicates(self) -> int:
        """How many were counted before."""

    @property
    def refusal(self) -> str | None:
        """Why none was."""


class TokenSink(Protocol):
    """Takes reports, at once and without I/O, from the thread of the event loop."""

    def names(self) -> frozenset[str]:
        """The servers that are reported for."""

    def push(self, reports: Sequence[tuple[TokenReport, KeyOfReport | None]], request: KeyOfReport | None) -> Outcome:
        """Count all of the reports or none."""


class PushAnswer(answers.Answer):
    """What came of a push. All of its reports are in one of the two."""

    accepted: int = Field(examples=[3])
    """Counted now."""
    duplicates: int = Field(examples=[0])
    """Counted before, under the same idempotency key."""


_REASONS: Final = {
    400: "The body is no JSON.",
    401: "The token is missing or wrong.",
    403: "The peer is not of this machine and no token is set up, or a web page sent the request.",
    408: f"The body did not come within {BODY_LIMIT_S:.0f} s.",
    409: "An idempotency key came with another body before, the server has counters of its own, or there are too many servers or models.",
    413: f"The body is larger than {BODY_MAX_BYTES // 1024} KiB.",
    415: "The body is not application/json.",
    422: "A report is wrong: which one and why. None was counted.",
    503: "The meter does not run, or its token cannot be read. Nothing was counted: try again.",
}

_KEY_HEADER: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_CHARACTERS},
    "description": "The same body with the same key is counted once, however often it is sent.",
}


def add_push(
    app: FastAPI, sink: TokenSink, fresh: Callable[[int], Snapshot], write_token_file: Path | None, *, limit_s: float = BODY_LIMIT_S
) -> None:
    """Route POST /api/v1/tokens to ``sink``. ``fresh`` gives the snapshot of now (monotonic ns), or raises HTTPException."""
    push = _Push(sink, fresh, PushAccess(write_token_file), limit_s)
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": answers.Problem, "description": reason} for status, reason in _REASONS.items()
    }
    app.post("/api/v1/tokens", response_model=PushAnswer, responses=responses, openapi_extra=_openapi(write_token_file))(push.tokens)


def _openapi(write_token_file: Path | None) -> dict[str, Any]:
    one = Report.model_json_schema()
    several = {"type": "array", "items": one, "minItems": 1, "maxItems": REPORTS_MAX}
    extra: dict[str, Any] = {
        "parameters": [_KEY_HEADER],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"oneOf": [one, several]}}}},
    }
    if write_token_file is not None:
        token = {"name": "Authorization", "in": "header", "required": True, "schema": {"type": "string"}, "description": "Bearer TOKEN"}
        extra["parameters"].append(token)
    return extra


class _Push:
    """The handler."""

    def __init__(self, sink: TokenSink, fresh: Callable[[int], Snapshot], access: PushAccess, limit_s: float) -> None:
        self._sink = sink
        self._fresh = fresh
        self._access = access
        self._limit_s = limit_s

    async def tokens(self, request: Request) -> Response:
        """Report tokens that were made: one report, or a list of them. All are counted, or none."""
        try:
            self._access.check(request.client.host if request.client is not None else None, request.headers)
        except Refused as e:
            raise HTTPException(e.status, str(e), headers={"www-authenticate": "Bearer"} if e.status == 401 else None) from None
        _check_type(request)
        request_key = _request_key(request)
        try:
            body = read_body(await self._raw(request), now_ns=time.monotonic_ns(), wall_ns=time.time_ns())
        except BadBody as e:
            raise HTTPException(e.status, str(e)) from None
        self._check_servers(body)
        outcome = self._sink.push(body.reports, (request_key, digest(body.found)) if request_key is not None else None)
        if outcome.refusal is not None:
            raise HTTPException(409, outcome.refusal)
        answer = PushAnswer(accepted=outcome.accepted, duplicates=outcome.duplicates)
        return Response(answer.model_dump_json(), media_type="application/json")

    async def _raw(self, request: Request) -> bytes:
        too_large = HTTPException(413, f"The body is larger than {BODY_MAX_BYTES // 1024} KiB; send the reports in several requests.")
        if int(request.headers.get("content-length", "0")) > BODY_MAX_BYTES:  # h11 lets only digits pass
            raise too_large
        raw = bytearray()
        try:
            async with asyncio.timeout(self._limit_s):
                async for part in request.stream():
                    raw += part
                    if len(raw) > BODY_MAX_BYTES:
                        raise too_large
        except TimeoutError:
            raise HTTPException(408, f"The body did not come within {self._limit_s:g} s.", headers={"connection": "close"}) from None
        except ClientDisconnect:
            raise HTTPException(400, "The body broke off.") from None  # nobody reads this
        return bytes(raw)

    def _check_servers(self, body: Body) -> None:
        """Refuse tokens of servers that tokenwatt reads itself, by whatever name: they would count twice."""
        snapshot = self._fresh(time.monotonic_ns())
        ours = self._sink.names()
        read = [server for server in snapshot.servers if server.name not in ours]
        names = {server.name for server in read}
        urls = {url_key(server.url): server.name for server in read if server.url and server.last_sample_wall_s is not None}
        for report, _ in body.reports:
            name = report.server if report.server in names else urls.get(url_key(report.url)) if report.url else None
            if name is not None:
                at = "" if name == report.server else f" at {report.url}"
                raise HTTPException(409, f"tokenwatt reads server {name!r}{at} itself: tokens pushed for it would count twice.")


def _check_type(request: Request) -> None:
    # A web page of another origin can send application/json only after a preflight, which is never granted.
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != "application/json" or charset not in ("", "utf-8"):
        raise HTTPException(415, "Send the body as Content-Type: application/json, in UTF-8.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "Send the body as it is, without Content-Encoding.")


def _request_key(request: Request) -> str | None:
    given = request.headers.get("idempotency-key")
    try:
        return None if given is None else key_text(given)
    except ValueError as e:
        raise HTTPException(422, f"Idempotency-Key: {e}.") from None
