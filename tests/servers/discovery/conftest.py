from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import pytest

from tokenwatt.servers.discovery import Discovery
from tokenwatt.servers.target import ServerTarget

SERVER = """
import sys
from tests.servers.engine_servers import be_engine
from tests.servers.fake_server import FakeServer, answer, be_vllm
address, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with FakeServer(address) as server:
    if port:
        server.refuse()
        server.port = port
    if kind == "vllm":
        be_vllm(server)
    if kind == "llamacpp":
        be_engine(server, "llamacpp-2026-11")
    if kind == "ollama":
        models = b'{"object":"list","data":[{"id":"tiny","object":"model","owned_by":"library"}]}'
        server.serve("/v1/models", answer(models, content_type="application/json"))
    if port:
        server.listen()
    print(server.port, flush=True)
    for line in sys.stdin:
        if line == "asked\\n":
            print(server.connections, *(r.path for r in server.requests), flush=True)
        elif line == "vllm\\n":
            be_vllm(server)
            print("yes", flush=True)
        elif line == "close\\n":
            server.refuse()
            print("yes", flush=True)
"""

ROOT = Path(__file__).parents[3]


class Program:
    """A server in a process of its own, that does what its standard input says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        line = self._line()
        assert line, "the server did not start"
        self.port = int(line)

    def tell(self, what: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._line()

    def asked(self) -> list[str]:
        """The paths that were asked."""
        return self.tell("asked").split()[1:]

    def connections(self) -> int:
        return int(self.tell("asked").split()[0])

    def end(self) -> None:
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def free_port() -> int:
    """One that the kernel does not choose by itself: there, any Python program is asked."""
    while True:
        port = random.randint(20000, 29000)
        with suppress(OSError), socket.create_server(("0.0.0.0", port)):
            return port


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Runs servers. ``name``: of the executable. ``before``: a command that runs the rest of its line."""
    running: list[Program] = []

    def run(
        kind: str = "vllm",
        *,
        address: str = "127.0.0.1",
        port: int | None = None,
        name: str | None = None,
        words: Sequence[str] = (),
        before: Sequence[str] = (),
        script: str = SERVER,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Program:
        executable = sys.executable
        if name is not None:
            link = tmp_path / name
            if not link.exists():
                link.symlink_to(os.path.realpath(sys.executable))
            executable = str(link)
        process = subprocess.Popen(
            [*before, executable, "-c", script, address, str(free_port() if port is None else port), kind, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        try:
            running.append(Program(process))
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return running[-1]

    yield run
    for program in running:
        program.end()


class Heard:
    """What a discovery tells. Other programs on this host may be found as well: nothing is said of them here."""

    def __init__(self) -> None:
        self.present: dict[str, ServerTarget] = {}
        self.events: list[tuple[str, str]] = []
        self.notices: dict[str, str] = {}
        self.gpu_pids: set[int] = set()
        self.reported: set[str] = set()
        self._changed = threading.Condition()

    def found(self, target: ServerTarget) -> None:
        with self._changed:
            self.present[target.name] = target
            self.events.append(("found", target.name))
            self._changed.notify_all()

    def gone(self, name: str) -> None:
        with self._changed:
            del self.present[name]
            self.events.append(("gone", name))
            self._changed.notify_all()

    def notice(self, key: str, text: str | None) -> None:
        with self._changed:
            assert self.notices.get(key) != text, "told twice"
            self.notices.pop(key, None)
            if text is not None:
                self.notices[key] = text
            self._changed.notify_all()

    def at(self, port: int) -> list[ServerTarget]:
        return [t for t in self.present.values() if t.url.endswith(f":{port}")]

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 5) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), (self.events, self.notices)

    def find(self, port: int) -> ServerTarget:
        """The one server on this port, within the time that the contract gives."""
        self.wait_for(lambda: self.at(port))
        (target,) = self.at(port)
        return target


@pytest.fixture
def heard() -> Heard:
    return Heard()


Discover = Callable[..., Discovery]


@pytest.fixture
def discover(heard: Heard) -> Iterator[Discover]:
    made: list[Discovery] = []

    def run(*configured: ServerTarget) -> Discovery:
        discovery = Discovery(
            configured=configured,
            found=heard.found,
            gone=heard.gone,
            notice=heard.notice,
            gpu_pids=lambda: frozenset(heard.gpu_pids),
            reported=lambda: frozenset(heard.reported),
        )
        made.append(discovery)
        discovery.start()
        return discovery

    yield run
    for each in made:
        each.stop()


@pytest.fixture
def in_namespace() -> Sequence[str]:
    """A command that runs another in a network namespace of its own, with a loopback."""
    if shutil.which("ip") is None:
        pytest.skip("there is no ip, of iproute2, to set up a network namespace")
    command = ("unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    if subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        pytest.skip("network namespaces are not permitted here")
    return command
