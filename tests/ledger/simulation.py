"""A meter over the simulated node, in simulated time: what the books say against what the simulation knows.

The readings are the real ones (pages as vLLM writes them, read by the reader that the daemon has); only sockets and clocks are left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tokenwatt.accounting.meter import Meter
from tokenwatt.accounting.publish import Clock, SnapshotMaker
from tokenwatt.accounting.server_spec import ServerSpec
from tokenwatt.demo.node import SimulatedNode
from tokenwatt.demo.server import page
from tokenwatt.servers.engines.vllm import VLLM
from tokenwatt.servers.page.counters import read_counters, scheme_of, wanted
from tokenwatt.servers.page.exposition import read
from tokenwatt.snapshot import Build, ServerSnapshot, Snapshot, Window
from tokenwatt.types import EnergyTick, GpuStates, Kind, ServerFailure, ServerReading

SECOND = 1_000_000_000
TICK = SECOND // 10
WALL_S = 1.8e9
WINDOWS = tuple(Window(label, seconds * SECOND) for label, seconds in (("10s", 10), ("1m", 60), ("5m", 300)))
WANTED = wanted([VLLM])


@dataclass
class Poll:
    """One server as its poller sees it: when it is read next, and what becomes of it until when."""

    name: str
    next_ns: int
    down_until_ns: int = 0
    gone: bool = False
    lives: list[list[int]] = field(default_factory=list)
    """First and last instant read of each process of the server."""


class Simulation:
    """Runs a meter over a simulated node. ``fault`` is asked at each read: None (read it) or the time for which it fails."""

    def __init__(self, node: SimulatedNode, fault: Callable[[Poll, int], int] = lambda poll, t_ns: 0, seed: int = 0) -> None:
        self.node = node
        self.t_ns = 0
        self.random = random.Random(seed)
        self.source = node.source(lambda: self.t_ns)
        self.meter = Meter(
            [ServerSpec(s.name, f"http://{s.name}", gpus=s.gpus) for s in node.servers],
            lambda pid: (),
            power_period_ns=TICK,
            started_ns=0,
        )
        self.maker = SnapshotMaker(
            self.meter,
            build=Build("0", "3", "c"),
            simulated=True,
            windows=WINDOWS,
            metrics_windows=WINDOWS,
            tokens_period_ns=SECOND,
            started_wall_s=WALL_S,
        )
        self.meter.gpus_found(self.source.open())
        self.polls = [Poll(s.name, self.random.randrange(SECOND)) for s in node.servers]
        self._fault = fault
        self._uuids = [board.gpu.uuid for board in node.boards]
        self._next_second = SECOND

    def run(self, seconds: float, each_second: Callable[[], None] = lambda: None) -> None:
        """Let time pass: boards at 10 Hz with some jitter, servers at 1 Hz each at its own phase."""
        end_ns = self.t_ns + round(seconds * SECOND)
        while self.t_ns < end_ns:
            tick_ns = self.t_ns + TICK + self.random.randrange(-TICK // 20, TICK // 20)
            for poll in sorted(self.polls, key=lambda poll: poll.next_ns):
                while poll.next_ns < tick_ns:
                    self._poll(poll)
            self.t_ns = tick_ns
            self.meter.energy_tick(EnergyTick(tuple(self.source.read(uuid, want_processes=False) for uuid in self._uuids)))
            if tick_ns >= self._next_second:
                self._next_second += SECOND
                self.meter.gpu_states(GpuStates(tuple(s for uuid in self._uuids if (s := self.source.state(uuid)) is not None)))
                self.meter.each_second(tick_ns)
                self.meter.check_conservation()
                each_second()

    def snapshot(self) -> Snapshot:
        return self.maker.take(Clock(self.t_ns, WALL_S + self.t_ns / SECOND))

    def server(self, name: str) -> ServerSnapshot:
        return next(server for server in self.snapshot().servers if server.name == name)

    def tokens(self, name: str) -> Mapping[Kind, int]:
        return self.server(name).models[0].tokens

    def true_tokens(self, poll: Poll) -> Mapping[Kind, int]:
        """What a perfect meter could have counted: between the first and the last page of each process, and from its start where we saw it.

        Tokens between the last page of a process and its end are on no page.
        """
        out: dict[Kind, int] = {}
        for first_ns, last_ns in poll.lives:
            first, last = self.node.truth(poll.name, first_ns).tokens, self.node.truth(poll.name, last_ns).tokens
            for kind, count in last.items():
                out[kind] = out.get(kind, 0) + count - first[kind]
        return out

    def _poll(self, poll: Poll) -> None:
        t_ns = poll.next_ns
        poll.next_ns += SECOND
        fails_ns = self._fault(poll, t_ns)
        poll.down_until_ns = max(poll.down_until_ns, t_ns + fails_ns)
        if t_ns < poll.down_until_ns:
            self.meter.server_failure(ServerFailure(poll.name, t_ns, "it does not answer", gone=poll.gone))
            return
        self.meter.server_reading(self._read(poll, t_ns))

    def _read(self, poll: Poll, t_ns: int) -> ServerReading:
        server = self.node.server(poll.name)
        body = read(page(server, t_ns), WANTED)
        scheme = scheme_of(body, VLLM)
        assert scheme is not None
        counters = read_counters(body, VLLM, scheme)
        assert counters.process_start is not None
        start_ns = server.started_ns
        if not poll.lives:
            poll.lives.append([t_ns, t_ns])
        elif start_ns > poll.lives[-1][1]:
            poll.lives.append([start_ns, t_ns])
        poll.lives[-1][1] = t_ns
        return ServerReading(
            poll.name,
            t_ns,
            "vllm",
            counters.tokens,
            counters.running,
            counters.waiting,
            counters.process_start,
            round((counters.process_start - WALL_S) * SECOND),
            "0.33.0",
            "step",
            counters.cached,
        )


def true_energy_uj(node: SimulatedNode, uuids: Sequence[str], start_ns: int, end_ns: int) -> int:
    """What boards used between two instants."""
    return sum(board.energy_uj(end_ns) - board.energy_uj(start_ns) for board in node.boards if board.gpu.uuid in uuids)
