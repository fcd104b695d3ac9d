"""A real `tokenwatt` process, and what it answers over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client.parser import text_string_to_metric_families

DEADLINE_S = 30.0
T = TypeVar("T")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def wait_for(what: Callable[[], T | None], deadline_s: float = DEADLINE_S, why: Callable[[], str] = lambda: "") -> T:
    """Ask until the answer is true. Raises AssertionError at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, f"not within {deadline_s} s. {why()}"
        time.sleep(0.05)


class Daemon:
    """``tokenwatt COMMAND`` with the HTTP server on a port of its own choice. Stop it with ``stop``."""

    def __init__(self, directory: Path, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.log_path = directory / f"{command[0]}.log"
        self._log = self.log_path.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tokenwatt", *command, "--listen", "127.0.0.1:0"],
            env={**(os.environ if environment is None else environment), "PYTHONUNBUFFERED": "1"},
            stdout=self._log,
            stderr=self._log,
        )
        self.port = 0

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def listening(self) -> Daemon:
        """Wait until it says where it listens."""

        def port() -> int | None:
            assert self.process.poll() is None, self.log
            found = re.search(r"http://127\.0\.0\.1:(\d+)", self.log)
            return int(found[1]) if found else None

        self.port = wait_for(port, why=lambda: self.log)
        return self

    def ready(self) -> Daemon:
        """Wait until energy was sampled and every server asked."""
        self.listening()
        wait_for(lambda: self.get("/-/ready")[0] == 200, why=lambda: self.log)
        return self

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        status, body = self.get(path)
        assert status == 200, (status, body)
        return json.loads(body)

    def samples(self) -> Samples:
        """/metrics, by name and labels."""
        status, body = self.get("/metrics")
        assert status == 200, (status, body)
        families = text_string_to_metric_families(body.decode())
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples that have these labels; None without any."""
        found = [v for (n, have), v in self.samples().items() if n == f"tokenwatt_{name}" and labels.items() <= dict(have).items()]
        return sum(found) if found else None

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """End it, and tell its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._log.close()


def tokenwatt(*words: str, environment: Mapping[str, str] | None = None, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tokenwatt", *words], env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
