"""A real Prometheus server (Debian's package ``prometheus``) that scrapes one target once a second."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

CONFIG = """
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: tokenwatt
    static_configs:
      - targets: ["{target}"]
"""

Samples = dict[tuple[tuple[str, str], ...], float]


class Prometheus:
    """A running server. Labels of results are without those of the scrape (job, instance)."""

    def __init__(self, target: str, directory: Path, executable: str) -> None:
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._log = directory / "log"
        (directory / "prometheus.yml").write_text(CONFIG.format(target=target))
        flags = {
            "config.file": directory / "prometheus.yml",
            "storage.tsdb.path": directory / "data",
            "web.listen-address": f"127.0.0.1:{port}",
        }
        with self._log.open("wb") as log:
            command = [executable, *(f"--{flag}={value}" for flag, value in flags.items())]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def query(self, expr: str, time_s: float | None = None) -> Samples:
        """The instant vector of a PromQL expression, now or at a wall time: values by sorted labels, the name among them."""
        parameters = {"query": expr} if time_s is None else {"query": expr, "time": f"{time_s:.3f}"}
        data = self.get("query?" + urlencode(parameters))
        assert data["resultType"] == "vector", data
        return {_labels(result["metric"]): float(result["value"][1]) for result in data["result"]}

    def value(self, expr: str, time_s: float | None = None) -> float:
        """The one value of an expression whose result is one sample."""
        (value,) = self.query(expr, time_s).values()
        return value

    def get(self, path: str) -> Any:
        """The data of an answer of the HTTP API: ``targets``, ``metadata``, ..."""
        with urlopen(f"{self._url}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def wait_for(self, expr: str, timeout_s: float = 30) -> Samples:
        """The result of an expression as soon as it is not empty."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self._log.read_text()
            try:
                if result := self.query(expr):
                    return result
            except HTTPError as e:
                e.close()
                if e.code != 503:  # it still reads its store
                    raise
            except URLError:
                pass  # it does not listen yet
            time.sleep(0.1)
        raise AssertionError(f"no result of {expr} after {timeout_s} s:\n{self._log.read_text()}")

    def stop(self) -> None:
        """End it, and wait for its end."""
        self._process.terminate()
        self._process.wait(30)


def _labels(metric: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, v) for k, v in metric.items() if k not in ("job", "instance")))


def _free_port() -> int:
    # Prometheus does not tell which port it got for 0, so one is chosen here. Somebody else may take it before it does: then it ends, and
    # wait_for shows its log.
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture
def start_prometheus(tmp_path: Path) -> Iterator[Callable[[str], Prometheus]]:
    """Starts a Prometheus that scrapes ``http://TARGET/metrics``; TARGET is HOST:PORT.

    It answers queries when this returns, scrapes from about 5 s later on (its discovery waits that long), and ends with the test.
    """
    executable = shutil.which("prometheus")
    if executable is None:
        assert not os.environ.get("CI"), "prometheus is missing (Debian's package prometheus)"
        pytest.skip("prometheus is missing (Debian's package prometheus)")
    with ExitStack() as stack:

        def start(target: str) -> Prometheus:
            server = Prometheus(target, tmp_path, executable)
            stack.callback(server.stop)
            server.wait_for("vector(1)")
            return server

        yield start


@pytest.fixture
def promtool() -> str:
    """The program that checks pages and queries; it comes with Prometheus."""
    program = shutil.which("promtool")
    if program is None:
        assert not os.environ.get("CI"), "promtool is missing (Debian's package prometheus)"
        pytest.skip("promtool is missing (Debian's package prometheus)")
    return program
