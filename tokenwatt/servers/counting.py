"""By which page, and by which of its counters, one start of a server is counted."""

from __future__ import annotations

from dataclasses import dataclass

from tokenwatt.servers.asking import Asker
from tokenwatt.servers.engines import ENGINES
from tokenwatt.servers.engines.description import PROCESS_START, Engine, Gauge, Scheme
from tokenwatt.servers.engines.generic import NAME as GENERIC
from tokenwatt.servers.engines.generic import generic
from tokenwatt.servers.engines.llamacpp import LLAMACPP
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.metrics_page import NO_GAUGES, MetricsPage, Read, Unfit
from tokenwatt.servers.recognise import Recognised, recognise, refuse
from tokenwatt.servers.router import Router, is_router
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import Listener


@dataclass(frozen=True, slots=True)
class _Counted:
    """By what a start of the server was counted. Another scheme within the same start would count its tokens twice."""

    engine: str
    scheme: Scheme
    process_start: float | None
    listener: Listener | None


class Counting:
    """Finds the page with the counters and stays with it, as long as it has them.

    Raises:
        ValueError: the target's engine is none.
    """

    def __init__(self, target: ServerTarget, ask: Asker) -> None:
        self._ask = ask
        self._metrics_path = target.metrics_path
        self._configured = configured_engine(target)
        self._recognised: Recognised | None = None
        self._page: MetricsPage | None = None
        self._router: Router | None = None
        self._engine: Engine | None = None
        self._counted: _Counted | None = None

    def recognise(self) -> Engine | None:
        """Know what may be asked. The engine, where it is known before its page is read.

        Raises:
            Unusable: it does not answer, or is known to have no token counters.
        """
        if self._recognised is None:
            if self._configured is None:
                recognised = recognise(self._ask)
            else:
                self._ask.forbid([self._configured])
                recognised = Recognised((self._configured,), self._configured.metrics_paths, self._configured)
            path = self._metrics_path
            self._recognised = recognised._replace(paths=(path,)) if path is not None else recognised
        engines = self._recognised.engines
        return self._engine or (engines[0] if len(engines) == 1 else None)

    def forget(self, *, gone: bool) -> None:
        """Find it all out again: another server may answer. ``gone``: it must be another start."""
        self._recognised = self._page = self._router = self._engine = None
        self._ask.forget()
        if gone:
            self._counted = None

    @property
    def routed(self) -> bool:
        """Whether it is a llama.cpp router, read model by model: that takes more than one request."""
        return self._router is not None

    def filters(self) -> bool:
        """Whether names may be left out of what is asked for."""
        return self._engine is not None and self._page is not None and self._page.filters

    def gauges(self) -> tuple[frozenset[str], frozenset[str]]:
        """The names of the gauges of running and of waiting requests, once it is known by which scheme the server counts."""
        return self._page.gauges if self._page is not None else NO_GAUGES

    def asleep(self, gauge: Gauge) -> bool | None:
        """Whether the server says that it sleeps, of a page that is filtered for this alone. None: it does not say."""
        return self._page.asleep(gauge) if self._page is not None else None

    def read(self, leave_out: frozenset[str]) -> tuple[Read, bool]:
        """The page with its counters, and whether it is another one than before. The names in ``leave_out`` need not be asked for.

        Raises:
            Unusable: there is none that can be used.
        """
        if self._page is not None:
            try:
                return self._read_again(self._page, leave_out), False
            except Unfit as e:
                if self._ask.hurried:
                    raise
                if not e.counters_missing:
                    if e.status in (200, 400, 404) and not e.rejected:
                        self.forget(gone=False)  # it does not look like a server that is busy: next time ask who it is
                    raise
                self.forget(gone=False)  # it counts otherwise now, or another server has taken the port
                self.recognise()
        elif self._router is not None:
            if (routed := self._router.read()) is not None:
                return routed, False
            self.forget(gone=False)
            self.recognise()
        return self._read_first(), True

    def _read_again(self, page: MetricsPage, leave_out: frozenset[str]) -> Read:
        connection = self._ask.endpoint.connection
        opened = connection.opened
        read = page.read(leave_out)
        if PROCESS_START in leave_out and connection.opened != opened:
            return page.read()  # the connection was closed meanwhile, and another process may have taken the new one
        return read

    def _read_first(self) -> Read:
        recognised = self._recognised
        assert recognised is not None
        failure: Unfit | None = None
        for path in recognised.paths:
            engines = recognised.engines
            if self._metrics_path is None:
                engines = tuple(e for e in engines if path in e.metrics_paths)
            page = MetricsPage(self._ask, engines, path, recognised.owner)
            try:
                read = page.read()
            except Unfit as e:
                # Of paths that all might have been it, the last is the commonest.
                if failure is None or _tells(e) > _tells(failure) or (recognised.owner is None and _tells(e) == _tells(failure)):
                    failure = e
            else:
                self._page = page
                return read
        if self._metrics_path is None and failure is not None and failure.status == 400 and (routed := self._read_router(recognised)):
            return routed
        self.forget(gone=False)  # what answers so may be another server soon
        raise self._no_counters(recognised, failure)

    def _read_router(self, recognised: Recognised) -> Read | None:
        """All its models, where the page is missing because it is a router: that one answers 400 as long as no model is named."""
        if recognised.owner is not LLAMACPP or not is_router(self._ask, self._ask.models()):
            return None
        self._router = Router(self._ask)
        return self._router.read()

    def _no_counters(self, recognised: Recognised, failure: Unfit | None) -> Unusable:
        if failure is None:
            return Unusable("nothing may be asked for metrics as long as it is not known what it is: give its engine")
        switched_off = failure.counters_missing or failure.status in (404, 501)
        if switched_off and recognised.not_metered is not None:
            refuse([recognised.not_metered])
        engine = recognised.owner
        if engine is None or not switched_off:
            return failure
        advice = f" ({engine.no_counters})" if engine.no_counters else ""
        return Unusable(f"{engine.name} cannot be metered, because {failure.reason}{advice}", not_metered=engine.name)

    def settle(self, read: Read, process_start: float | None, listener: Listener | None) -> None:
        """Hold on to a page's scheme for this start of the server.

        Raises:
            Unusable: this start was counted by another.
        """
        before = self._counted
        same_start = before is not None and (before.process_start, before.listener) == (process_start, listener)
        if before is not None and same_start and before.engine == read.engine.name and before.scheme != read.scheme:
            self.forget(gone=False)
            was, now = (" and ".join(c.name for c in s.counters) for s in (before.scheme, read.scheme))
            raise Unusable(f"it was read by {was}, and now shows only {now}: both together would count tokens twice; restart it")
        self._counted = _Counted(read.engine.name, read.scheme, process_start, listener)
        if self._engine is None and self._page is not None:
            self._engine = read.engine
            self._page.settle(read.engine, read.scheme)


def _tells(failure: Unfit) -> int:
    """How much a failure says of what is wrong: its counters hold what they cannot, it has none, it is no page, there is none."""
    if failure.rejected:
        return 3
    return 2 if failure.counters_missing else int(failure.status != 404)


def configured_engine(target: ServerTarget) -> Engine | None:
    """The engine that the settings name. None: it is to be found out.

    Raises:
        ValueError: they name none that there is.
    """
    if target.engine == "auto":
        return None
    if target.engine == GENERIC:
        prompt, prompt_cached, generation = target.counters or (None, None, None)
        return generic(prompt=prompt, prompt_cached=prompt_cached, generation=generation)
    if target.engine not in ENGINES:
        raise ValueError(f"{target.engine} is no engine that can be read: auto, {GENERIC}, {', '.join(ENGINES)}")
    return ENGINES[target.engine]
