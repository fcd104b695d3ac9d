"""A real vLLM on the CPU, serving a tiny random model, and clients that keep what its ``usage`` fields tell."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tokenwatt.types import Kind

READY_S: Final = 300
SERVE: Final = Path(__file__).parent / "serve.py"

Tokens = Counter[Kind]


class RealVllm:
    """One vLLM on one port: started, stopped and started again. ``options`` are more of ``vllm serve``'s."""

    def __init__(self, python: Path, model: Path, log: Path, *options: str) -> None:
        # Bound and never listening, it keeps the port free for vLLM, which takes it a minute or two later, and again after a restart.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._command = [str(python), str(SERVE), "serve", str(model), "--served-model-name", "tiny"]
        self._command += ["--max-model-len", "1024", "--enforce-eager", "--host", "127.0.0.1", "--port", str(self.port)]
        self._command += ["--enable-prompt-tokens-details", *options]  # so that usage tells cached tokens too
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it answers (after 60 to 100 s)."""
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=environment, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + READY_S
        while not self._answers():
            assert self._process.poll() is None, f"vLLM ended: {self._end_of_log()}"
            assert time.monotonic() < deadline, f"vLLM is not ready after {READY_S} s: {self._end_of_log()}"
            time.sleep(0.5)

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        self._reserved.close()

    def stop(self) -> None:
        """End it and all that it started."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            finally:
                if _alive(self._process.pid):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
                self._process = None

    def complete(self, prompt: str, *, max_tokens: int, **more: Any) -> Tokens:
        """One answer, whole."""
        with self._post({"prompt": prompt, "max_tokens": max_tokens, **more}) as response:
            return _tokens(json.loads(response.read())["usage"])

    def stream(self, prompt: str, *, max_tokens: int, leave_after: int | None = None) -> Tokens:
        """One answer, piece by piece; left after as many tokens, as a user does who has seen enough."""
        options = {"include_usage": True, "continuous_usage_stats": True}
        last: Tokens = Counter()
        body = {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "stream": True, "stream_options": options}
        with self._post(body) as response:
            for usage in _usages(response):
                last = _tokens(usage)
                if leave_after is not None and last["generation"] >= leave_after:
                    break
        return last

    @contextmanager
    def _post(self, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("POST", "/v1/completions", json.dumps({"model": "tiny", **body}), {"Content-Type": "application/json"})
            response = connection.getresponse()
            assert response.status == 200, response.read()
            with response:
                yield response
        finally:
            connection.close()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _end_of_log(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


def _usages(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in response:
        if line.startswith(b"data: {") and (usage := json.loads(line[6:]).get("usage")):
            yield usage


def _tokens(usage: dict[str, Any]) -> Tokens:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    counted: dict[Kind, int] = {
        "prompt_computed": usage["prompt_tokens"] - cached,
        "prompt_cached": cached,
        "generation": usage["completion_tokens"],
    }
    return Counter(counted)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
