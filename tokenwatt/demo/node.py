"""The simulated node: boards, the servers on them, and the truth about both; and ``start_demo``, which puts it on the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tokenwatt.demo.board import Board
from tokenwatt.demo.load import Load, Shape
from tokenwatt.demo.profiles import CHAT_8B, CHAT_70B, CODE_32B, H100, BoardModel, Profile
from tokenwatt.demo.server import HttpServers
from tokenwatt.demo.source import SimulatedSource
from tokenwatt.demo.vllm import SimulatedVllm
from tokenwatt.types import Kind

_DAY_S: Final = 1200
"""A day of the demo: short enough to see its curve, a quarter of it night."""


@dataclass(frozen=True, slots=True)
class Service:
    """A server to simulate, and the boards it runs on, which are its alone."""

    name: str
    profile: Profile
    shape: Shape
    gpus: tuple[int, ...]


SERVICES: Final = (
    Service("chat-8b", CHAT_8B, Shape(peak=96, day_s=_DAY_S, phase=0.35), (0,)),
    # Agents call in volleys and think in between.
    Service("code-32b", CODE_32B, Shape(peak=24, day_s=_DAY_S, phase=0.30, burst_s=(2, 6)), (1, 2)),
    # More at noon than may run at once: requests wait.
    Service("chat-70b", CHAT_70B, Shape(peak=140, day_s=_DAY_S, phase=0.40, burst_s=(8, 8)), (3, 4, 5, 6)),
)
BOARDS: Final = (H100,) * 8
"""The demo's boards. Number 7 serves nobody."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What really happened between the origin and an instant: tokens of a server, and microjoules of each of its boards by UUID."""

    tokens: Mapping[Kind, int]
    energy_uj: Mapping[str, int]


class SimulatedNode:
    """Boards and servers whose whole history follows from ``seed``.

    ``origin_ns`` and ``origin_wall_s`` are its first instant on the two clocks.

    Raises:
        ValueError: servers that share a board, or have other boards than their profile is for.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        origin_ns: int = 0,
        origin_wall_s: float = 1.8e9,
        services: Sequence[Service] = SERVICES,
        boards: Sequence[BoardModel] = BOARDS,
    ) -> None:
        _check(services, boards)
        loads = {s.name: Load(s.profile, s.shape, seed=seed, name=s.name, origin_ns=origin_ns) for s in services}
        on_board = {i: loads[s.name] for s in services for i in s.gpus}
        self.boards = tuple(Board(model, i, on_board.get(i), seed=seed, origin_ns=origin_ns) for i, model in enumerate(boards))
        self.servers = tuple(
            SimulatedVllm(s.name, s.gpus, loads[s.name], origin_ns=origin_ns, origin_wall_s=origin_wall_s) for s in services
        )
        self._by_name = {s.name: s for s in self.servers}

    def server(self, name: str) -> SimulatedVllm:
        """The server of that name. Raises KeyError where there is none."""
        return self._by_name[name]

    def truth(self, server: str, t_ns: int) -> Truth:
        """Tokens of the server and energy of its boards since the origin: what a perfect meter would have counted."""
        found = self._by_name[server]
        tokens = found.load.at(t_ns)
        boards = (self.boards[i] for i in found.gpus)
        return Truth(
            {"prompt_computed": tokens.prompt_computed, "prompt_cached": tokens.prompt_cached, "generation": tokens.generation},
            {b.gpu.uuid: b.energy_uj(t_ns) for b in boards},
        )

    def source(self, clock: Callable[[], int]) -> SimulatedSource:
        """The boards as an energy source that tells what ``clock`` (ns) has it."""
        return SimulatedSource(self.boards, clock)


def _check(services: Sequence[Service], boards: Sequence[BoardModel]) -> None:
    """A simulation with a mistake in it must not pass for a measurement that went wrong."""
    used = [i for s in services for i in s.gpus]
    if len(used) != len(set(used)):
        raise ValueError("two simulated servers share a board")
    for s in services:
        if len(s.gpus) != s.profile.boards or any(boards[i] != s.profile.board for i in s.gpus):
            raise ValueError(f"{s.name} needs {s.profile.boards} x {s.profile.board.name}")


@dataclass(frozen=True, slots=True)
class DemoServer:
    """What the demo's settings say about one server."""

    name: str
    url: str
    gpus: tuple[int, ...]


class Demo:
    """A simulated node in real time, on the network. ``stop`` it when done."""

    def __init__(self, node: SimulatedNode, clock: Callable[[], int]) -> None:
        self.node = node
        self.http = HttpServers(node.servers, clock)
        self.source = node.source(clock)
        self.servers: Sequence[DemoServer] = tuple(DemoServer(s.name, self.http.url(s.name), s.gpus) for s in node.servers)

    def stop(self) -> None:
        """Close the servers and end their thread. Safe to call twice."""
        self.http.stop()


def start_demo(seed: int = 1) -> Demo:
    """Start the demo's node now, on the monotonic clock. Raises OSError where no port can be had."""
    clock = time.monotonic_ns
    return Demo(SimulatedNode(seed, origin_ns=clock(), origin_wall_s=time.time()), clock)
