"""Which engine answers on a port, by questions that wake, load and drain nothing.

The order is the point. ``GET /v1/models`` is harmless everywhere, and whose models they are settles most cases. Then come the fields that
one engine alone has, below paths as harmless. Pages of metrics come last, for one of them is drained by reading (trtllm-serve's
``/metrics``): as long as an engine is possible, nothing that it forbids is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from tokenwatt.servers.asking import Asker, Models, field
from tokenwatt.servers.engines import ENGINES, NOT_METERED
from tokenwatt.servers.engines.description import Engine, NotMetered
from tokenwatt.servers.errors import Unusable

_FORBIDDEN_BY_SOME: Final = frozenset(path for engine in ENGINES.values() for path, _ in engine.never)


class Recognised(NamedTuple):
    """What a server can be. ``engines``: whose counters its page may have, in the order of trying. ``paths``: where the page may be."""

    engines: tuple[Engine, ...]
    paths: tuple[str, ...]
    owner: Engine | None = None
    """The engine that it said it is: a page without its counters has them switched off. The others of ``engines`` pass them on."""
    not_metered: NotMetered | None = None
    """What it looks like, where there is no page with counters: others answer to the same questions, and have some."""


def recognise(ask: Asker) -> Recognised:
    """Find out. From then on ``ask`` forbids what the engines that remain possible forbid.

    Raises:
        Unusable: it does not answer at all, or is known to have no token counters.
    """
    engines = tuple(ENGINES.values())
    ask.forbid(engines)
    models = ask.models()
    owners = {str(model.get("owned_by")) for model in models.entries}
    refuse(n for n in NOT_METERED if owners & set(n.owned_by))
    looks_like: NotMetered | None = None
    named = [e for e in engines if owners & set(e.owned_by)]
    if not named:
        engines = tuple(e for e in engines if _remains(e, models))
        ask.forbid(engines)
        named, looks_like = _by_identity(ask, engines)
    if named:
        ask.forbid(named)
        return known_as(ask, named[0], named)
    # The page tells: also one of an engine whose models have another's name. What it may be will not be harmed by the pages tried first.
    paths = sorted(_paths(ask, ENGINES.values()), key=lambda path: path in _FORBIDDEN_BY_SOME)
    return Recognised(tuple(ENGINES.values()), tuple(paths), not_metered=looks_like)


def known_as(ask: Asker, owner: Engine, named: Sequence[Engine]) -> Recognised:
    """What a server can be that says it is ``owner``, or one of ``named``: also one that runs it inside, and passes its counters on."""
    engines = tuple(e for e in ENGINES.values() if e in named or owner.counters().keys() <= e.counters().keys())
    return Recognised(engines, _paths(ask, (*named, *engines)), owner)


def _remains(engine: Engine, models: Models) -> bool:
    """Whether it may be this engine still, after a list of models that names no known owner."""
    status = models.status
    if status in (401, 403) or (status == 200 and not models.entries):
        # Where the list wants a key or is empty (a llama.cpp router's), who has other marks may be known by those. The one that drains
        # (trtllm-serve) takes no keys at all, and always has a model.
        return not engine.owned_by or bool(engine.identity)
    # Where nothing was said (it starts, it is overloaded) all remain.
    return not engine.owned_by or status >= 500


def refuse_page(body: bytes) -> None:
    """Refuse the page of a server that has one, but none with token counters.

    Raises:
        Unusable: it is one.
    """
    refuse(n for n in NOT_METERED if any(b"\n" + name.encode() in b"\n" + body for name in n.page))


def _by_identity(ask: Asker, engines: Sequence[Engine]) -> tuple[list[Engine], NotMetered | None]:
    """The engines of which a field was found, or what it looks like. Each path is asked once, and none any more once one was found."""
    both: tuple[Engine | NotMetered, ...] = (*engines, *NOT_METERED)
    fields = [(answer, known) for known in both for answer in known.identity]
    for path in dict.fromkeys(answer.path for answer, _ in fields):
        if ask.endpoint.forbids(path) is not None:
            continue
        said = ask.json(path)[1]
        found = [known for answer, known in fields if answer.path == path and field(said, answer.keys) is not None]
        if found:
            return [e for e in found if isinstance(e, Engine)], next((n for n in found if isinstance(n, NotMetered)), None)
    return [], None


def _paths(ask: Asker, engines: Iterable[Engine]) -> tuple[str, ...]:
    return tuple(path for path in dict.fromkeys(p for e in engines for p in e.metrics_paths) if ask.endpoint.forbids(path) is None)


def refuse(known: Iterable[NotMetered]) -> None:
    """Refuse a server that has no token counters: the first of these.

    Raises:
        Unusable: unless there is none.
    """
    for each in known:
        raise Unusable(f"{each.name} cannot be metered, because {each.because}", not_metered=each.name)
