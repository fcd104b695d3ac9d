"""Who runs on which core, so that what is measured is not the fight for one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Cores(NamedTuple):
    """Of the server, of the load, of the meter."""

    server: frozenset[int]
    load: frozenset[int]
    meter: frozenset[int]

    def __str__(self) -> str:
        if self.server == self.meter:
            return "one core for all: what the meter itself takes is in the ratio too"
        named = (", ".join(map(str, sorted(cores))) for cores in self)
        shared = " (two cores: the load and the meter share one)" if self.load == self.meter else ""
        return "server on {}, load on {}, meter on {}".format(*named) + shared


def share_out() -> Cores:
    """The cores we may use: the last for the meter, the one before for the load, the others for the server."""
    cores = sorted(os.sched_getaffinity(0))
    last = frozenset(cores[-1:])
    if len(cores) == 1:
        return Cores(last, last, last)
    if len(cores) == 2:
        return Cores(frozenset(cores[:1]), last, last)
    return Cores(frozenset(cores[:-2]), frozenset(cores[-2:-1]), last)


@contextmanager
def on(cores: frozenset[int]) -> Iterator[None]:
    """This thread, and all processes and threads that it starts meanwhile, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
