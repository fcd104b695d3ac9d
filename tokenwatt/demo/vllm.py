"""One simulated vLLM: what its process has counted at any instant, through restarts."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

from tokenwatt.demo.load import Load, Tokens

VERSION: Final = "0.33.0+simulated"
_UPTIME_NS: Final = 23_000 * 10**9  # of the first process when the simulation begins
_UPTIME_LOAD_PERMILLE: Final = 300  # of the peak, on average, in that time


class Vitals(NamedTuple):
    """What a server process shows at one instant: counters since its start, and what it does now."""

    counted: Tokens
    start_wall_s: float
    age_s: float


class _Process(NamedTuple):
    start_ns: int
    counted_before: Tokens
    """Subtracted from the load's totals. Negative where the process is older than the load."""


class SimulatedVllm:
    """A server: a name, the GPUs it holds, its load, and its processes one after the other.

    A restart sets the counters to zero; the load goes on. Tokens between the last page before it and the restart are on no page: only
    ``load``, the truth, has them.
    """

    def __init__(self, name: str, gpus: tuple[int, ...], load: Load, *, origin_ns: int, origin_wall_s: float) -> None:
        self.name = name
        self.gpus = gpus
        self.load = load
        self.model = load.profile.model
        self._origin_ns = origin_ns
        self._origin_wall_s = origin_wall_s
        self._processes = [_Process(origin_ns - _UPTIME_NS, _past(load))]

    @property
    def started_ns(self) -> int:
        """When the process there is now began."""
        return self._processes[-1].start_ns

    def restart(self, t_ns: int) -> None:
        """A new process from ``t_ns`` on.

        Raises:
            ValueError: the process there is now is not older than that.
        """
        if t_ns <= self.started_ns:
            raise ValueError(f"{self.name} was started at {self.started_ns}: a restart must be later")
        self._processes.append(_Process(t_ns, self.load.at(t_ns)))

    def at(self, t_ns: int) -> Vitals:
        """What the process of that instant shows."""
        process = self._processes[max(0, bisect_right(self._processes, t_ns, key=lambda p: p.start_ns) - 1)]
        now = self.load.at(t_ns)
        before = process.counted_before
        counted = Tokens(
            now.prompt_computed - before.prompt_computed,
            now.prompt_cached - before.prompt_cached,
            now.generation - before.generation,
            now.started - before.started,
            now.finished - before.finished,
            now.engine_steps - before.engine_steps,
            now.running,
            now.waiting,
        )
        start_wall_s = self._origin_wall_s + (process.start_ns - self._origin_ns) / 1e9
        return Vitals(counted, start_wall_s, (t_ns - process.start_ns) / 1e9)


def _past(load: Load) -> Tokens:
    """What the first process had counted before the simulation, as a negative: a meter that does not take a baseline shows at once."""
    profile = load.profile
    running = min(load.shape.peak, profile.max_running)
    generation = profile.decode_millitokens(running, _UPTIME_NS) // 1000 * _UPTIME_LOAD_PERMILLE // 1000
    requests = generation // profile.output_tokens
    prompt = requests * profile.prompt_tokens
    cached = prompt * profile.hit_permille * 6 // 10_000
    steps = generation // max(1, running)
    return Tokens(cached - prompt, -cached, -generation, -requests, -requests, -steps, 0, 0)
