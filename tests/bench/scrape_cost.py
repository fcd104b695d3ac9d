"""What one scrape costs the server that is asked: bytes, and CPU time of its own processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from tokenwatt.procfs import ancestors
from tokenwatt.servers.http.endpoint import Endpoint
from tokenwatt.servers.scrape import Scraper
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import ServerReading

IDLE_S: Final = 5.0
PAUSE_S: Final = 0.05
"""Between scrapes: back to back they would run on caches that are warmer than a second later."""
TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")

Row = tuple[str, float, str, str]


def measure(name: str, url: str, pids: Collection[int], scrapes: int, *, goal: bool) -> list[Row]:
    """Of the whole page, and as tokenwatt asks. ``pids``: the processes that answer HTTP."""
    rows: list[Row] = []
    for how, reader, goals in (
        ("whole page", _whole_page(url), ("", "")),
        ("as tokenwatt asks", _as_tokenwatt(url), ("under 1,024", "under 3") if goal else ("", "")),
    ):
        with reader as read:
            sizes = [read() for _ in range(3)]  # by then it knows whom it asks
            time.sleep(1)
            cost_s = _cost_s(read, pids, scrapes)
            sizes.append(read())
        rows += [
            (f"{name}, {how}, the page", sizes[-1], "bytes", goals[0]),
            (f"{name}, {how}, server's CPU", cost_s * 1e3, "ms a scrape", goals[1]),
        ]
    return rows


def answering(root: int) -> list[int]:
    """The processes below ``root``, and it, that answer HTTP: without vLLM's engines and workers."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if pid == root or (root in ancestors(pid) and "APIServer" in command):
            found.append(pid)
    return found


def _cost_s(read: Callable[[], int], pids: Collection[int], scrapes: int) -> float:
    """CPU time a scrape, less what the processes spend anyway."""
    idle_start, idle_cpu = time.monotonic(), _cpu_s(pids)
    time.sleep(IDLE_S)
    idle = (_cpu_s(pids) - idle_cpu) / (time.monotonic() - idle_start)
    start, cpu = time.monotonic(), _cpu_s(pids)
    for _ in range(scrapes):
        read()
        time.sleep(PAUSE_S)
    return (_cpu_s(pids) - cpu - idle * (time.monotonic() - start)) / scrapes


def _cpu_s(pids: Collection[int]) -> float:
    """CPU time so far, to a tick, of ended threads too."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(f[11]) + int(f[12]) for f in fields) * TICK_S


@contextmanager
def _whole_page(url: str) -> Iterator[Callable[[], int]]:
    endpoint = Endpoint(ServerTarget("asked", url))
    with closing(endpoint.connection):
        yield lambda: len(endpoint.get("/metrics", accept="*/*", limit_s=10).body)


@contextmanager
def _as_tokenwatt(url: str) -> Iterator[Callable[[], int]]:
    scraper = Scraper(ServerTarget("asked", url))

    def read() -> int:
        reading = scraper.scrape()
        assert isinstance(reading, ServerReading), reading
        return reading.size_bytes

    with closing(scraper):
        yield read
