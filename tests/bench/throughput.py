"""A real vLLM's throughput with and without a meter: blocks of equal load, in turns, and how sure the difference is."""

from __future__ import annotations

import math
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.vllm.server import RealVllm

CLIENTS: Final = 4
ANSWER_TOKENS: Final = 64
SETTLE_S: Final = 1.5
"""Between a change and the block: a meter that goes on finds its connection closed, and reads once more than usual."""

# Student's t, 97.5 %, by degrees of freedom from 1 on.
_T: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_T_MORE: Final = 2.120
"""Of 16 degrees: a little wide for more of them."""

Row = tuple[str, float, str, str]


def measure(server: RealVllm, send: Callable[[int], None], *, pairs: int, block_s: float) -> list[Row]:
    """Pairs of blocks, one with the meter and one without, in the order ABBA. ``send`` signals the meter. The first pair is left out.

    The same requests in each block, from clients that wait for their answer before they ask again; a block's rate is its tokens over its
    time.
    """
    requests = _requests(server, block_s)
    rates: list[tuple[float, float]] = []
    for pair in range(pairs + 1):
        by_meter = {}
        for metered in (True, False) if pair % 2 else (False, True):
            send(signal.SIGCONT if metered else signal.SIGSTOP)
            time.sleep(SETTLE_S)
            by_meter[metered] = _rate(server, requests)
        rates.append((by_meter[True], by_meter[False]))
        print(f"    pair {pair:2}: {by_meter[True]:8.1f} tokens/s metered, {by_meter[False]:8.1f} not", flush=True)
    send(signal.SIGCONT)
    return _rows(rates[1:], requests)


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The mean ratio (geometric), and the bounds that hold it with 95 % confidence (t of the logarithms of pairs)."""
    logs = [math.log(r) for r in ratios]
    mean = statistics.fmean(logs)
    freedom = len(logs) - 1
    half = (_T[freedom - 1] if freedom <= len(_T) else _T_MORE) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def _rows(rates: Sequence[tuple[float, float]], requests: int) -> list[Row]:
    ratio, low, high = interval([metered / not_metered for metered, not_metered in rates])
    return [
        ("vLLM's throughput, not metered", statistics.fmean(r for _, r in rates), "tokens/s", ""),
        ("the same, metered at 1 Hz", statistics.fmean(r for r, _ in rates), "tokens/s", ""),
        ("metered / not metered", ratio * 100, "%", "whatever it is"),
        ("  its 95 % confidence interval, from", low * 100, "%", ""),
        ("  to", high * 100, "%", ""),
        ("pairs of blocks", len(rates), "", ""),
        ("requests a block", requests, "", ""),
    ]


def _requests(server: RealVllm, block_s: float) -> int:
    """How many requests fill a block: whole rounds of all clients."""
    _rate(server, 2 * CLIENTS)
    rate = _rate(server, 4 * CLIENTS) / ANSWER_TOKENS
    return max(round(rate * block_s / CLIENTS), 1) * CLIENTS


def _rate(server: RealVllm, requests: int) -> float:
    """Tokens a second of a block of streamed answers."""
    start = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        usages = list(clients.map(lambda n: server.stream(f"request {n} of a block", max_tokens=ANSWER_TOKENS), range(requests)))
    assert all(usage["generation"] == ANSWER_TOKENS for usage in usages)
    return requests * ANSWER_TOKENS / (time.monotonic() - start)
