"""A llama-server in router mode: one port for several models, each in a llama-server of its own that it starts and ends.

It has no counters itself. It hands on the page of the model that is named, and loads that model first unless ``autoload=false``: then it
answers 400 for one that is not there. To list its models is harmless. A page that it hands on wakes no model that sleeps, and keeps none
from being the next to be unloaded. (All seen with b11669.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from tokenwatt.servers.asking import LIMIT_S, Asker, Models, field
from tokenwatt.servers.engines.llamacpp import LLAMACPP
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.http.connection import Answer
from tokenwatt.servers.in_flight import ask_in_flight
from tokenwatt.servers.metrics_page import MetricsPage, Read, Unfit
from tokenwatt.servers.page.counters import Counters
from tokenwatt.servers.sleep import leaves_asleep, sleeps_after_s

_MODELS_MAX: Final = 32
"""More models than any host has loaded at a time: each is one request a reading."""


class Router:
    """Reads all models that are loaded, as one server."""

    def __init__(self, ask: Asker) -> None:
        self._ask = ask
        self._pages: dict[str, MetricsPage] = {}
        self._scheme = LLAMACPP.schemes[-1]
        """By which a model was read last."""
        self._refines: bool | None = None
        """Whether tokens in flight are told. None: nothing ran yet."""

    def read(self) -> Read | None:
        """One reading of all: their counters by model, without series where none is loaded. None: it is no router any more.

        Raises:
            Unusable: one of them cannot be read. What it counted before we watched would look new later: so nothing is said of the others.
        """
        with self._ask.within(LIMIT_S):
            models = self._ask.models()
            if models.status == 404:
                return None
            if models.status != 200:
                raise Unfit(f"HTTP {models.status} for /v1/models{self._ask.endpoint.advice(models.status)}", status=models.status)
            if not is_router(self._ask, models):
                return None
            states = _states(models)
            self._refuse_to_wake(models, states)
            reads = self._read_each(states)
            # After the pages: a request that ends between the two is missing in this reading, and never in it twice.
            in_flight = self._in_flight(model for model, read in reads.items() if read.counters.running)
        asleep = bool(reads) and all(states[model] == "sleeping" for model in reads)
        return Read(
            _as_one(models.answer, [read.answer for read in reads.values()]),
            LLAMACPP,
            self._scheme,
            settled=any(read.settled for read in reads.values()),
            counters=self._together(reads, asleep=asleep),
            in_flight=in_flight,
        )

    def _read_each(self, states: Iterable[str]) -> dict[str, Read]:
        self._pages = {m: self._pages.get(m) or MetricsPage(self._ask, (LLAMACPP,), _path("/metrics", m)) for m in states}
        reads: dict[str, Read] = {}
        for model, page in self._pages.items():
            try:
                reads[model] = page.read()
            except Unfit as e:
                if e.status in (404, 501):
                    reason = f"llamacpp cannot be metered, because {e.reason} ({LLAMACPP.no_counters})"
                    raise Unusable(reason, not_metered=LLAMACPP.name) from None
                if e.status != 400:  # it was unloaded meanwhile
                    raise
            else:
                self._scheme = reads[model].scheme
        return reads

    def _together(self, reads: Mapping[str, Read], *, asleep: bool) -> Counters:
        each = [read.counters for read in reads.values()]
        running, waiting = [c.running for c in each], [c.waiting for c in each]
        return Counters(
            {key._replace(model=model): n for model, read in reads.items() for key, n in read.counters.tokens.items()},
            self._scheme.cached,
            "step" if self._refines else self._scheme.update,
            running=None if None in running else sum(n or 0 for n in running),
            waiting=None if None in waiting else sum(n or 0 for n in waiting),
            process_start=None,  # there are many
            latency=None,
            asleep=asleep,
        )

    def _in_flight(self, busy: Iterable[str]) -> dict[str, int] | None:
        """By model, of those that run requests: a slot of another would be a reason to wake it."""
        described, told = LLAMACPP.in_flight, {}
        assert described is not None
        for model in busy:
            if self._refines is False:
                break
            count, settled = ask_in_flight(self._ask, replace(described, path=_path(described.path, model)))
            if self._refines is None and settled:
                self._refines = count is not None
            if count is not None:
                told[model] = count
        return told or None

    def _refuse_to_wake(self, models: Models, states: Mapping[str, str]) -> None:
        args = [field(m, ("status", "args")) for m in models.entries if m.get("id") in states]
        if not any(isinstance(words, list) and sleeps_after_s([str(word) for word in words]) for words in args):
            return
        build = self._ask.first(LLAMACPP.version)
        if not leaves_asleep(str(build)):
            raise Unusable(
                f"a llama.cpp router whose models sleep cannot be metered in {build}, because reading would keep them awake: upgrade it",
                not_metered=LLAMACPP.name,
            )


def is_router(ask: Asker, models: Models) -> bool:
    """Whether it is a llama-server in router mode: only that one tells of each model whether it is loaded.

    Raises:
        Unusable: it lists no models, and does not answer to what else tells.
    """
    if models.entries:
        return any(isinstance(model.get("status"), dict) for model in models.entries)
    return field(ask.json("/props")[1], ("role",)) == "router"


def _states(models: Models) -> dict[str, str]:
    """The models that are loaded, by name, and whether they are ``loaded`` or ``sleeping``."""
    states: dict[str, str] = {}
    for model in models.entries:
        name, state = model.get("id"), field(model, ("status", "value"))
        if isinstance(name, str) and name and isinstance(state, str) and state in ("loaded", "sleeping"):
            states[name] = state
    if len(states) > _MODELS_MAX:
        raise Unusable(f"it has {len(states)} models loaded, and no more than {_MODELS_MAX} are read")
    return states


def _path(path: str, model: str) -> str:
    return f"{path}?model={quote(model, safe='')}&autoload=false"


def _as_one(listed: Answer, pages: list[Answer]) -> Answer:
    """What was answered in all, at the time of the pages."""
    first, last = (pages[0], pages[-1]) if pages else (listed, listed)
    body = b"".join(answer.body for answer in (listed, *pages))
    return listed._replace(body=body, sent_ns=first.sent_ns, received_ns=last.received_ns)
