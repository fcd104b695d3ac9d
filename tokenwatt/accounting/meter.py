"""The one writer: takes readings in the order they arrive, books energy, closes intervals.

It knows no clock and no thread. Time is what the readings say, so an hour can be run in seconds, and the same readings give the same books.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tokenwatt.accounting.boards import BoardBook
from tokenwatt.accounting.energy_counter import Booking
from tokenwatt.accounting.server_spec import ServerSpec
from tokenwatt.accounting.servers import ServerBook
from tokenwatt.accounting.token_counters import TokenDeltas
from tokenwatt.attribution.holders import Ancestors, Board, Claim, Holders
from tokenwatt.types import EnergyReading, EnergyTick, Gpu, GpuStates, Holder, Interval, Method, ServerFailure, ServerReading, State

log = logging.getLogger("tokenwatt")

UNOBSERVED_AFTER_NS = 60_000_000_000
"""Over longer gaps between two readings of a server nobody can say what it did."""

SETTLE_AFTER_NS = 600_000_000_000
"""Energy whose interval is open for this long is settled as unobserved."""

STRANGERS_MAX = 100
"""Names of servers that nobody told of are remembered up to this many, to be logged once each."""


class Meter:
    """The books of one node."""

    def __init__(self, servers: Sequence[ServerSpec], ancestors: Ancestors, *, power_period_ns: int, started_ns: int) -> None:
        self.specs: dict[str, ServerSpec] = {}
        self.boards: dict[str, BoardBook] = {}
        self.servers: dict[str, ServerBook] = {}
        self.holders: Mapping[str, tuple[Holder, ...]] = {}
        self._held: dict[str, tuple[BoardBook, ...]] = {}
        self._opened: dict[str, tuple[int, tuple[Holder, ...]]] = {}
        """By board: when a server opened on it since its last tick, and who held it before."""
        self.started_ns = started_ns
        self._power_period_ns = power_period_ns
        self._mapping = Holders(ancestors)
        self._closed: list[Interval] = []
        self._strangers: set[str] = set()
        for spec in servers:
            self.add(spec)

    def add(self, spec: ServerSpec) -> None:
        """Open the books of a server. One that is known keeps its books, its GPUs and its group; its address and engine may be new."""
        known = self.specs.get(spec.name)
        if known is not None:
            self.specs[spec.name] = replace(known, url=spec.url, engine=spec.engine)
            return
        self.specs[spec.name] = spec
        self.servers[spec.name] = ServerBook(spec.name, tokens=spec.tokens, partial=spec.partial)
        self._strangers.discard(spec.name)
        if any(server.present for server in self.servers.values()):
            self._map()  # a server that held all boards for being alone is no longer

    def rename(self, old: str, new: str) -> None:
        """Give a server another name before it is first read: until then there is nothing in its books."""
        assert self.servers[old].reading is None, f"{old} was read under its name"
        assert not self.servers[old].waiting, f"{old} was read under its name"
        del self.servers[old]
        self.add(replace(self.specs.pop(old), name=new))

    # --- readings in ---

    def gpus_found(self, gpus: Iterable[Gpu]) -> None:
        """Open the books of boards that are new."""
        new = [gpu for gpu in gpus if gpu.uuid not in self.boards]
        for gpu in new:
            self.boards[gpu.uuid] = BoardBook(gpu, self._power_period_ns)
        if new:
            self._map()

    def gpu_states(self, states: GpuStates) -> None:
        """Take the boards' slower figures, processes among them."""
        self.gpus_found(state.gpu for state in states.states)
        # A list comprehension: all are to be described, not only up to the first that changed.
        changed = [self.boards[state.gpu.uuid].describe(state) for state in states.states]
        if any(changed):
            self._map()

    def energy_tick(self, tick: EnergyTick) -> None:
        """Book one round of readings, then close the intervals it completes."""
        for reading in tick.readings:
            board = self.boards.get(reading.uuid)
            if board is not None and (booking := board.read(reading)) is not None:
                self._share(board, reading, booking)
        for server in self.servers.values():
            if server.waiting:
                self._close_waiting(server)

    def _share(self, board: BoardBook, reading: EnergyReading, booking: Booking) -> None:
        opened = self._opened.pop(reading.uuid, None)
        if opened is not None and booking.since_ns < opened[0] < booking.t_ns and not booking.gap:
            # A server's first interval begins in the middle of this tick: what was before is not its.
            before, booking = booking.split(opened[0])
            board.book(before, *board.sharing.shares(reading, opened[1], self._work_tokens))
        board.book(booking, *board.sharing.shares(reading, self.holders.get(reading.uuid, ()), self._work_tokens))

    def _work_tokens(self, server: str) -> int:
        return self.servers[server].work_tokens

    def server_reading(self, reading: ServerReading) -> None:
        """Take one good answer. Its interval closes once the energy of the server's boards is known up to the same instant."""
        server = self._book_of(reading)
        if server is None:
            return
        server.asked, server.failure = True, None
        server.waiting.append(reading)
        self._close_waiting(server)

    def server_failure(self, failure: ServerFailure) -> None:
        """Take one answer that could not be used. A server that is slow keeps its boards; one that is gone gives them up."""
        server = self._book_of(failure)
        if server is None:
            return
        server.asked, server.failure = True, failure
        if failure.rejected:
            server.counters.refuse()
        if failure.gone:
            self._leave(server, failure.t_ns)

    def _book_of(self, message: ServerReading | ServerFailure) -> ServerBook | None:
        server = self.servers.get(message.server)
        if server is None and message.server not in self._strangers and len(self._strangers) < STRANGERS_MAX:
            self._strangers.add(message.server)
            log.warning("Server %s: it was read, but the meter was not told of it. Its readings are not counted.", message.server)
        return server

    def each_second(self, now_ns: int) -> None:
        """Close what has been open for too long (tokens that a later reading brings still count), and compare counters with integrals."""
        for board in self.boards.values():
            board.compare()
        for server in self.servers.values():
            if server.present and server.closed_ns is not None and now_ns - server.closed_ns > SETTLE_AFTER_NS:
                self._close_rest(server)

    # --- what came of them ---

    def pending_uj(self) -> Mapping[str, int]:
        """By server: energy booked to it whose interval is not closed yet."""
        pending = dict.fromkeys(self.servers, 0)
        for board in self.boards.values():
            for server, owner in board.owners.items():
                pending[server] += owner.total_uj - owner.closed_uj
        return pending

    def take_closed(self) -> list[Interval]:
        """The intervals closed since the last call, in order."""
        closed, self._closed = self._closed, []
        return closed

    def unknown_gpus(self) -> Mapping[str, tuple[int | str, ...]]:
        """By server: the GPUs that its settings name and that are not there."""
        boards = self._board_views()
        return {name: self._mapping.unknown_gpus(name, spec.gpus or (), boards) for name, spec in self.specs.items()}

    def held_gpus(self) -> Mapping[str, Sequence[tuple[str, int, Method]]]:
        """By server: UUID and index of the boards it holds, and how they came to it."""
        held: dict[str, list[tuple[str, int, Method]]] = {name: [] for name in self.servers}
        for uuid, holders in self.holders.items():
            for holder in holders:
                if holder.server is not None and holder.method is not None:
                    held[holder.server].append((uuid, self.boards[uuid].gpu.index, holder.method))
        return held

    def check_conservation(self) -> None:
        """Rule 5, to the microjoule.

        Raises:
            AssertionError: energy was lost or made up; the message says where.
        """
        for uuid, board in self.boards.items():
            owned_uj = sum(owner.total_uj for owner in board.owners.values()) + board.unattributed_uj
            assert owned_uj == board.counter.total_uj, f"{uuid}: {board.counter.total_uj} uJ measured, {owned_uj} uJ owned"
        for name, server in self.servers.items():
            closed_uj = sum(board.owners[name].closed_uj for board in self.boards.values() if name in board.owners)
            booked_uj = sum(sum(model.energy_uj.values()) for model in server.models.values())
            assert booked_uj == closed_uj, f"{name}: {closed_uj} uJ closed, {booked_uj} uJ booked to models"

    # --- closing ---

    def _close_waiting(self, server: ServerBook) -> None:
        while server.waiting and self._reached(server, server.waiting[0].t_ns):
            self._close(server, server.waiting.popleft())

    def _reached(self, server: ServerBook, t_ns: int) -> bool:
        return all(board.away or (board.booked_ns or 0) >= t_ns for board in self._held.get(server.name, ()))

    def _close(self, server: ServerBook, reading: ServerReading) -> None:
        if not server.present and server.closed_ns is not None and reading.t_ns < server.closed_ns:
            return  # of before it was seen gone
        deltas = server.counters.apply(reading, started_since_ns=self._started_since(server, reading))
        if deltas.rejected is not None:
            server.failure = ServerFailure(server.name, reading.t_ns, deltas.rejected, rejected=True)
            return
        server.resolve(reading, deltas.tokens)
        if server.present:
            self._close_interval(server, reading, deltas)
        else:
            opened = server.open(reading.t_ns, deltas.tokens)
            server.know(reading)
            if opened is not None:
                self._closed.append(opened)
        # A listener that became known, or another one, may hold other boards.
        moved = server.reading is None or server.reading.listener != reading.listener or server.name not in self._held
        server.reading = reading
        if moved:
            self._map(opened_ns=reading.t_ns)

    def _started_since(self, server: ServerBook, reading: ServerReading) -> int | None:
        if server.gone_ns is not None:
            return server.gone_ns
        if server.reading is None and reading.process_start_ns is not None and reading.process_start_ns > self.started_ns:
            return self.started_ns
        return None

    def _close_interval(self, server: ServerBook, reading: ServerReading, deltas: TokenDeltas) -> None:
        start_ns = server.closed_ns or reading.t_ns
        state = self._state(server, reading, deltas, start_ns)
        restart_ns = reading.process_start_ns
        if deltas.reset and state == "unobserved" and restart_ns is not None and start_ns < restart_ns < reading.t_ns:
            # What was before the new start is unobserved; since then every token is in the counters.
            self._book(server, restart_ns, "unobserved", TokenDeltas())
            deltas = replace(deltas, reset=False)
            state = self._state(server, reading, deltas, restart_ns)
        server.know(reading)
        self._book(server, reading.t_ns, state, deltas)

    def _book(self, server: ServerBook, t_ns: int, state: State, deltas: TokenDeltas) -> None:
        if server.name not in self._held:
            server.unheld_ns = t_ns
        energy_uj = gap_uj = 0
        for board in self.boards.values():
            if (owner := board.owners.get(server.name)) is not None:
                of_board_uj, of_gaps_uj = owner.close(t_ns)
                energy_uj, gap_uj = energy_uj + of_board_uj, gap_uj + of_gaps_uj
        self._closed.append(server.close(t_ns, state, energy_uj, gap_uj, deltas.tokens))

    def _state(self, server: ServerBook, reading: ServerReading, deltas: TokenDeltas, start_ns: int) -> State:
        if any(board.away or (board.gap_end_ns or start_ns) > start_ns for board in self._held.get(server.name, ())):
            server.gap_ns = reading.t_ns
            return "unobserved"
        if deltas.reset or deltas.unreliable or reading.t_ns - start_ns > UNOBSERVED_AFTER_NS:
            return "unobserved"
        ran = reading.running or (server.reading.running if server.reading is not None else 0)
        return "active" if ran or deltas.in_doubt or any(deltas.tokens.values()) else "idle"

    def _close_rest(self, server: ServerBook) -> None:
        """Close all that was booked to a server, unobserved, with no tokens."""
        owners = [board.owners[server.name] for board in self.boards.values() if server.name in board.owners]
        ends_ns = [owner.booked_ns for owner in owners if owner.booked_ns is not None]
        self._book(server, max((*ends_ns, server.closed_ns or 0)), "unobserved", TokenDeltas())

    def _leave(self, server: ServerBook, t_ns: int) -> None:
        while server.waiting:
            self._close(server, server.waiting.popleft())
        if not server.present:
            if server.gone_ns is None:
                server.gone_ns = t_ns
                self._map()  # where it was counted as one that may hold boards
            server.gone_ns = t_ns
            return
        self._close_rest(server)
        server.leave(t_ns)
        # Nothing more is booked to it, not even the part of a tick before another server opened: it would stay pending for ever.
        for uuid, (opened_ns, before) in self._opened.items():
            self._opened[uuid] = opened_ns, tuple(holder for holder in before if holder.server != server.name)
        self._map()

    # --- who holds what ---

    def _board_views(self) -> Sequence[Board]:
        # A board that is gone keeps the processes it had: when it returns, its energy over the gap has an owner.
        return [Board(board.gpu, board.processes) for board in self.boards.values()]

    def _map(self, opened_ns: int | None = None) -> None:
        claims = [
            Claim(name, self.specs[name].gpus, server.reading.listener if server.reading is not None else None)
            for name, server in self.servers.items()
            if server.present
        ]
        before = self.holders
        # One of the settings that is down may come up at any time. One that was found and is gone has freed its boards for good.
        known = sum(self.specs[name].configured or server.gone_ns is None for name, server in self.servers.items())
        self.holders = self._mapping.of(self._board_views(), claims, servers_known=known)
        if opened_ns is not None:
            for uuid, holders in self.holders.items():
                if holders != before.get(uuid, ()):
                    self._opened.setdefault(uuid, (opened_ns, before.get(uuid, ())))
        held: dict[str, list[BoardBook]] = {}
        for uuid, holders in self.holders.items():
            for holder in holders:
                if holder.server is not None:
                    held.setdefault(holder.server, []).append(self.boards[uuid])
                    self.servers[holder.server].held = True
        self._held = {server: tuple(boards) for server, boards in held.items()}
