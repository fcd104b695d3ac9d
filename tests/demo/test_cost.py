"""What the simulation costs. Figures are printed (pytest -s); only figures of one run are compared."""

import sys
import time
from collections.abc import Callable
from functools import partial

from tokenwatt.demo.node import SimulatedNode
from tokenwatt.demo.server import page

S = 10**9
NAMES = ("vllm:generation_tokens_total", "vllm:prompt_tokens_by_source_total", "vllm:num_requests_running", "process_start_time_seconds")


def _cpu_s(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def _half_minute(node: SimulatedNode, start_s: int) -> None:
    """What the meter does in 30 s: 8 boards at 10 Hz, their states and 3 servers' filtered pages at 1 Hz."""
    now_ns = start_s * S
    source = node.source(lambda: now_ns)
    uuids = [b.gpu.uuid for b in node.boards]
    for tick in range(300):
        now_ns = start_s * S + tick * S // 10
        for uuid in uuids:
            source.read(uuid, want_processes=False)
        if tick % 10 == 0:
            for uuid in uuids:
                source.state(uuid)
            for server in node.servers:
                page(server, now_ns, NAMES)


def test_cost_does_not_grow_with_time() -> None:
    node = SimulatedNode()
    _half_minute(node, 0)
    early_s = min(_cpu_s(partial(_half_minute, node, s)) for s in (30, 60, 90))
    _half_minute(node, 1200)  # leaps a day ahead, and most of that is dropped
    late_s = min(_cpu_s(partial(_half_minute, node, s)) for s in (1230, 1260, 1290))
    whole_s = _cpu_s(lambda: page(node.servers[0], 1320 * S))
    sys.stdout.write(
        f"simulation: {early_s / 30:.3%} of a core at first, {late_s / 30:.3%} a day later; a whole page {whole_s * 1e3:.1f} ms\n"
    )
    assert late_s < 3 * early_s
