"""Asks one server: pages of metrics with all patience, JSON in passing, and nothing that an engine forbids."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from tokenwatt.servers.engines.description import Answer as Field
from tokenwatt.servers.engines.description import Engine
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.http.connection import Answer
from tokenwatt.servers.http.endpoint import Endpoint

LIMIT_S: Final = 2.0
"""The whole of one request for metrics."""
ASIDE_LIMIT_S: Final = 1.0
"""A request for anything else."""

# Never OpenMetrics: client_python takes 1.7 times as long for it, and some of its versions rename the samples.
_ACCEPT_TEXT: Final = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
_ACCEPT_JSON: Final = "application/json"


class Models(NamedTuple):
    """What ``GET /v1/models`` says. ``entries``: the models, as far as they can be read."""

    answer: Answer
    entries: tuple[dict[str, object], ...]

    @property
    def status(self) -> int:
        """Of the answer."""
        return self.answer.status


class Asker:
    """Every request to one server goes through here."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._end_ns: int | None = None
        self._kept_only = False
        self._json: dict[str, tuple[Answer, object]] = {}

    def forget(self) -> None:
        """What was answered so far may not hold any more. Until then each JSON answer is asked for once."""
        self._json.clear()

    @property
    def hurried(self) -> bool:
        """Whether who does not answer now is asked again later, with more time."""
        return self._kept_only

    def hurry(self, limit_s: float | None) -> None:
        """From now on ask over the connection that is kept, and no other, all in ``limit_s``. None: take the usual time again."""
        self._end_ns = None if limit_s is None else time.monotonic_ns() + int(limit_s * 1e9)
        self._kept_only = limit_s is not None

    @contextmanager
    def within(self, limit_s: float) -> Iterator[None]:
        """All that is asked meanwhile takes no longer than ``limit_s`` together. Not in a hurry."""
        self._end_ns = time.monotonic_ns() + int(limit_s * 1e9)
        try:
            yield
        finally:
            self._end_ns = None

    def forbid(self, engines: Iterable[Engine]) -> None:
        """From now on ask nothing that one of these engines forbids, and all else."""
        self.endpoint.forbidden = {path: why for engine in engines for path, why in engine.never}

    def page(self, path: str) -> Answer:
        """What a page of metrics answers, whatever its status.

        Raises:
            Unusable: there is no answer, or this is not to be asked.
        """
        return self._get(path, accept=_ACCEPT_TEXT, limit_s=LIMIT_S)

    def json(self, path: str) -> tuple[int, object]:
        """The status, and what a JSON endpoint says. None: it has no such endpoint, or not for us, which is no failure of the server.

        Raises:
            Unusable: it does not answer at all, or this is not to be asked.
        """
        answer, said = self._asked(path)
        return answer.status, said

    def models(self) -> Models:
        """The models that it lists.

        Raises:
            Unusable: it does not answer at all.
        """
        answer, said = self._asked("/v1/models")
        entries = said.get("data") if isinstance(said, dict) else None
        return Models(answer, tuple(m for m in entries if isinstance(m, dict)) if isinstance(entries, list) else ())

    def first(self, fields: Sequence[Field]) -> object:
        """The first of these fields that is there, in the order of trying. None: none of them.

        Raises:
            Unusable: in a hurry, and it does not answer at all.
        """
        for wanted in fields:
            try:
                found = field(self.json(wanted.path)[1], wanted.keys)
            except Unusable:
                if self.hurried:
                    raise
                return None  # who does not answer once is not asked for the rest
            if found is not None:
                return found
        return None

    def _asked(self, path: str) -> tuple[Answer, object]:
        known = self._json.get(path)
        if known is None:
            answer = self._get(path, accept=_ACCEPT_JSON, limit_s=ASIDE_LIMIT_S)
            known = self._json[path] = answer, _parsed(answer)
        return known

    def _get(self, path: str, *, accept: str, limit_s: float) -> Answer:
        if self._end_ns is not None:
            left_s = (self._end_ns - time.monotonic_ns()) / 1e9
            limit_s = left_s if self._kept_only else min(limit_s, left_s)
        return self.endpoint.get(path, accept=accept, limit_s=limit_s, kept_only=self._kept_only)


def _parsed(answer: Answer) -> object:
    if answer.status != 200:
        return None
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def field(said: object, keys: Sequence[str]) -> object:
    """A field of a JSON answer, keys from the outside in; of a list, of its first entry. None: it is not there."""
    for key in keys:
        if isinstance(said, list):
            said = said[0] if said else None
        said = said.get(key) if isinstance(said, dict) else None
    return said
