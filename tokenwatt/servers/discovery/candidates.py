"""The processes that may be asked, out of all that there are. Looks once at each new one, and now and then at the others."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tokenwatt import procfs
from tokenwatt.procfs import Process
from tokenwatt.servers.discovery.distributed import marks_environment, marks_words
from tokenwatt.servers.discovery.programs import Program, is_shell, leads, program

_YOUNG_LOOKS: Final = 5
"""So many scans in a row look at a new process: what it becomes by exec follows soon, if at all."""
_LATER_SCANS: Final = 5
"""After that, a shell is looked at once in so many scans: an entry point may fetch a model for minutes before it becomes the server. And so
is who may not be looked at."""

_KTHREADD: Final = 2


@dataclass(slots=True)
class Candidate:
    """A process that may be asked. ``namespace`` is its network's, as ``procfs.net_namespace`` has it."""

    process: Process
    program: Program
    namespace: int
    holds_gpu: bool = False


@dataclass(slots=True)
class _Seen:
    process: Process
    program: Program
    leads: bool
    namespace: int | None
    looks: int = 1
    environment: tuple[bool | None] | None = None
    """What ``marks_environment`` says of it, once it was asked."""


@dataclass(slots=True)
class Candidates:
    """All processes by pid, and which of them are candidates."""

    root: Path = procfs.PROC
    _entries: set[str] = field(default_factory=set)
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _young: set[int] = field(default_factory=set)
    _later: set[int] = field(default_factory=set)
    _gpu_pids: frozenset[int] = frozenset()
    _found: dict[int, Candidate] = field(default_factory=dict)
    _children: dict[int, list[int]] = field(default_factory=dict)
    """Empty: to be made anew."""
    _scans: int = 0

    def scan(self, gpu_pids: Collection[int]) -> dict[int, Candidate]:
        """The candidates of this moment, by pid, the same object while nothing changes. ``gpu_pids``: the processes that hold a GPU."""
        changed = self._list()
        looking = self._young if self._scans % _LATER_SCANS else self._young | self._later
        for pid in list(looking):
            changed |= self._look(pid)
        if changed:
            self._children = {}
        held = frozenset(gpu_pids)
        if changed or held != self._gpu_pids:
            self._gpu_pids = held
            self._found = self._choose()
        self._scans += 1
        return self._found

    def forwarders(self) -> list[Process]:
        """Docker's, which listen on the host for the port of a container."""
        return [s.process for s in self._seen.values() if s.program.name == "docker-proxy"]

    def may_be_rank(self, candidate: Candidate) -> bool:
        """Whether a process bears a mark of distributed work, itself or by a relative's command line; or holds a GPU and hides it."""
        pid = candidate.process.pid
        own, below = self._seen[pid], list(self._below(pid))
        if any(marks_words(seen.process.words) for seen in (own, *self._above(pid), *below)):
            return True
        marked = self._marks_environment(own)
        if marked or not candidate.holds_gpu:
            return bool(marked)
        # A first rank may start the others itself, and tell only them who they are (lightning: fabric/strategies/launchers).
        return marked is None or any(self._marks_environment(seen) for seen in below)

    def _marks_environment(self, seen: _Seen) -> bool | None:
        if seen.environment is None:
            seen.environment = (marks_environment(seen.process.pid, root=self.root),)
        return seen.environment[0]

    def _list(self) -> bool:
        """Who came and who went. Whether somebody went."""
        entries, before = procfs.entries(root=self.root), self._entries
        self._entries = entries
        self._young.update(int(e) for e in entries - before if e.isdigit())
        gone = {int(e) for e in before - entries if e.isdigit()}
        for pid in gone:
            self._seen.pop(pid, None)
        self._young -= gone
        self._later -= gone
        return bool(gone)

    def _look(self, pid: int) -> bool:
        """Look at a process. Whether it is another one than before, or became one."""
        seen = self._seen.get(pid)
        if seen is not None:
            seen.looks += 1
            self._arrange(pid, seen)
            if procfs.command_line(pid, root=self.root) == seen.process.words:
                return False
        process = procfs.process(pid, root=self.root)
        if process is None:
            self._young.discard(pid)
            self._later.add(pid)
            return self._seen.pop(pid, None) is not None
        self._seen[pid] = now = self._judged(process)
        if seen is not None:
            now.looks = seen.looks
        self._arrange(pid, now)
        return True

    def _arrange(self, pid: int, seen: _Seen) -> None:
        """When to look at it again."""
        if seen.looks >= _YOUNG_LOOKS:
            self._young.discard(pid)
            (self._later.add if is_shell(seen.process) else self._later.discard)(pid)

    def _judged(self, process: Process) -> _Seen:
        if _KTHREADD in (process.pid, process.parent):
            return _Seen(process, Program("never", process.command), True, None, _YOUNG_LOOKS)
        judged = Program("never", "tokenwatt") if process.pid == os.getpid() else program(process)
        namespace = None
        if judged.standing != "never":
            namespace = procfs.net_namespace(self.root / str(process.pid) / "net")
        return _Seen(process, judged, leads(process), namespace)

    def _choose(self) -> dict[int, Candidate]:
        tops = {top for pid in self._gpu_pids if (top := self._top(pid)) is not None}
        found = {}
        for pid, seen in self._seen.items():
            standing = seen.program.standing
            if standing == "never" or seen.namespace is None:
                continue
            if standing != "other" or (tops and self._top(pid) in tops):
                found[pid] = Candidate(seen.process, seen.program, seen.namespace, pid in self._gpu_pids)
        return found

    def _top(self, pid: int) -> int | None:
        """The topmost of a process's ancestors that belong together. None: it is not to be seen, or belongs to nobody."""
        top = None
        for seen in self._above(pid):
            top = seen.process.pid
        return top

    def _above(self, pid: int) -> Iterator[_Seen]:
        """A process and its ancestors, as far as they belong together."""
        for _ in range(len(self._seen)):
            seen = self._seen.get(pid)
            if seen is None or seen.leads:
                return
            yield seen
            pid = seen.process.parent

    def _below(self, pid: int) -> Iterator[_Seen]:
        """Its descendants, as far as they belong together."""
        if not self._children:
            for each, seen in self._seen.items():
                self._children.setdefault(seen.process.parent, []).append(each)
        left, met = [pid], {pid}  # who has a dead process's number may seem to be its own ancestor
        while left:
            for child in self._children.get(left.pop(), ()):
                if child not in met and not self._seen[child].leads:
                    met.add(child)
                    left.append(child)
                    yield self._seen[child]
