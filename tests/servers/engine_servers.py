"""Fake servers that answer as each engine does, by its description and its pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.servers.fake_server import FakeServer, answer, not_found
from tokenwatt.servers.engines import ENGINES
from tokenwatt.servers.engines.description import Answer, Engine, NotMetered

PAGES = Path(__file__).parent / "pages"


def page_of(name: str) -> tuple[bytes, dict[str, Any]]:
    """A page of ``tests/servers/pages``, and what is said of it."""
    return (PAGES / f"{name}.txt").read_bytes(), json.loads((PAGES / f"{name}.json").read_text())


def pages(engine: str | None = None) -> list[str]:
    """The names of the pages, of one engine or of all that recognition knows."""
    found = ((p.stem, json.loads(p.read_text())["engine"]) for p in sorted(PAGES.glob("*.json")))
    return [name for name, of in found if (of == engine if engine else of in ENGINES)]


def answer_json(server: FakeServer, path: str, said: object, status: str = "200 OK") -> None:
    server.serve(path, answer(json.dumps(said).encode(), status=status, content_type="application/json"))


def be_engine(server: FakeServer, name: str) -> Engine:
    """Answer as the engine of this page does, also below the paths that must never be asked."""
    body, said = page_of(name)
    engine = ENGINES[said["engine"]]
    be_known(server, engine)
    server.serve(engine.metrics_paths[0], answer(body, content_type=said["content_type"]))
    return engine


def be_known(server: FakeServer, known: Engine | NotMetered) -> None:
    """Answer the questions that tell who it is, and have no page."""
    if known.owned_by:
        answer_json(server, "/v1/models", {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": known.owned_by[0]}]})
    documents: dict[str, dict[str, Any]] = {}
    for field, value in _fields(known):
        inner = documents.setdefault(field.path, {})
        for key in field.keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[field.keys[-1]] = value
    for path, document in documents.items():
        answer_json(server, path, document)


def _fields(known: Engine | NotMetered) -> list[tuple[Answer, object]]:
    fields: list[tuple[Answer, object]] = [(field, {"x": 1}) for field in known.identity]
    if isinstance(known, Engine):
        fields += [(field, "1.2.3") for field in known.version]
        fields += [(field, "m") for field in known.model]
        fields += [(field, False) for field in known.asleep]
    return fields


def forget(server: FakeServer) -> None:
    """Answer nothing any more but that there is nothing."""
    for path in list(server.paths):
        server.serve(path, not_found)
