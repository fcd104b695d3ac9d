"""Reads all boards on a schedule and hands on what they tell; one board that is lost, or hangs, does not stop the others.

Three kinds of threads, all daemons. The *reader* reads the boards in turn at every tick; it is the only one that delivers. The *watch*
wakes about once a second: it replaces a reader that a call into the driver does not let go, and looks for boards that are missing or new.
The *search* is that looking: a thread of its own while it lasts, since it may hang as well. A reader that was replaced, once its call
returns, tries that board alone until it answers promptly, and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread
from time import monotonic_ns, sleep
from typing import Final

from tokenwatt.energy.board_log import LOGGER, BoardLog
from tokenwatt.energy.source import EnergySource, SourceUnavailable
from tokenwatt.types import EnergyReading, EnergyTick, Gpu, GpuState, GpuStates

_SECOND_NS: Final = 1_000_000_000
_PROMPT_ANSWERS: Final = 10
"""So many prompt answers in a row bring a board back that hung: else one that hangs at every other call stops all boards each time."""
_STOP_NS: Final = 400_000_000

Deliver = Callable[[EnergyTick | GpuStates], None]


class _Board:
    """What the sampler knows of one board."""

    __slots__ = ("error", "gpu", "hangs_since_ns", "log", "retry_ns", "shared", "state")

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.log = BoardLog(gpu)
        self.error: str | None = None
        """Why it is lost."""
        self.retry_ns = 0
        self.hangs_since_ns: int | None = None
        self.state: GpuState | None = None
        self.shared = False
        """Its last state listed more than one process."""


class _Reader:
    """One reading thread, and the call it is in."""

    __slots__ = ("board", "replaced", "since_ns")

    def __init__(self) -> None:
        self.board: _Board | None = None
        self.since_ns = 0
        self.replaced = False


class Sampler:
    """Reads ``source``: an ``EnergyTick`` of all boards every ``power_period_ns``, a ``GpuStates`` every ``state_period_ns``.

    ``deliver`` is called by one thread at a time. A board that is lost or hangs is in every tick, with an error; in ``GpuStates`` are those
    that answer. A call hangs when it has not returned after ``hang_ns``. Lost boards are tried and looked for every ``retry_ns``, new ones
    every ``search_ns``.
    """

    def __init__(
        self,
        source: EnergySource,
        *,
        power_period_ns: int,
        state_period_ns: int,
        deliver: Deliver,
        hang_ns: int = 2 * _SECOND_NS,
        retry_ns: int = _SECOND_NS,
        search_ns: int = 30 * _SECOND_NS,
    ) -> None:
        self._source = source
        self._power_period_ns = power_period_ns
        self._state_period_ns = state_period_ns
        self._deliver = deliver
        self._hang_ns = hang_ns
        self._retry_ns = retry_ns
        self._search_ns = search_ns
        self._lock = Lock()  # of what the threads change of each other's: _boards, _new_boards, and who reads what
        self._stopping = Event()
        self._boards: dict[str, _Board] = {}
        self._new_boards = False
        self._reader = _Reader()
        self._threads: list[Thread] = []
        self._search: Thread | None = None
        self._search_failure = ""
        self._states_due_ns = 0
        self._broken = False

    def open(self) -> Sequence[Gpu]:
        """Open the source. May be called again after it failed.

        Raises:
            SourceUnavailable: there is no GPU to read.
        """
        gpus = self._source.open()
        self._adopt(gpus)
        return gpus

    def start(self) -> None:
        """Begin to read and deliver."""
        self._start_reader()
        self._start_thread("energy-watch", self._watch_loop)

    def stop(self) -> None:
        """Stop delivering and close the source, within a second. A thread in a call that hangs stays, as a daemon."""
        self._stopping.set()
        end_ns = monotonic_ns() + _STOP_NS
        for thread in self._threads:
            thread.join(max(0, end_ns - monotonic_ns()) / 1e9)
        self._source.close()

    def _start_thread(self, name: str, target: Callable[[], None]) -> Thread:
        thread = Thread(target=target, name=name, daemon=True)
        self._threads = [*(before for before in self._threads if before.is_alive()), thread]
        thread.start()
        return thread

    # -- the reader

    def _start_reader(self) -> None:
        self._reader = reader = _Reader()
        self._start_thread("energy-reader", lambda: self._read_loop(reader))

    def _read_loop(self, me: _Reader) -> None:
        due_ns = monotonic_ns() // self._power_period_ns * self._power_period_ns
        while not self._stopping.is_set():
            self._round_safely(me)
            if me.replaced:
                self._try_until_prompt(me)
                return
            now_ns = monotonic_ns()
            # On the multiples of the period, without drift. Ticks that are past already are left out, not made up for in a bunch.
            due_ns += self._power_period_ns * max(1, -((due_ns - now_ns) // self._power_period_ns))
            # Not the event's wait, which takes twice the CPU time: a period is short enough to stop after it.
            sleep((due_ns - now_ns) / 1e9)

    def _round_safely(self, me: _Reader) -> None:
        try:
            self._round(me)
        except Exception:
            # Whoever is delivered to failed. The next round may do better; the log says it once until one did.
            if not self._broken:
                LOGGER.exception("A round of energy readings failed")
            self._broken = True
            self._leave(me)
        else:
            self._broken = False

    def _round(self, me: _Reader) -> None:
        if self._new_boards:
            # First of all, so that whoever gets a reading knows its board.
            self._new_boards = False
            self._states_due_ns = 0
            self._refresh_states(me)
            if me.replaced:
                return
        readings = []
        for board in self._boards.values():
            readings.append(self._read(me, board))
            if me.replaced:
                return
        if not self._stopping.is_set():
            self._deliver(EnergyTick(tuple(readings)))
            self._refresh_states(me)

    def _read(self, me: _Reader, board: _Board) -> EnergyReading:
        now_ns = monotonic_ns()
        if board.hangs_since_ns is not None:
            seconds = (now_ns - board.hangs_since_ns) // _SECOND_NS
            reading = EnergyReading(board.gpu.uuid, now_ns, error=f"the driver has not answered for {seconds} s", lost=True)
        elif board.error is not None and now_ns < board.retry_ns:
            return EnergyReading(board.gpu.uuid, now_ns, error=board.error, lost=True)
        else:
            self._enter(me, board, now_ns)
            reading = self._source.read(board.gpu.uuid, want_processes=board.shared)
            if self._leave(me):
                return reading
            board.error = None
            if reading.lost:
                board.error, board.retry_ns = reading.error, now_ns + self._retry_ns
        if reading.error is not None or board.log.kind != "ok":
            board.log.update(reading)
        return reading

    def _enter(self, me: _Reader, board: _Board, now_ns: int) -> None:
        me.since_ns = now_ns
        me.board = board

    def _leave(self, me: _Reader) -> bool:
        """The call returned. True: too late, another thread reads by now."""
        with self._lock:
            if not me.replaced:
                me.board = None
            return me.replaced

    # -- states, after the tick that is due

    def _refresh_states(self, me: _Reader) -> None:
        """Once a period: read all states, and deliver them. One after the other they take a third of the time of one in each tick."""
        now_ns = monotonic_ns()
        if now_ns < self._states_due_ns:
            return
        boards = list(self._boards.values())
        for board in boards:
            self._refresh_state(me, board)
            if me.replaced:
                return
        if not self._stopping.is_set():
            late = (now_ns - self._states_due_ns) // self._state_period_ns
            first = self._states_due_ns == 0
            self._states_due_ns = now_ns + self._state_period_ns if first else self._states_due_ns + (late + 1) * self._state_period_ns
            present = [board for board in boards if board.error is None and board.hangs_since_ns is None]
            self._deliver(GpuStates(tuple(board.state or GpuState(board.gpu, now_ns) for board in present)))

    def _refresh_state(self, me: _Reader, board: _Board) -> None:
        board.state, board.shared = None, False
        if board.error is not None or board.hangs_since_ns is not None:
            return
        self._enter(me, board, monotonic_ns())
        state = self._source.state(board.gpu.uuid)
        if self._leave(me):
            return
        board.state = state
        board.shared = state is not None and state.processes is not None and len(state.processes) > 1

    # -- a board that hangs

    def _watch_loop(self) -> None:
        searched_ns = monotonic_ns()
        while not self._stopping.wait(min(_SECOND_NS, self._hang_ns // 2, self._retry_ns) / 1e9):
            now_ns = monotonic_ns()
            self._replace_hanging_reader(now_ns)
            missing = any(board.error is not None for board in list(self._boards.values()))
            if now_ns - searched_ns >= (self._retry_ns if missing else self._search_ns):
                searched_ns = now_ns
                self._start_search()

    def _replace_hanging_reader(self, now_ns: int) -> None:
        with self._lock:
            reader, board = self._reader, self._reader.board
            if board is None or now_ns - reader.since_ns < self._hang_ns:
                return
            board.hangs_since_ns = reader.since_ns
            reader.replaced = True
        self._start_reader()

    def _try_until_prompt(self, me: _Reader) -> None:
        """The call that hung has returned. Ask that board alone until it answers promptly again, then leave it to the reader of now."""
        board = me.board
        assert board is not None
        prompt = 0
        while prompt < _PROMPT_ANSWERS and not self._stopping.wait(self._power_period_ns / 1e9):
            begin_ns = monotonic_ns()
            self._source.read(board.gpu.uuid, want_processes=False)
            self._source.state(board.gpu.uuid)
            prompt = prompt + 1 if monotonic_ns() - begin_ns < self._hang_ns // 10 else 0
        board.hangs_since_ns = None

    # -- boards that are missing or new

    def _start_search(self) -> None:
        if self._search is None or not self._search.is_alive():
            self._search = self._start_thread("energy-search", self._search_once)

    def _search_once(self) -> None:
        try:
            gpus = self._source.open()
        except SourceUnavailable as error:
            if str(error) != self._search_failure:
                LOGGER.warning("No GPU is found: %s", error)
            self._search_failure = str(error)
        else:
            self._search_failure = ""
            self._adopt(gpus)

    def _adopt(self, gpus: Sequence[Gpu]) -> None:
        """Take the boards in that the source found: new ones, and those of before with the index they have now."""
        with self._lock:
            for gpu in gpus:
                board = self._boards.get(gpu.uuid)
                if board is None:
                    LOGGER.info("GPU %d (%s) is a %s", gpu.index, gpu.uuid, gpu.name)
                    self._boards = {**self._boards, gpu.uuid: _Board(gpu)}
                    self._new_boards = True
                else:
                    board.gpu = board.log.gpu = gpu
                    board.retry_ns = 0
