"""The HTTP side of the meter: /metrics, the REST API, the stream, health.

Handlers read the last snapshot and nothing else: no hardware, no server, no file. All of one answer is from one snapshot. What is pushed
goes to a sink (``tokenwatt.export.push``), and nothing else changes anything.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Query
from fastapi.responses import PlainTextResponse, Response

from tokenwatt import __version__
from tokenwatt.export import answers, prometheus, views
from tokenwatt.export.headers import SECURITY, SIMULATED, DefaultHeaders
from tokenwatt.export.pages import add_pages
from tokenwatt.export.per_snapshot import PerSnapshot
from tokenwatt.export.publisher import Publisher, TooManySubscribers
from tokenwatt.export.push import TokenSink, add_push
from tokenwatt.export.stream import EventStream, event, event_schema
from tokenwatt.export.text import encodable
from tokenwatt.snapshot import Snapshot, Window

_DEFAULT_WINDOW: Final = "1m"

_RETRY: Final = {"retry-after": "1"}

# FastAPI (0.165) wraps each request in OpenTelemetry spans, and exports them where a cluster's environment says so. We send nothing.
_NO_TELEMETRY: Final[dict[str, Any]] = {"telemetry": {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}}

_Responses = dict[int | str, dict[str, Any]]

_STALE: Final[_Responses] = {503: {"model": answers.Problem, "description": "There is no reading, or the last one is too old."}}
_UNKNOWN: Final[_Responses] = {
    404: {"model": answers.Problem, "description": "There is no such server or model."},
    422: {"model": answers.Problem, "description": "There is no such window."},
}
_EVENTS: Final[_Responses] = {
    200: {"description": "One event a snapshot.", "content": {"text/event-stream": {"itemSchema": event_schema("Live")}}},
    503: {
        "description": _STALE[503]["description"],
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    },
}
_STALE_TEXT: Final[_Responses] = {
    503: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Why there is no answer, in one sentence."}
}


def create_app(
    publisher: Publisher, *, simulated: bool, tokens: TokenSink | None = None, write_token_file: Path | None = None
) -> FastAPI:
    """The ASGI app that shows what ``publisher`` holds. With ``simulated``, every answer and page says so.

    With ``tokens``, what processes push goes there: from whoever has the token in ``write_token_file``, without one from this machine only.
    """
    endpoints = _Endpoints(publisher)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        endpoints.close()

    app = FastAPI(
        title="tokenwatt (demo: every figure is simulated)" if simulated else "tokenwatt",
        version=__version__,
        summary="Tokens per joule of every model on this node.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        **_NO_TELEMETRY,
    )
    app.state.publisher = publisher
    app.add_middleware(DefaultHeaders, headers=SECURITY + SIMULATED if simulated else SECURITY)
    endpoints.add_to(app)
    if tokens is not None:
        add_push(app, tokens, endpoints.fresh, write_token_file)
    add_pages(app, simulated=simulated)
    return app


class _Endpoints:
    """The handlers, and what they share."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._rendered = PerSnapshot()

    def add_to(self, app: FastAPI) -> None:
        """Route to the handlers. GET /metrics and /-/ are in the OpenAPI document, their HEAD is not."""
        for path, text in (("/metrics", self.metrics), ("/-/healthy", self.healthy), ("/-/ready", self.ready)):
            app.get(path, response_class=PlainTextResponse, responses=_STALE_TEXT)(text)
            app.head(path, include_in_schema=False)(text)
        app.get("/api/v1/status", response_model=answers.Status, responses=_STALE)(self.status)
        app.get("/api/v1/gpus", response_model=answers.Gpus, responses=_STALE)(self.gpus)
        app.get("/api/v1/servers", response_model=answers.Servers, responses=_STALE)(self.servers)
        app.get("/api/v1/efficiency", response_model=answers.Efficiency, responses={**_STALE, **_UNKNOWN})(self.efficiency)
        # FastAPI looks for a default of status_code in the response class, whose constructor has none.
        app.get("/api/v1/stream", response_model=answers.Live, response_class=EventStream, status_code=200, responses=_EVENTS)(self.stream)

    def close(self) -> None:
        self._rendered.close()

    async def metrics(self) -> Response:
        """The metric families, in Prometheus' text format."""
        snapshot = self._publisher.fresh(time.monotonic_ns())
        if snapshot is None:
            return self._stale_text()
        page = await self._rendered.get(snapshot, "metrics", lambda: prometheus.render(snapshot))
        return Response(page, headers={"content-type": prometheus.CONTENT_TYPE})

    async def healthy(self) -> Response:
        """200 while snapshots come; 503 when the last one is older than 10 s."""
        return self._stale_text() if self._publisher.fresh(time.monotonic_ns()) is None else PlainTextResponse("healthy\n")

    async def ready(self) -> Response:
        """200 once energy was sampled and every configured server was asked once; 503 before."""
        snapshot = self._publisher.fresh(time.monotonic_ns())
        if snapshot is None:
            return self._stale_text()
        if not snapshot.ready:
            return PlainTextResponse("No energy was sampled yet, or not every configured server was asked.\n", 503, headers=_RETRY)
        return PlainTextResponse("ready\n")

    async def status(self) -> Response:
        """The meter itself: readiness, problems, totals."""
        now_ns = time.monotonic_ns()
        return _json(views.status(self.fresh(now_ns), now_ns).model_dump_json().encode())

    async def gpus(self) -> Response:
        """Every GPU: energy, power, who uses it."""
        return await self._answer(self.fresh(time.monotonic_ns()), "gpus", views.gpus)

    async def servers(self) -> Response:
        """Every inference server: tokens, energy, the GPUs it holds."""
        return await self._answer(self.fresh(time.monotonic_ns()), "servers", views.servers)

    async def efficiency(
        self,
        window: Annotated[str | None, Query(description="10s, 1m, ...: one of those that /api/v1/status names. By default 1m.")] = None,
        server: Annotated[str | None, Query(description="Only this server.")] = None,
        model: Annotated[str | None, Query(description="Only this model.")] = None,
    ) -> Response:
        """Tokens per joule of every model of every server, over one window."""
        snapshot = self.fresh(time.monotonic_ns())
        span = _window(snapshot, window)
        _check_exists(snapshot, server, model)
        key = ("efficiency", span.label, server, model)
        return await self._answer(snapshot, key, lambda s: views.efficiency(s, span, server, model))

    async def stream(self) -> Response:
        """Everything, once a snapshot, as server-sent events. The first event comes at once; a client that is slow gets only the newest."""
        self.fresh(time.monotonic_ns())
        try:
            subscription = self._publisher.changes()
        except TooManySubscribers as e:
            raise HTTPException(503, str(e), headers=_RETRY) from None
        return EventStream(subscription, self._event)

    async def _event(self, snapshot: Snapshot) -> bytes:
        return await self._rendered.get(
            snapshot, "event", lambda: event(views.live(snapshot, time.monotonic_ns()).model_dump_json().encode())
        )

    async def _answer(self, snapshot: Snapshot, key: Hashable, view: Callable[[Snapshot], answers.Answer]) -> Response:
        return _json(await self._rendered.get(snapshot, key, lambda: view(snapshot).model_dump_json().encode()))

    def fresh(self, now_ns: int) -> Snapshot:
        """The last snapshot.

        Raises:
            HTTPException: 503, there is none or it is too old.
        """
        snapshot = self._publisher.fresh(now_ns)
        if snapshot is None:
            raise HTTPException(503, self._why_stale(now_ns), headers=_RETRY)
        return snapshot

    def _stale_text(self) -> Response:
        return PlainTextResponse(self._why_stale(time.monotonic_ns()) + "\n", 503, headers=_RETRY)

    def _why_stale(self, now_ns: int) -> str:
        last = self._publisher.current
        if last is None:
            return "There is no reading yet: the meter is starting."
        return f"The last reading is {(now_ns - last.t_ns) / 1e9:.0f} s old: the meter has stopped sampling."


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _window(snapshot: Snapshot, label: str | None) -> Window:
    """The window of this label; without one, the default.

    Raises:
        HTTPException: there is none; its text names those that there are.
    """
    by_label = {w.label: w for w in snapshot.windows}
    if label is None:
        return by_label.get(_DEFAULT_WINDOW, snapshot.windows[0])
    if label not in by_label:
        raise HTTPException(422, f"There is no window {label!r}. There are: {', '.join(by_label)}.")
    return by_label[label]


def _check_exists(snapshot: Snapshot, server: str | None, model: str | None) -> None:
    """Raise HTTPException where a server or a model is asked for that there is not."""
    servers = [s for s in snapshot.servers if server is None or s.name == server]
    if server is not None and not servers:
        raise HTTPException(404, f"There is no server {server!r}. {_there_are(s.name for s in snapshot.servers)}")
    models = {m.model for s in servers for m in s.models}
    if model is not None and model not in models:
        where = "" if server is None else f" on server {server!r}"
        raise HTTPException(404, f"There is no model {model!r}{where}. {_there_are(models)}")


def _there_are(names: Iterable[str]) -> str:
    listed = ", ".join(sorted(repr(encodable(name)) for name in names))
    return f"There are: {listed}." if listed else "There are none."
