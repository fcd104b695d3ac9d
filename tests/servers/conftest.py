from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.fake_server import FakeServer
from tokenwatt.servers.scrape import Scraper
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import ServerFailure, ServerReading

Make = Callable[..., Scraper]

PAGES = Path(__file__).parent / "pages"
"""vllm-0.32.0*: as a real server answered. 0.16.0 and 0.33.0: written by the metric classes of those releases, without the families that no
test needs. triton-vllm-backend: the shape that its README shows."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def scraper() -> Iterator[Make]:
    """Makes scrapers (of a url, and the rest of a target), and closes them."""
    made: list[Scraper] = []

    def make(url: str, **target: object) -> Scraper:
        made.append(Scraper(ServerTarget("chat", url, **target)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


def good(result: ServerReading | ServerFailure) -> ServerReading:
    assert isinstance(result, ServerReading), result
    return result


def bad(result: ServerReading | ServerFailure) -> ServerFailure:
    assert isinstance(result, ServerFailure), result
    return result
