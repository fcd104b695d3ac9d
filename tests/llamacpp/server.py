"""A real llama-server on the CPU, serving a tiny random model, and clients that keep what its answers tell of tokens."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tokenwatt.types import Kind

READY_S: Final = 60

Tokens = Counter[Kind]


class LlamaServer:
    """One llama-server on one port, one thread, two slots. Starts at once; ``stop`` ends it."""

    def __init__(self, executable: Path, log: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        command = [str(executable), "--host", "127.0.0.1", "--port", str(self.port), "--offline"]
        command += ["--threads", "1", "--parallel", "2", *options]
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> LlamaServer:
        """Wait until it answers (half a second)."""
        deadline = time.monotonic() + READY_S
        while not self._answers():
            assert self._process.poll() is None, f"llama-server ended: {self._end_of_log()}"
            assert time.monotonic() < deadline, f"llama-server is not ready after {READY_S} s: {self._end_of_log()}"
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def asleep(self) -> bool:
        """By its own word. To ask does not wake it."""
        return bool(self.get("/props")[1]["is_sleeping"])

    def answer(self, prompt: str, *, max_tokens: int, **more: Any) -> dict[str, Any]:
        """One answer, whole, as it came."""
        with self.post({"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, **more}) as response:
            answer: dict[str, Any] = json.loads(response.read())
            return answer

    def complete(self, prompt: str, *, max_tokens: int, **more: Any) -> Tokens:
        """One answer, whole: its tokens."""
        return tokens(self.answer(prompt, max_tokens=max_tokens, **more)["timings"])

    def stream(self, prompt: str, *, max_tokens: int, leave_after: int | None = None) -> Tokens:
        """One answer, piece by piece; left after as many tokens, as a user does who has seen enough."""
        last: Tokens = Counter()
        with self.post({"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "stream": True}) as response:
            for timings in timings_of(response):
                last = tokens(timings)
                if leave_after is not None and last["generation"] >= leave_after:
                    break
        return last

    @contextmanager
    def post(self, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
        """A completion, with the timings so far in every piece of a stream."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            text = json.dumps({"timings_per_token": True, **body})
            connection.request("POST", "/v1/completions", text, {"Content-Type": "application/json"})
            response = connection.getresponse()
            assert response.status == 200, response.read()
            with response:
                yield response
        finally:
            connection.close()

    def _answers(self) -> bool:
        try:
            return self.get("/health")[0] == 200
        except OSError:
            return False

    def _end_of_log(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


def timings_of(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """What the pieces of a stream tell, one after another."""
    for line in response:
        if line.startswith(b"data: {") and (timings := json.loads(line[6:]).get("timings")):
            yield timings


def tokens(timings: dict[str, Any]) -> Tokens:
    """The tokens of one answer, by kind."""
    counted: dict[Kind, int] = {
        "prompt_computed": timings["prompt_n"],
        "prompt_cached": timings["cache_n"],
        "generation": timings["predicted_n"],
    }
    return Counter(counted)
