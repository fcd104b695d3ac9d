"""One server, asked once: what it says, and why it says nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tokenwatt.servers.asking import Asker
from tokenwatt.servers.counting import Counting
from tokenwatt.servers.engines import ENGINES
from tokenwatt.servers.engines.description import PROCESS_START, Engine, Gauge
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.http.endpoint import Endpoint
from tokenwatt.servers.identity import ListenerWatch
from tokenwatt.servers.in_flight import ask_in_flight
from tokenwatt.servers.metrics_page import Read
from tokenwatt.servers.sleep import rest_of, says_asleep
from tokenwatt.servers.starts import Start
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import Listener, SeriesKey, ServerFailure, ServerReading

ASLEEP_NS: Final = 10 * 10**9
"""How often a server that filters its page is asked whether it sleeps, while nothing runs."""

WAITING_EVERY: Final = 4
"""Of so many filtered pages one tells who waits, and the others what runs."""


class Scraper:
    """Asks one server, over one connection that is kept. ``abort`` may be called from any thread, all else from one at a time.

    Raises:
        ValueError: the target's url or engine is none.
    """

    def __init__(self, target: ServerTarget) -> None:
        self._target = target
        self._endpoint = Endpoint(target)
        self._ask = Asker(self._endpoint)
        self._counting = Counting(target, self._ask)
        self._watch = ListenerWatch(self._endpoint.port, namespace=target.namespace)
        self._start = Start()

    def scrape(self) -> ServerReading | ServerFailure:
        """Ask the server now. Every failure is an answer too."""
        try:
            return self._reading()
        except Unusable as e:
            self._endpoint.connection.close()
            gone = e.gone or self._watch.exited()
            self._watch.after_failure()
            if gone:
                self._start = Start()
                self._counting.forget(gone=True)
            else:
                self._start.version = None
            return ServerFailure(
                self._target.name, time.monotonic_ns(), e.reason, gone=gone, rejected=e.rejected, not_metered=e.not_metered
            )
        finally:
            self._ask.forget()

    def scrape_quickly(self, limit_s: float) -> ServerReading | None:
        """Ask the server now, if the connection is still there, all in ``limit_s``. None says nothing of the server: ``scrape`` does."""
        if self._counting.routed:  # it takes several connections
            return None
        self._ask.hurry(limit_s)
        try:
            return self._reading()
        except Unusable:
            # The watch and the start are left as they are: from them ``scrape`` tells whether the server is gone.
            self._endpoint.connection.close()
            return None
        finally:
            self._ask.hurry(None)
            self._ask.forget()

    def abort(self) -> None:
        """End a ``scrape`` that waits, now and for good."""
        self._endpoint.connection.abort()

    def close(self) -> None:
        """Let the connection go."""
        self._endpoint.connection.close()

    def _reading(self) -> ServerReading:
        engine = self._counting.recognise()
        if engine is not None and not self._counting.routed and (held := self._held(engine)) is not None:
            return held
        told_asleep = self._told_asleep()
        read, first = self._counting.read(self._left_out())
        answer, engine, counters = read.answer, read.engine, read.counters
        running, waiting = self._requests(read)
        t_ns = (answer.sent_ns + answer.received_ns) // 2
        listener = self._watch.after_answer(self._endpoint.connection, answer.received_ns)
        process_start = self._start.process_start if PROCESS_START in read.left_out else counters.process_start
        if first or self._start.is_another(process_start, listener):
            self._start = Start(asleep=self._start.asleep)
        self._start.note(process_start, listener, t_ns=t_ns, opened=self._endpoint.connection.opened)
        if read.settled:
            self._counting.settle(read, process_start, listener)
        tokens = self._with_model(engine, counters.tokens)
        in_flight = read.in_flight if self._counting.routed else self._in_flight(engine, tokens, running)
        reading = ServerReading(
            server=self._target.name,
            t_ns=t_ns,
            engine=engine.name,
            counters=tokens,
            running=running,
            waiting=waiting,
            process_start=self._start.process_start,
            process_start_ns=self._start.process_start_ns,
            version=self._version(engine),
            update="step" if self._start.refines else counters.update,
            cached=counters.cached,
            listener=listener,
            duration_ns=answer.received_ns - answer.sent_ns,
            size_bytes=len(answer.body),
            in_flight=in_flight,
            latency=counters.latency,
            asleep=self._start.sleeps(told_asleep if counters.asleep is None else counters.asleep, running, t_ns),
        )
        if not self._target.tokens:
            reading = self._start.without_tokens(reading)
        self._start.last = reading
        if engine.asleep and not self._counting.routed:
            self._begin_rest(listener, reading)
        return reading

    # --- what is asked for of a page that is filtered ------------------------------------------------------------------------------------

    def _left_out(self) -> frozenset[str]:
        """What need not be asked for this time. Each name takes a fifth of the page, and a server's time to make it."""
        start = self._start
        if start.last is None or not self._counting.filters():
            return frozenset()
        names = [PROCESS_START] if start.vouched == self._endpoint.connection.opened else []
        if (gauge := self._sleep_gauge()) is not None:
            names.append(gauge.name)
        start.turn += 1
        running, waiting = self._counting.gauges()
        # Who waits may be known a little later; what runs tells busy time from idle time.
        return frozenset((*names, *(waiting if start.turn % WAITING_EVERY else running)))

    def _requests(self, read: Read) -> tuple[int | None, int | None]:
        """How many requests run and wait: by the page, or as they were told last where it was not asked for them."""
        counters, last = read.counters, self._start.last
        if last is None or not read.left_out:
            return counters.running, counters.waiting
        running, waiting = self._counting.gauges()
        return (
            counters.running if read.left_out.isdisjoint(running) else last.running,
            counters.waiting if read.left_out.isdisjoint(waiting) else last.waiting,
        )

    def _told_asleep(self) -> bool | None:
        """Whether it sleeps, asked apart now and then while nothing runs: that gauge is as large as all the others. None: not asked."""
        start, gauge = self._start, self._sleep_gauge()
        if start.last is None or gauge is None or start.last.running or not self._counting.filters():
            return None
        now_ns = time.monotonic_ns()
        if now_ns - start.asleep_asked_ns < ASLEEP_NS:
            return None
        start.asleep_asked_ns = now_ns
        return self._counting.asleep(gauge)

    def _sleep_gauge(self) -> Gauge | None:
        last = self._start.last
        return ENGINES[last.engine].asleep_gauge if last is not None and last.engine in ENGINES else None

    # --- what holds for one start of the server ------------------------------------------------------------------------------------------

    def _version(self, engine: Engine) -> str:
        if self._start.version is None:
            version = self._ask.first(engine.version)
            self._start.version = version if isinstance(version, str) else ""
        return self._start.version

    def _with_model(self, engine: Engine, tokens: dict[SeriesKey, int]) -> dict[SeriesKey, int]:
        """The counters, those without a model's name under the one that the server lists."""
        if all(key.model for key in tokens):
            return tokens
        model = self._model(engine)
        return {key if key.model else key._replace(model=model): n for key, n in tokens.items()}

    def _model(self, engine: Engine) -> str:
        if self._start.model is None:
            try:
                entries = self._ask.models().entries
            except Unusable:  # the page was read all the same
                if self._ask.hurried:  # ``scrape`` has more time for it
                    raise
                entries = ()
            model = entries[0].get("id") if entries else self._ask.first(engine.model)
            self._start.model = model if isinstance(model, str) else ""
        return self._start.model

    # --- what moves, and whether anything can --------------------------------------------------------------------------------------------

    def _held(self, engine: Engine) -> ServerReading | None:
        """A reading of a server that sleeps, or is about to: nothing has moved, and to read its page could wake it. None: read it."""
        start = self._start
        if not engine.asleep or (start.last is not None and start.last.running):
            return None
        sent_ns = time.monotonic_ns()
        start.asleep = says_asleep(self._ask, engine)
        received_ns = time.monotonic_ns()
        if not start.asleep and (start.rest is None or not start.rest.lasts(received_ns)):
            return None
        listener = self._watch.after_answer(self._endpoint.connection, received_ns)
        if start.last is None or start.is_another(start.process_start, listener):
            self._start = Start()
            self._counting.forget(gone=True)
            raise Unusable("it sleeps, and was not read since it was started: to read it might wake it, so it is read when a request does")
        start.last = replace(
            start.last,
            t_ns=(sent_ns + received_ns) // 2,
            running=0,
            waiting=0,
            in_flight=None,
            asleep=start.asleep,
            listener=listener,
            duration_ns=received_ns - sent_ns,
        )
        return start.last

    def _begin_rest(self, listener: Listener | None, reading: ServerReading) -> None:
        start = self._start
        if listener is not None and not start.rest_known:
            start.rest, start.rest_known = rest_of(listener, reading.version), True
        if start.rest is not None:
            start.rest.begin(reading.t_ns)

    def _in_flight(self, engine: Engine, tokens: Mapping[SeriesKey, int], running: int | None) -> Mapping[str, int] | None:
        """Asked after the page: a request that ends between the two is missing in this reading, and never in it twice."""
        start, models = self._start, {key.model for key in tokens}
        if engine.in_flight is None or not running or start.refines is False or len(models) != 1:
            return None
        count, settled = ask_in_flight(self._ask, engine.in_flight)
        if start.refines is None and settled:
            start.refines = count is not None
        return None if count is None else {models.pop(): count}
