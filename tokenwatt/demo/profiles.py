"""What a model on given boards can do: tokens a second and watts by batch size.

H100 figures are fitted to the ML.ENERGY leaderboard v3 data (snapshot 2026-02-27, GPU boards only): power and tokens a second of chat tasks
at several batch caps. One decoding step takes ``base + batch x per_request``; with both constants taken from the smallest and the largest
batch, the middle one comes out within 1 %. Power at batch 1, prefill speeds, prompts and everything about the L4 are estimates.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class BoardModel:
    """A kind of board. ``idle_mw``: nothing on it."""

    name: str
    idle_mw: int
    limit_mw: int
    memory_bytes: int
    sm_clock_hz: int
    sm_clock_idle_hz: int
    heat_mc_per_w: int
    """Thousandths of a degree over ambient for each watt, once warm."""


H100: Final = BoardModel("NVIDIA H100 80GB HBM3", 70_000, 700_000, 85_520_809_984, 1_980_000_000, 345_000_000, 62)
L4: Final = BoardModel("NVIDIA L4", 16_000, 72_000, 24_152_899_584, 2_040_000_000, 210_000_000, 620)


@dataclass(frozen=True, slots=True)
class Profile:
    """One model on ``boards`` boards of one kind (tensor parallel)."""

    model: str
    """The served name, which says that it is simulated."""
    board: BoardModel
    boards: int
    step_base_ns: int
    step_per_request_ns: int
    power_mw: tuple[tuple[int, int], ...]
    """(batch size, mW of each board), between which power is linear in log(batch)."""
    loaded_idle_mw: int
    """Of each board, with the model in memory and no request."""
    prefill_tokens_per_s: int
    max_running: int
    prompt_tokens: int
    """Mean; a request has 0.25 to 1.75 times as many."""
    hit_permille: int
    """Requests whose prompt begins with what the prefix cache holds."""
    output_tokens: int

    def decode_millitokens(self, running: int, span_ns: int) -> int:
        """Thousandths of a token that ``running`` requests bring in ``span_ns``."""
        return running * span_ns * 1000 // (self.step_base_ns + running * self.step_per_request_ns)

    def decode_power_mw(self, running: int) -> int:
        """Power of each board while ``running`` requests decode; ``loaded_idle_mw`` without any."""
        if running == 0:
            return self.loaded_idle_mw
        points = self.power_mw
        for (n0, p0), (n1, p1) in itertools.pairwise(points):
            if running <= n1:
                return p0 + round((p1 - p0) * math.log(running / n0) / math.log(n1 / n0))
        return points[-1][1]


CHAT_8B: Final = Profile(
    model="simulated/Llama-3.1-8B-Instruct",
    board=H100,
    boards=1,
    step_base_ns=6_766_000,  # 1070, 5147, 9806 tokens/s at 8, 64, 512
    step_per_request_ns=88_770,
    power_mw=((1, 420_000), (8, 486_000), (64, 610_000), (512, 688_000)),
    loaded_idle_mw=110_000,
    prefill_tokens_per_s=30_000,
    max_running=256,
    prompt_tokens=500,
    hit_permille=500,
    output_tokens=250,
)
CODE_32B: Final = Profile(
    model="simulated/Qwen3-32B",
    board=H100,
    boards=2,
    step_base_ns=14_218_000,  # 522, 5155 tokens/s at 8, 256
    step_per_request_ns=138_450,
    power_mw=((1, 370_000), (8, 425_000), (256, 589_000)),
    loaded_idle_mw=112_000,
    prefill_tokens_per_s=14_000,
    max_running=64,
    prompt_tokens=1200,
    hit_permille=850,
    output_tokens=180,
)
CHAT_70B: Final = Profile(
    model="simulated/Llama-3.1-70B-Instruct",
    board=H100,
    boards=4,
    step_base_ns=15_974_000,  # 470, 3876, 6827 tokens/s at 8, 128, 1024
    step_per_request_ns=130_880,
    power_mw=((1, 390_000), (8, 441_250), (128, 546_000), (1024, 637_000)),
    loaded_idle_mw=115_000,
    prefill_tokens_per_s=12_000,
    max_running=128,
    prompt_tokens=300,
    hit_permille=400,
    output_tokens=300,
)
SMALL_8B: Final = Profile(
    model="simulated/Llama-3.1-8B-Instruct-L4",
    board=L4,
    boards=1,
    step_base_ns=56_000_000,  # 16 GB of weights at 300 GB/s
    step_per_request_ns=1_400_000,
    power_mw=((1, 66_000), (8, 75_000), (64, 80_000)),  # what it would draw without its cap of 72 W
    loaded_idle_mw=31_000,
    prefill_tokens_per_s=3_000,
    max_running=32,
    prompt_tokens=300,
    hit_permille=300,
    output_tokens=200,
)
