"""One server, asked once: which page, what it says, and why it says nothing."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tokenwatt.servers.connection import Answer
from tokenwatt.servers.counters import Counters, read_counters, scheme_of, wanted
from tokenwatt.servers.endpoint import Endpoint
from tokenwatt.servers.engines import ENGINES, METRICS_UNSAFE, Engine, Scheme
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.exposition import Page, Wanted, read
from tokenwatt.servers.identity import ListenerWatch
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import SeriesKey, ServerFailure, ServerReading

LIMIT_S: Final = 2.0
"""The whole of one request for metrics."""
ASIDE_LIMIT_S: Final = 1.0
"""A request for the version or the models, once a start of the server."""
FILTER_RETRY_NS: Final = 600 * 10**9
"""How long a server that did not filter its page is asked for the whole one."""

# Never OpenMetrics: client_python takes 1.7 times as long for it, and some of its versions rename the samples.
_ACCEPT_TEXT: Final = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
_ACCEPT_JSON: Final = "application/json"

_log = logging.getLogger("tokenwatt.servers")


@dataclass(frozen=True, slots=True)
class _Source:
    """A page that one of ``engines`` may be read from: all of it, or only the wanted names."""

    engines: tuple[Engine, ...]
    path: str
    filtered_path: str | None
    wanted: Wanted


@dataclass(slots=True)
class _Start:
    """What holds for one start of the server, and is asked for anew when it was started again."""

    source: _Source | None = None
    whole_page_until_ns: int = 0
    version: str | None = None
    model: str | None = None
    process_start: float | None = None
    process_start_ns: int | None = None


class Scraper:
    """Asks one server, over one connection that is kept. ``abort`` may be called from any thread, all else from one at a time.

    Raises:
        ValueError: the target's url or engine is none.
    """

    def __init__(self, target: ServerTarget) -> None:
        self._target = target
        self._endpoint = Endpoint(target)
        engines = ENGINES.values() if target.engine == "auto" else [ENGINES[target.engine]] if target.engine in ENGINES else []
        if not engines:
            raise ValueError(f"{target.engine} is no engine that can be read: auto, {', '.join(ENGINES)}")
        self._sources = _sources(engines, target.metrics_path)
        self._watch = ListenerWatch(self._endpoint.port)
        self._start = _Start()
        self._quick_end_ns: int | None = None

    def scrape(self) -> ServerReading | ServerFailure:
        """Ask the server now. Every failure is an answer too."""
        try:
            return self._reading()
        except Unusable as e:
            self._endpoint.connection.close()
            gone = e.gone or self._watch.exited()
            self._watch.after_failure()
            if gone:
                self._start = _Start()
            else:
                self._start.version = None
            return ServerFailure(self._target.name, time.monotonic_ns(), e.reason, gone=gone, rejected=e.rejected)

    def scrape_quickly(self, limit_s: float) -> ServerReading | None:
        """Ask the server now, if the connection is still there, all in ``limit_s``. None says nothing of the server: ``scrape`` does."""
        self._quick_end_ns = time.monotonic_ns() + int(limit_s * 1e9)
        try:
            return self._reading()
        except Unusable:
            # The watch and the start are left as they are: from them ``scrape`` tells whether the server is gone.
            self._endpoint.connection.close()
            return None
        finally:
            self._quick_end_ns = None

    def abort(self) -> None:
        """End a ``scrape`` that waits, now and for good."""
        self._endpoint.connection.abort()

    def close(self) -> None:
        """Let the connection go."""
        self._endpoint.connection.close()

    def _reading(self) -> ServerReading:
        page, answer, engine, scheme = self._counted_page()
        counters = read_counters(page, engine, scheme)
        t_ns = (answer.sent_ns + answer.received_ns) // 2
        listener = self._watch.after_answer(self._endpoint.connection, answer.received_ns)
        self._note_start(counters, t_ns)
        return ServerReading(
            server=self._target.name,
            t_ns=t_ns,
            engine=engine.name,
            counters=self._with_model(counters.tokens),
            running=counters.running,
            waiting=counters.waiting,
            process_start=counters.process_start,
            process_start_ns=self._start.process_start_ns,
            version=self._version(engine),
            update=engine.update,
            cached=counters.cached,
            listener=listener,
            duration_ns=answer.received_ns - answer.sent_ns,
            size_bytes=len(answer.body),
        )

    # --- which page ----------------------------------------------------------------------------------------------------------------------

    def _counted_page(self) -> tuple[Page, Answer, Engine, Scheme]:
        """A page with token counters, and how its server counts."""
        if self._start.source is not None:
            return self._counted_page_of(self._start.source)
        if self._target.engine == "auto":
            self._refuse_unsafe()
        for source in self._sources[:-1]:
            try:
                return self._counted_page_of(source)
            except Unusable as e:
                if e.gone:
                    raise
        return self._counted_page_of(self._sources[-1])

    def _counted_page_of(self, source: _Source) -> tuple[Page, Answer, Engine, Scheme]:
        page, answer = self._page(source)
        found = _counting(page, source)
        if found is None:
            self._start = _Start()  # another server may have taken the port
            raise Unusable(f"{source.path} has no token counters: {_looked_for(source.engines)}")
        if self._start.source is None:
            self._start.source = source if len(source.engines) == 1 else _source((found[0],), source.path)
        return page, answer, *found

    def _page(self, source: _Source) -> tuple[Page, Answer]:
        now_ns = time.monotonic_ns()
        if source.filtered_path and now_ns >= self._start.whole_page_until_ns:
            answer = self._get(source.filtered_path, accept=_ACCEPT_TEXT, limit_s=LIMIT_S)
            page = self._filtered(answer, source)
            if page is not None:
                return page, answer
            self._start.whole_page_until_ns = now_ns + FILTER_RETRY_NS
        answer = self._get(source.path, accept=_ACCEPT_TEXT, limit_s=LIMIT_S)
        self._endpoint.check(source.path, answer)
        try:
            return read(answer.body, source.wanted, answer.content_type), answer
        except Unusable as e:
            raise Unusable(f"{source.path}: {e.reason}", rejected=e.rejected) from None

    def _get(self, path: str, *, accept: str, limit_s: float) -> Answer:
        if self._quick_end_ns is None:
            return self._endpoint.get(path, accept=accept, limit_s=limit_s)
        return self._endpoint.get(path, accept=accept, limit_s=(self._quick_end_ns - time.monotonic_ns()) / 1e9, kept_only=True)

    def _filtered(self, answer: Answer, source: _Source) -> Page | None:
        """The filtered page, if it is one. A server that cannot filter answers all sorts of things, an empty page with status 200 too."""
        try:
            self._endpoint.check(source.path, answer)
            page = read(answer.body, source.wanted, answer.content_type)
        except Unusable as e:
            _log.debug("%s does not filter its page: %s", self._target.name, e.reason)
            return None
        return page if _counting(page, source) else None

    # --- what holds for one start of the server ------------------------------------------------------------------------------------------

    def _note_start(self, counters: Counters, t_ns: int) -> None:
        if counters.process_start == self._start.process_start:
            return
        if self._start.process_start is not None:
            self._start = _Start(source=self._start.source)
        self._start.process_start = counters.process_start
        if counters.process_start is not None:
            # Once a start, so that it does not move with every correction of the wall clock.
            self._start.process_start_ns = t_ns - (time.time_ns() - round(counters.process_start * 1e9))

    def _version(self, engine: Engine) -> str:
        if self._start.version is None:
            try:
                answer = self._aside(engine.version_path)
            except Unusable:  # the page was read all the same
                if self._quick_end_ns is not None:  # ``scrape`` has more time for it
                    raise
                answer = None
            version = answer.get("version") if isinstance(answer, dict) else None
            self._start.version = version if isinstance(version, str) else ""
        return self._start.version

    def _with_model(self, tokens: dict[SeriesKey, int]) -> dict[SeriesKey, int]:
        """The counters, those without a model's name under the one that the server lists."""
        if all(key.model for key in tokens):
            return tokens
        if self._start.model is None:
            models = self._models()
            self._start.model = str(models[0].get("id", "")) if models else ""
        model = self._start.model
        return {key if key.model else key._replace(model=model): n for key, n in tokens.items()}

    def _refuse_unsafe(self) -> None:
        for model in self._models():
            if (why := METRICS_UNSAFE.get(str(model.get("owned_by")))) is not None:
                raise Unusable(f"not read: {why}")

    def _models(self) -> list[dict[str, Any]]:
        answer = self._aside("/v1/models")
        models = answer.get("data") if isinstance(answer, dict) else None
        return [m for m in models if isinstance(m, dict)] if isinstance(models, list) else []

    def _aside(self, path: str) -> object:
        """What a JSON endpoint answers. None: it has no such endpoint, or not for us, which is no failure of the server.

        Raises:
            Unusable: it does not answer at all.
        """
        answer = self._get(path, accept=_ACCEPT_JSON, limit_s=ASIDE_LIMIT_S)
        if answer.status != 200:
            return None
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError):
            return None


def _counting(page: Page, source: _Source) -> tuple[Engine, Scheme] | None:
    for engine in source.engines:
        if (scheme := scheme_of(page, engine)) is not None:
            return engine, scheme
    return None


def _looked_for(engines: tuple[Engine, ...]) -> str:
    # The last scheme asks for the least.
    names = "; ".join(f"{e.name}: {' and '.join(c.name for c in e.schemes[-1].counters)}" for e in engines)
    return f"looked for {names}" + (f" ({engines[0].no_counters})" if len(engines) == 1 else "")


def _sources(engines: Iterable[Engine], metrics_path: str | None) -> list[_Source]:
    """One source a path, in the order of the engines."""
    by_path: dict[str, list[Engine]] = {}
    for engine in engines:
        by_path.setdefault(metrics_path or engine.metrics_path, []).append(engine)
    return [_source(tuple(group), path) for path, group in by_path.items()]


def _source(engines: tuple[Engine, ...], path: str) -> _Source:
    names = wanted(engines)
    filtered = None
    if all(e.filters for e in engines) and "?" not in path:
        filtered = f"{path.rstrip('/')}/?{'&'.join(f'name[]={name}' for name in names.types)}"
    return _Source(engines, path, filtered, names)
