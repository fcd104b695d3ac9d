"""The load of one simulated server: requests and tokens at any instant, exact, and the same for the same seed.

A day-like curve times bursts says how many requests want to run. Each step admits what the prefill can take, the rest waits; the batch size
gives the decoding speed; every ``output_tokens`` tokens a request ends and the next is let in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from tokenwatt.demo.profiles import Profile
from tokenwatt.demo.steps import STEP_NS, Steps, mix, permille, stream

_SWELL_STEPS: Final = 8  # demand wavers every 2 s
_BLOCK: Final = 16  # vLLM's prefix cache works in blocks of tokens
_NIGHT: Final = 0.15  # the part of the day's wave that is under water: a quarter of the day is idle


@dataclass(frozen=True, slots=True)
class Shape:
    """How demand runs. ``day_s`` None: always noon. ``burst_s`` (on, off) None: always on."""

    peak: int
    """Requests that want to run at noon."""
    day_s: int | None = None
    phase: float = 0.0
    """Time of day at the start: 0 is midnight, 0.5 noon."""
    burst_s: tuple[int, int] | None = None
    swell_permille: int = 150
    """How far demand wavers around the curve."""

    def demand(self, k: int, seed: int) -> int:
        """Requests that want to run in step ``k``."""
        t_ns = k * STEP_NS
        if self.burst_s is not None:
            on_s, off_s = self.burst_s
            if t_ns % ((on_s + off_s) * 10**9) >= on_s * 10**9:
                return 0
        return round(self.peak * self._day(t_ns) * permille(seed, k // _SWELL_STEPS, self.swell_permille) / 1000)

    def _day(self, t_ns: int) -> float:
        if self.day_s is None:
            return 1.0
        wave = 0.5 - 0.5 * math.cos(2 * math.pi * (t_ns / 1e9 / self.day_s + self.phase))
        return max(0.0, (wave - _NIGHT) / (1 - _NIGHT))


class LoadStep(NamedTuple):
    """One step: what ran in it, and the totals at its end."""

    running: int = 0
    waiting: int = 0
    ending: int = 0
    """Of ``running``: those whose last token comes at the end of the step."""
    prefill_permille: int = 0
    """Of what the boards can prefill in a step."""
    computed: int = 0
    cached: int = 0
    generation_milli: int = 0
    started: int = 0
    finished: int = 0
    engine_steps: int = 0


class Tokens(NamedTuple):
    """What a server has counted at one instant since the load began, and what it does now. Exact integers."""

    prompt_computed: int
    prompt_cached: int
    generation: int
    started: int
    finished: int
    engine_steps: int
    running: int
    waiting: int


class Load:
    """The load of one server. Nothing happens before ``origin_ns``."""

    def __init__(self, profile: Profile, shape: Shape, *, seed: int, name: str, origin_ns: int) -> None:
        self.profile = profile
        self.shape = shape
        self._origin_ns = origin_ns
        self._prompt_seed = stream(seed, name + "/prompt")
        self._swell_seed = stream(seed, name + "/swell")
        self._prefill_budget = profile.prefill_tokens_per_s * STEP_NS // 10**9
        self._steps = Steps(LoadStep(), self._advance)

    def step(self, k: int) -> LoadStep:
        """Step ``k`` since the origin."""
        return self._steps.at(k)

    def at(self, t_ns: int) -> Tokens:
        """The totals at ``t_ns``.

        Prompt tokens come at the end of their step, since vLLM counts a prompt with its first output; generation flows within it.
        """
        k, into_ns = divmod(max(0, t_ns - self._origin_ns), STEP_NS)
        before, now = self._steps.around(k)
        milli = before.generation_milli + (now.generation_milli - before.generation_milli) * into_ns // STEP_NS
        return Tokens(
            before.computed,
            before.cached,
            milli // 1000,
            before.started,
            before.finished,
            before.engine_steps,
            now.running,
            now.waiting,
        )

    def _advance(self, k: int, before: LoadStep) -> LoadStep:
        demand = self.shape.demand(k, self._swell_seed)
        room = min(demand, self.profile.max_running)
        went_on = before.running - before.ending
        kept = min(went_on, room)  # what demand no longer covers has ended
        admitted, computed, cached = self._admit(before.started, room - kept)
        running = kept + admitted
        milli = before.generation_milli + self.profile.decode_millitokens(running, STEP_NS)
        per_request = self.profile.output_tokens * 1000
        ending = min(running, milli // per_request - before.generation_milli // per_request)
        return LoadStep(
            running,
            demand - running,
            ending,
            min(1000, computed * 1000 // self._prefill_budget),
            before.computed + computed,
            before.cached + cached,
            milli,
            before.started + admitted,
            before.finished + went_on - kept + ending,
            before.engine_steps + self._engine_steps(running),
        )

    def _engine_steps(self, running: int) -> int:
        return self.profile.decode_millitokens(running, STEP_NS) // (1000 * running) if running else 0

    def _admit(self, first: int, free: int) -> tuple[int, int, int]:
        """(admitted, computed, cached): requests from number ``first`` on, until no place or no prefill is left."""
        admitted = computed = cached = 0
        while admitted < free and computed < self._prefill_budget:
            length, hit = self._prompt(first + admitted)
            admitted += 1
            computed += length - hit
            cached += hit
        return admitted, computed, cached

    def _prompt(self, number: int) -> tuple[int, int]:
        """(tokens, of which cached) of the request with this number since the origin."""
        bits = mix(self._prompt_seed, number)
        mean = self.profile.prompt_tokens
        length = mean // 4 + ((bits & 0xFFFF) * (mean * 3 // 2) >> 16)
        if (bits >> 16) % 1000 >= self.profile.hit_permille:
            return length, 0
        hit_permille = 300 + (bits >> 40) % 651
        # A prompt is never cached whole: its last block is computed, for there must be something to sample from.
        return length, min(length * hit_permille // 1000, length - 1) // _BLOCK * _BLOCK
