"""The pages come from files that we ship, and only from these."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.export.conftest import Served

VENDORED = Path(__file__).parents[2] / "tokenwatt" / "export" / "vendor" / "swagger-ui"


def test_vendored_files_are_those_of_the_release() -> None:
    files = json.loads((VENDORED / "vendor.json").read_text())["sha256"]
    assert {p.name for p in VENDORED.iterdir()} - {"vendor.json"} == set(files)
    assert "LICENSE" in files
    for name, sha256 in files.items():
        assert hashlib.sha256((VENDORED / name).read_bytes()).hexdigest() == sha256, name


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_pages_load_only_what_we_serve_and_run_nothing_inline(shared: Served, page: str) -> None:
    html = shared.request(page)[1].decode()
    links = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert links
    for link in set(links) - {"data:,"}:
        assert re.match(r"[a-z-]", link), f"{link} is not relative"
        assert ":" not in link
    assert re.findall(r"<script[^>]*>[^<]", html) == []
    assert re.search(r"<style|\son[a-z]+=|\sstyle=", html) is None


@pytest.mark.parametrize(
    ("path", "type_"),
    [
        ("/docs/start.js", "text/javascript; charset=utf-8"),
        ("/docs/assets/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("/docs/assets/swagger-ui.css", "text/css; charset=utf-8"),
    ],
)
def test_what_the_docs_load_is_there_with_its_type(shared: Served, path: str, type_: str) -> None:
    response, body = shared.request(path)
    assert (response.status, response.headers["content-type"]) == (200, type_)
    vendored = VENDORED / Path(path).name
    assert not vendored.exists() or vendored.read_bytes() == body


def test_nothing_outside_the_vendored_files_is_served(shared: Served) -> None:
    assert shared.request("/docs/assets/../../../api.py")[0].status == 404
    assert shared.request("/docs/assets/%2e%2e/%2e%2e/api.py")[0].status == 404
