"""A server's page of metrics: where it is, what of it is asked for, and by which counters it is read."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from tokenwatt.servers.asking import Asker
from tokenwatt.servers.engines.description import Engine, Gauge, Scheme
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.http.connection import Answer
from tokenwatt.servers.page import figures
from tokenwatt.servers.page.counters import Counters, holds, is_settled, read_counters, scheme_of, wanted, wanted_by
from tokenwatt.servers.page.exposition import Page, read
from tokenwatt.servers.page.wanted import Wanted
from tokenwatt.servers.recognise import refuse_page

FILTER_RETRY_NS: Final = 600 * 10**9
"""How long a server that did not filter its page is asked for the whole one."""

NO_GAUGES: Final[tuple[frozenset[str], frozenset[str]]] = frozenset(), frozenset()

_log = logging.getLogger("tokenwatt.servers")


class Unfit(Unusable):
    """There is an answer, but no page that can be used."""

    def __init__(self, reason: str, *, status: int = 200, counters_missing: bool = False, rejected: bool = False) -> None:
        super().__init__(reason, rejected=rejected)
        self.status = status
        self.counters_missing = counters_missing
        """It is a page of metrics, without the counters looked for."""


class Read(NamedTuple):
    """What a page said. ``settled``: it showed counters, so that it is known by which of its schemes this server counts.

    ``left_out``: names that were not asked for, so that it says nothing if they are not there.
    """

    answer: Answer
    engine: Engine
    scheme: Scheme
    settled: bool
    counters: Counters
    left_out: frozenset[str] = frozenset()
    in_flight: Mapping[str, int] | None = None
    """Of a router, which tells it by model."""


class MetricsPage:
    """A page of one of ``engines``; once ``settle`` was called, of one scheme of one engine.

    ``owner``: the engine that the server says it is, where it does. Others of ``engines`` pass its counters on.
    """

    def __init__(self, ask: Asker, engines: tuple[Engine, ...], path: str, owner: Engine | None = None) -> None:
        self.path = path
        self._ask = ask
        self._engines = engines
        self._owner = owner
        self._scheme: Scheme | None = None
        self.gauges = NO_GAUGES
        """The names of those of running and of waiting requests, once it is known by which scheme the server counts."""
        self._wanted = wanted(engines)
        self._may_filter = owner is not None and owner in engines and owner.filters and "?" not in path
        self._asked_for: Iterable[str] = _names(owner, engines) if owner is not None and self._may_filter else ()
        self._whole_until_ns = 0
        self._filtered_paths: dict[frozenset[str], str] = {}

    @property
    def filters(self) -> bool:
        """Whether only the wanted names are asked for, as far as is known."""
        return self._may_filter and time.monotonic_ns() >= self._whole_until_ns

    def settle(self, engine: Engine, scheme: Scheme) -> None:
        """From now on read by this scheme, and ask for nothing else: fewer lines, and fewer bytes from a server that filters."""
        self._engines, self._scheme = (engine,), scheme
        self.gauges = frozenset(g.name for g in scheme.running), frozenset(g.name for g in scheme.waiting)
        self._may_filter = self._may_filter and engine.filters
        self._wanted = wanted_by(engine, scheme)
        self._asked_for = self._wanted.types
        self._filtered_paths.clear()

    def read(self, leave_out: frozenset[str] = frozenset()) -> Read:
        """Ask for the page, where it can be filtered without the names in ``leave_out``.

        Raises:
            Unfit: what was answered is not a page with the counters.
            Unusable: nothing was answered.
        """
        if self.filters:
            answer = self._ask.page(self._filtered_path(leave_out))
            if (found := self._found(answer)) is not None:
                return self._read(answer, *found)._replace(left_out=leave_out)
            self._whole_until_ns = time.monotonic_ns() + FILTER_RETRY_NS
        answer = self._ask.page(self.path)
        if (fresh := self._fresh(answer)) is not None:
            return self._read(answer, Page({}, {}), *fresh)
        page = self._page(answer)
        counting = self._counting(page)
        if counting is None:
            refuse_page(answer.body)
            raise Unfit(f"{self.path} has no token counters: {self._looked_for()}", counters_missing=True)
        return self._read(answer, page, *counting)

    def asleep(self, gauge: Gauge) -> bool | None:
        """Whether a gauge of sleep is above 0, asked for by itself. None: it is not told.

        Raises:
            Unusable: nothing was answered.
        """
        answer = self._ask.page(self._filtered_path_of([gauge.name]))
        try:
            self._ask.endpoint.check(self.path, answer)
            return figures.asleep(read(answer.body, Wanted({gauge.name: "gauge"}), answer.content_type), gauge)
        except Unusable as e:
            _log.debug("a gauge is not told apart: %s", e.reason)
            return None

    def _filtered_path_of(self, names: Iterable[str]) -> str:
        return f"{self.path.rstrip('/')}/?{'&'.join(f'name[]={name}' for name in names)}"

    def _filtered_path(self, leave_out: frozenset[str]) -> str:
        path = self._filtered_paths.get(leave_out)
        if path is None:
            names = (name for name in self._asked_for if name not in leave_out)
            path = self._filtered_paths[leave_out] = self._filtered_path_of(names)
        return path

    def _read(self, answer: Answer, page: Page, engine: Engine, scheme: Scheme) -> Read:
        try:
            return Read(answer, engine, scheme, is_settled(page, scheme), read_counters(page, engine, scheme))
        except Unusable as e:
            raise Unfit(e.reason, rejected=e.rejected) from None

    def _found(self, answer: Answer) -> tuple[Page, Engine, Scheme] | None:
        """The filtered page, if it is one. A server that cannot filter answers all sorts of things, an empty page with status 200 too."""
        try:
            page = self._page(answer)
        except Unusable as e:
            _log.debug("a page is not filtered: %s", e.reason)
            return None
        counting = self._counting(page)
        if counting is None or not is_settled(page, counting[1]) or page.wrong:
            return None
        engine, scheme = counting
        return page, engine, scheme if self._scheme is not None else _smallest(page, engine, scheme)

    def _fresh(self, answer: Answer) -> tuple[Engine, Scheme] | None:
        """How the server counts, where its page has nothing yet: known to be one that shows a metric from its first value on."""
        if self._owner is None or self._scheme is not None or answer.status != 200:
            return None
        if answer.content_type.partition(";")[0].strip().lower() not in ("", "text/plain", "application/openmetrics-text"):
            return None
        if any(line.strip() and not line.startswith(b"#") for line in answer.body.split(b"\n")):
            return None
        owner = self._owner
        return next(((owner, scheme) for scheme in owner.schemes if scheme.sparse), None)

    def _page(self, answer: Answer) -> Page:
        try:
            self._ask.endpoint.check(self.path, answer)
        except Unusable as e:
            raise Unfit(e.reason, status=answer.status) from None
        try:
            return read(answer.body, self._wanted, answer.content_type)
        except Unusable as e:
            refuse_page(answer.body)
            raise Unfit(f"{self.path}: {e.reason}", rejected=e.rejected) from None

    def _counting(self, page: Page) -> tuple[Engine, Scheme] | None:
        if self._scheme is not None:
            # Without a single one of its counters left, the server may have begun to count by others: then all must be looked at.
            return (self._engines[0], self._scheme) if holds(page, self._scheme) and is_settled(page, self._scheme) else None
        found = [(engine, scheme) for engine in self._engines if (scheme := scheme_of(page, engine)) is not None]
        return next(((e, s) for e, s in found if is_settled(page, s)), found[0] if found else None)

    def _looked_for(self) -> str:
        looked_for = self._engines if self._owner is None else (self._owner,)
        if len(looked_for) > 3:
            return "looked for those of all engines; of another server, name them (engine generic)"
        # The last scheme asks for the least.
        return f"looked for {'; '.join(f'{e.name}: ' + ' and '.join(c.name for c in e.schemes[-1].counters) for e in looked_for)}"


def _names(owner: Engine, engines: tuple[Engine, ...]) -> Iterable[str]:
    """What a server that filters is asked for: the names of ``owner``, and those that tell who else passes its counters on."""
    counters = owner.counters().keys()
    others = (s for e in engines for s in e.schemes if counters & {c.name for c in s.counters})
    return dict.fromkeys((*wanted([owner]).types, *(name for s in others for name in (*s.needs, *s.marks))))


def _smallest(page: Page, engine: Engine, scheme: Scheme) -> Scheme:
    """Of the schemes that tell as much as this one, that of the fewest series.

    Only for a server that filters, where each series has its price. Those are of one process and show all counters of one instant; of
    several processes a page may show one counter before and the other after a step, and the scheme that comes first is the one for that.
    """
    told = scheme.cached, scheme.update, scheme.sparse
    as_much = (s for s in engine.schemes if holds(page, s) and (s.cached, s.update, s.sparse) == told)
    return min(as_much, key=lambda s: sum(len(page.samples.get(c.name, ())) for c in s.counters), default=scheme)
