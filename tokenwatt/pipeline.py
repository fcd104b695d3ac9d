"""The rooms wired together: readings flow into one inbox, one writer at a time writes the books, snapshots flow out.

| thread | what it does | what it touches |
|---|---|---|
| energy-reader (energy.sampler) | reads the boards ten times a second; once a second it writes | NVML; the inbox; the books |
| energy-watch (energy.sampler) | starts another reader where a driver's call hangs | |
| servers (servers.polling.rounds) | reads the servers that are well once a second, in turn | their connections; puts into the inbox |
| server-NAME (servers.polling.poller), one each | reads its server while that is new or not well | its connection; puts into the inbox |
| discovery (servers.discovery) | looks for servers that the settings do not name | /proc; tells the pollers, opens books |
| main | answers HTTP from the last snapshot; takes pushed tokens | the snapshot, which nobody changes; the sums of what was pushed |

Writing is to take what is old enough out of the inbox, in the order of its instants, and to publish. Ten ticks in one go take half the
CPU time of ten that each find the caches cold; and an answer, which arrives some time after the instant it is of, still finds its tick
unbooked: who holds a board from that instant on gets the energy from that instant on. The writer is whoever delivers the tick that is due,
under a lock. No driver's call is made under it: a reader that hangs is replaced, and the next one writes.
"""

from __future__ import annotations

import logging
import platform
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Final, TypeVar

from tokenwatt import __version__, procfs
from tokenwatt.accounting.meter import Meter
from tokenwatt.accounting.publish import Clock, SnapshotMaker
from tokenwatt.accounting.server_spec import ServerSpec
from tokenwatt.energy.sampler import Sampler
from tokenwatt.energy.source import EnergySource, SourceUnavailable
from tokenwatt.ring import IMPLEMENTATION
from tokenwatt.servers.discovery import Discovery
from tokenwatt.servers.polling.pollers import Pollers
from tokenwatt.servers.push.pushed import PushedTokens
from tokenwatt.servers.target import ServerTarget
from tokenwatt.settings.addresses import url_port
from tokenwatt.settings.model import Settings
from tokenwatt.settings.servers import ServerSettings
from tokenwatt.snapshot import Build, Snapshot
from tokenwatt.types import EnergyTick, GpuStates, ServerFailure, ServerReading

log = logging.getLogger("tokenwatt")

STATE_PERIOD_NS: Final = 1_000_000_000
LOOK_FOR_GPUS_S: Final = 5.0

INBOX_MAX: Final = 100_000
"""More messages than this are dropped, oldest first: nobody writes any more then, and counters keep what they count."""

HOLD_BACK_NS: Final = 200_000_000
"""What is younger waits for the next time: an answer of the same instant may still be on its way. At most half a period, so that no reading
looks old for it."""

Message = EnergyTick | GpuStates | ServerReading | ServerFailure

Told = TypeVar("Told", ServerReading, ServerFailure)


class Pipeline:
    """Measures a node and hands out snapshots until it is stopped."""

    def __init__(
        self,
        source: EnergySource,
        settings: Settings,
        *,
        on_snapshot: Callable[[Snapshot], None],
        on_failure: Callable[[BaseException], None],
        debug: bool = False,
    ) -> None:
        """``on_snapshot`` and ``on_failure`` (the meter cannot go on) are called from the writer's thread."""
        self._settings = settings
        self._on_snapshot = on_snapshot
        self._on_failure = on_failure
        self._debug = debug
        self._inbox: deque[Message] = deque(maxlen=INBOX_MAX)
        self._sampler = Sampler(source, power_period_ns=settings.sampling.power_ns, state_period_ns=STATE_PERIOD_NS, deliver=self._take)
        self._meter = Meter(
            [_spec(server) for server in settings.servers],
            procfs.ancestors,
            power_period_ns=settings.sampling.power_ns,
            started_ns=time.monotonic_ns(),
        )
        self._snapshots = SnapshotMaker(
            self._meter,
            build=Build(__version__, platform.python_version(), IMPLEMENTATION),
            simulated=source.simulated,
            windows=settings.windows,
            metrics_windows=settings.metrics.windows,
            tokens_period_ns=settings.sampling.tokens_ns,
            started_wall_s=time.time(),
        )
        self._pollers = Pollers(period_ns=settings.sampling.tokens_ns, deliver=self._inbox.append)
        for server in settings.servers:
            if not server.is_pushed:
                self._pollers.add(_target(server))
        self.pushed = PushedTokens([(s.name, s.url) for s in settings.servers if s.is_pushed], on_new=self._pushed_is_new)
        """Where tokens go that processes report of themselves."""
        self._discovery = self._make_discovery() if settings.discovery.local and not source.simulated else None
        self._provisional = {server.name: url_port(server.url) for server in settings.servers if server.name_is_provisional}
        self._renamed: dict[str, str] = {}
        self._writing = threading.Lock()
        self._failed = False
        self._looking = threading.Thread(target=self._look_for_gpus, name="look-for-gpus", daemon=True)
        self._stopping = threading.Event()
        self._next_ns = 0
        self._notices: dict[str, str] = {}
        """What is wrong beside the books, by what it is about."""
        self._gpu_pids: frozenset[int] = frozenset()

    def start(self, *, wait_for_gpu: bool = False) -> None:
        """Begin to measure.

        Raises:
            SourceUnavailable: there is no GPU to read, and ``wait_for_gpu`` is not set.
        """
        try:
            self._meter.gpus_found(self._sampler.open())
            self._sampler.start()
        except SourceUnavailable as e:
            if not wait_for_gpu:
                raise
            self._notices["gpus"] = str(e)
            log.warning("%s; looking again every %.0f s", e, LOOK_FOR_GPUS_S)
            self._looking.start()
        self._pollers.start()
        if self._discovery is not None:
            self._discovery.start()

    def stop(self) -> None:
        """Stop all threads. A call that hangs in a driver is left behind."""
        self._stopping.set()
        if self._discovery is not None:
            self._discovery.stop()
        self._pollers.stop()
        self.pushed.close()
        self._sampler.stop()
        if self._looking.ident is not None:
            self._looking.join(timeout=1)

    def _look_for_gpus(self) -> None:
        """Until there is a GPU: snapshots go out all the same, without any, and say why."""
        look_s = 0.0
        while not self._stopping.wait(1.0):
            look_s += 1.0
            if look_s >= LOOK_FOR_GPUS_S:
                look_s = 0.0
                try:
                    gpus = self._sampler.open()
                except SourceUnavailable as e:
                    self._notices["gpus"] = str(e)
                else:
                    self._notices.pop("gpus", None)
                    log.info("Found %d GPUs.", len(gpus))
                    self._sampler.start()
                    return
            self._take(EnergyTick(()))

    def _take(self, message: EnergyTick | GpuStates) -> None:
        self._inbox.append(message)
        # Snapshots follow the ticks: where no energy is read any more, none is published, and what is served grows old and is refused.
        if isinstance(message, EnergyTick) and time.monotonic_ns() >= self._next_ns:
            self._write()

    def _write(self) -> None:
        with self._writing:
            now_ns = time.monotonic_ns()
            if self._failed or self._stopping.is_set():
                return
            try:
                self._inbox.extend(self.pushed.readings(now_ns))
                for message in self._old_enough(now_ns - min(HOLD_BACK_NS, self._settings.sampling.tokens_ns // 2)):
                    self._handle(message)
                self._publish(now_ns)
            except Exception as e:
                # Books that may be wrong are worse than none: stop, and let the supervisor start anew.
                self._failed = True
                log.exception("The meter stopped: an error that should not be possible. Please report it.")
                self._on_failure(e)

    def _old_enough(self, until_ns: int) -> list[Message]:
        """Take the messages up to an instant out of the inbox, in the order of their instants."""
        messages = [self._inbox.popleft() for _ in range(len(self._inbox))]  # others may append meanwhile
        messages.sort(key=_instant_ns)
        taken = bisect_right(messages, until_ns, key=_instant_ns)
        self._inbox.extendleft(reversed(messages[taken:]))
        return messages[:taken]

    def _handle(self, message: Message) -> None:
        meter = self._meter
        if isinstance(message, EnergyTick):
            meter.energy_tick(message)
        elif isinstance(message, ServerReading):
            if message.server in self._provisional:
                self._name(message.server, message.engine)
            meter.server_reading(self._by_its_name(message))
        elif isinstance(message, ServerFailure):
            meter.server_failure(self._by_its_name(message))
        else:
            meter.gpu_states(message)
            self._gpu_pids = frozenset(process.pid for state in message.states for process in state.processes or ())

    # --- servers that come while we measure ---

    def _make_discovery(self) -> Discovery:
        return Discovery(
            configured=[_target(server) for server in self._settings.servers],
            taken=lambda: self.pushed.names().union(self._renamed.values()),
            reported=self.pushed.urls,
            found=self._server_found,
            gone=self._server_gone,
            notice=self._server_notice,
            gpu_pids=lambda: self._gpu_pids,
        )

    def _server_found(self, target: ServerTarget) -> None:
        with self._writing:
            self._meter.add(ServerSpec(target.name, target.url, target.engine, configured=False))
        self._pollers.add(target)

    def _server_gone(self, name: str) -> None:
        self._pollers.remove(name)
        self._inbox.append(ServerFailure(name, time.monotonic_ns(), "it does not listen any more", gone=True))

    def _server_notice(self, key: str, text: str | None) -> None:
        if text is None:
            self._notices.pop(key, None)
        else:
            log.warning("%s", text)
            self._notices[key] = text

    def _pushed_is_new(self, name: str, url: str) -> None:
        # Called by ``readings``, so by the writer.
        self._meter.add(ServerSpec(name, url, "generic", configured=False))

    def _name(self, provisional: str, engine: str) -> None:
        """Give a server that the settings leave without a name the one of its engine, which is known now. Its books are empty yet."""
        base = f"{engine}-{self._provisional.pop(provisional)}"
        if provisional.startswith(base):
            return
        name = next(n for i in count(1) if (n := base if i == 1 else f"{base}-{i}") not in self._meter.servers)
        self._meter.rename(provisional, name)
        self._renamed[provisional] = name

    def _by_its_name(self, message: Told) -> Told:
        name = self._renamed.get(message.server)
        return replace(message, server=name) if name is not None else message

    def _publish(self, now_ns: int) -> None:
        period_ns = self._settings.sampling.tokens_ns
        self._next_ns = max(self._next_ns + period_ns, now_ns + period_ns // 2)
        self._meter.each_second(now_ns)
        closed = self._meter.take_closed()
        if self._debug:
            log.debug("Closed %d intervals: %s", len(closed), closed)
            self._meter.check_conservation()
        self._on_snapshot(self._snapshots.take(Clock(now_ns, time.time()), notices=tuple(self._notices.values())))


def _instant_ns(message: Message) -> int:
    """When what it tells was so. The boards' states are of no one instant: they count as of the first."""
    if isinstance(message, EnergyTick):
        return max((reading.t_ns for reading in message.readings), default=0)
    if isinstance(message, GpuStates):
        return min((state.t_ns for state in message.states), default=0)
    return message.t_ns


def _spec(server: ServerSettings) -> ServerSpec:
    return ServerSpec(server.name, server.url, server.reads_as, server.gpus, server.group, server.tokens != "none")


def _target(server: ServerSettings) -> ServerTarget:
    named = server.counters
    return ServerTarget(
        name=server.name,
        url=server.url,
        engine=server.reads_as,
        metrics_path=server.metrics_path,
        api_key_file=server.api_key_file,
        ca_file=server.tls.ca_file,
        insecure_skip_verify=server.tls.insecure_skip_verify,
        counters=(named.prompt, named.prompt_cached, named.generation) if server.reads_as == "generic" else None,
        tokens=server.tokens != "none",
    )
