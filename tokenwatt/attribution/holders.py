"""Which servers, and which foreign processes, have a part in each GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tokenwatt.types import Gpu, GpuProcess, Holder, Listener, Method

Ancestors = Callable[[int], tuple[int, ...]]
"""A process and its parents up to init, nearest first; empty where the process cannot be seen."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of one server that is there: the GPUs its settings name (None: none named) and the process that listens."""

    server: str
    gpus: tuple[int | str, ...] | None
    listener: Listener | None


@dataclass(frozen=True, slots=True)
class Board:
    """One GPU and the processes on it. ``processes`` None: the driver does not tell."""

    gpu: Gpu
    processes: tuple[GpuProcess, ...] | None


class Holders:
    """Maps GPUs to their holders. Keeps what must not change under way: which board an index in the settings meant."""

    def __init__(self, ancestors: Ancestors) -> None:
        self._ancestors = ancestors
        self._lineage: dict[int, tuple[int, ...]] = {}
        self._named: dict[tuple[str, int | str], str] = {}

    def of(self, boards: Sequence[Board], claims: Sequence[Claim], *, servers_known: int) -> Mapping[str, tuple[Holder, ...]]:
        """The holders of each board, by UUID; an empty tuple where nobody is known to hold it.

        ``claims`` are the servers that are there now. ``servers_known`` counts all that the meter was told of: the last resort, all boards
        to the only server there is, is no guess only where there is no second one that happens to be down.
        """
        lineage = self._lineages(boards)
        held: dict[str, dict[str, Method]] = {board.gpu.uuid: {} for board in boards}
        for claim in claims:
            uuids, method = self._boards_of(claim, boards, lineage, servers_known)
            for uuid in uuids:
                held[uuid][claim.server] = method
        listeners = {claim.server: claim.listener for claim in claims}
        return {board.gpu.uuid: tuple(self._holders(board, held[board.gpu.uuid], listeners, lineage)) for board in boards}

    def unknown_gpus(self, server: str, gpus: Iterable[int | str], boards: Sequence[Board]) -> tuple[int | str, ...]:
        """The entries of a server's settings that no board answers to."""
        return tuple(entry for entry in gpus if self._named_uuid(server, entry, boards) is None)

    def _boards_of(
        self, claim: Claim, boards: Sequence[Board], lineage: Mapping[int, tuple[int, ...]], servers_known: int
    ) -> tuple[tuple[str, ...], Method]:
        if claim.gpus is not None:
            uuids = (self._named_uuid(claim.server, entry, boards) for entry in claim.gpus)
            return tuple(dict.fromkeys(uuid for uuid in uuids if uuid is not None)), "settings"
        found = tuple(board.gpu.uuid for board in boards if _own_pids(board, claim.listener, lineage))
        if found:
            return found, "ancestry"
        return (tuple(board.gpu.uuid for board in boards) if servers_known == 1 else ()), "only_server"

    def _named_uuid(self, server: str, entry: int | str, boards: Sequence[Board]) -> str | None:
        # Indices move when a GPU disappears, so an index means the board that had it when it was first looked up.
        key = (server, entry)
        if key not in self._named:
            matches = [board.gpu.uuid for board in boards if _answers_to(board.gpu, entry)]
            if len(matches) != 1:
                return None
            self._named[key] = matches[0]
        uuid = self._named[key]
        return uuid if any(board.gpu.uuid == uuid for board in boards) else None

    def _holders(
        self,
        board: Board,
        servers: Mapping[str, Method],
        listeners: Mapping[str, Listener | None],
        lineage: Mapping[int, tuple[int, ...]],
    ) -> Iterable[Holder]:
        own = {server: _own_pids(board, listeners[server], lineage) for server in servers}
        for server, method in servers.items():
            yield Holder(server, method, own[server])
        # A process is foreign only where each server's own processes are known: else it may well be one of theirs (a container whose
        # pids we cannot see, a worker that is no child of the listener), and a server would lose its own energy.
        if servers and all(own.values()):
            claimed = frozenset[int]().union(*own.values())
            for process in board.processes or ():
                if process.pid not in claimed:
                    yield Holder(None, None, frozenset((process.pid,)))

    def _lineages(self, boards: Sequence[Board]) -> Mapping[int, tuple[int, ...]]:
        """Ancestors of every process on a board. Asked again once a process was away: a pid may then be another process."""
        pids = {process.pid for board in boards for process in board.processes or ()}
        self._lineage = {pid: self._lineage.get(pid) or self._ancestors(pid) for pid in pids}
        return self._lineage


def _answers_to(gpu: Gpu, entry: int | str) -> bool:
    if isinstance(entry, int):
        return gpu.index == entry
    return gpu.uuid.lower().startswith(entry.lower())


def _own_pids(board: Board, listener: Listener | None, lineage: Mapping[int, tuple[int, ...]]) -> frozenset[int]:
    if listener is None:
        return frozenset()
    return frozenset(process.pid for process in board.processes or () if listener.pid in lineage[process.pid])
