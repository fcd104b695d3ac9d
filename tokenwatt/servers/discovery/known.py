"""A port that a process listens on, and what became of asking there."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenwatt import procfs
from tokenwatt.servers.discovery.candidates import Candidate
from tokenwatt.servers.discovery.fronts import Part
from tokenwatt.servers.discovery.listeners import Listening
from tokenwatt.servers.discovery.reach import Way


@dataclass(slots=True)
class Known:
    """A port that a process listens on."""

    candidate: Candidate
    listening: dict[int, Listening] = field(default_factory=dict)
    """By inode."""
    tries: int = 0
    next_ns: int = 0
    being_asked: bool = False
    name: str | None = None
    """Of the server that it is."""
    engine: str = ""
    way: Way | None = None
    inode: int = 0
    """With ``name``: what, where and on which socket it is."""
    part: Part | None = None
    in_doubt: bool = False
    """With ``name``: another port of its process showed the same as this one, while nothing was counted yet."""
    spared: bool = False
    """There was nobody to be asked: the settings name it, or another process takes the connections to its port."""
    aside: bool = False
    """It passes on what other servers here tell themselves, or another one tells what it counts."""
    repeats: int | None = None
    """The port of the same process that shows the same."""

    def may_be_asked(self, now_ns: int) -> bool:
        """Whether it is time to."""
        if now_ns < self.next_ns or self.being_asked or self.aside or self.repeats is not None:
            return False
        return self.name is None or self.in_doubt

    @property
    def settles_its_process(self) -> bool:
        """Whether its process need not be asked on other ports: one that is known to serve is one server."""
        return (self.name is not None or self.aside) and self.candidate.program.standing == "serves"


def tells_for(router: Known, child: Known) -> bool:
    """Whether ``router`` is read for ``child`` too: a llama-server with several models tells what each one counted, and loads and ends the
    processes that count."""
    return router.engine == child.engine == "llamacpp" and _started(router, child)


def passes_on(front: Known, worker: Known) -> bool:
    """Whether what ``front`` counts, ``worker`` counts too, and is the one to be read."""
    if tells_for(front, worker):
        return False
    if front.part is not None and front.part.front and worker.part == front.part.worker():
        return True
    # A server that started another one (Lemonade, LocalAI) sends it what it gets. Any other program may start servers and be one as well,
    # and has nothing to do with theirs.
    return front.candidate.program.standing == "serves" and _started(front, worker)


def _started(one: Known, other: Known) -> bool:
    return one.candidate.process.pid in procfs.ancestors(other.candidate.process.pid)[1:]
