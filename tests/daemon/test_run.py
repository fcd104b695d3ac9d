"""`tokenwatt run` as a user has it: a process, NVML, HTTP on both sides. --debug asserts conservation at each snapshot."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.daemon.conftest import StartDaemon
from tests.daemon.process import Daemon, tokenwatt, wait_for
from tests.nvml.board import Node
from tokenwatt.demo.server import HttpServers

FAST = "sampling: {tokens: 200ms}\nwindows: [2s, 1m]\nmetrics: {windows: [2s]}\n"


def settings_for(vllm: HttpServers, *more: str) -> str:
    entries = [f"{{name: chat, url: '{vllm.url('chat')}', gpus: [0]}}", f"{{name: code, url: '{vllm.url('code')}', gpus: [1]}}", *more]
    return FAST + "discovery: {local: false}\nservers:\n" + "".join(f"  - {entry}\n" for entry in entries)


def problems(daemon: Daemon) -> str:
    return " ".join(daemon.json("/api/v1/status")["problems"])


def test_joules_tokens_and_their_ratio(start: StartDaemon, node: Node, vllm: HttpServers) -> None:
    daemon = start(settings_for(vllm)).ready()
    wait_for(lambda: daemon.value("tokens_per_joule", server="chat", tokens="generation"))
    answer = daemon.json("/api/v1/efficiency?window=2s")
    assert [item["server"] for item in answer["items"]] == ["chat", "code"]
    for item, watts in zip(answer["items"], (300, 500), strict=True):
        assert item["power_w"] == pytest.approx(watts, rel=0.01)
        assert item["tokens_per_joule"]["generation"] * item["joules_per_token"]["generation"] == pytest.approx(1)
        assert item["tokens_per_second"]["generation"] == pytest.approx(item["tokens_per_joule"]["generation"] * watts, rel=0.02)
    assert daemon.value("server_gpu_info", server="chat", gpu="0", method="settings") == 1
    assert daemon.value("simulated") == 0
    energy = daemon.json("/api/v1/gpus")["items"]
    assert [gpu["power_w"] for gpu in energy] == [300, 500]
    totals = daemon.json("/api/v1/status")["totals"]
    parts = totals["energy_j"] + totals["unattributed_energy_j"] + totals["pending_energy_j"]
    assert totals["gpu_energy_j"] == pytest.approx(parts, abs=1e-9)


def test_published_pairs_are_from_one_instant(start: StartDaemon, vllm: HttpServers) -> None:
    """Power is constant, so a server's joules tell the instant its tokens are from."""
    daemon = start(settings_for(vllm)).ready()
    first = wait_for(lambda: _pair(daemon) if _pair(daemon)[1] else None)
    wait_for(lambda: _pair(daemon)[0] > first[0] + 600)
    last = _pair(daemon)
    rate = daemon.json("/api/v1/efficiency?window=2s")["items"][0]["tokens_per_joule"]["generation"]
    assert (last[1] - first[1]) / (last[0] - first[0]) == pytest.approx(rate, rel=0.2)


def _pair(daemon: Daemon) -> tuple[float, float]:
    samples = daemon.samples()
    energy = sum(v for (n, have), v in samples.items() if n == "tokenwatt_energy_joules_total" and ("server", "chat") in have)
    generated = {("server", "chat"), ("kind", "generation")}
    tokens = sum(v for (n, have), v in samples.items() if n == "tokenwatt_tokens_total" and generated <= have)
    return energy, tokens


def test_a_lost_gpu_drops_out_alone_and_comes_back_by_itself(start: StartDaemon, node: Node, vllm: HttpServers) -> None:
    daemon = start(settings_for(vllm)).ready()
    node.boards[0].entry.lost = 1
    wait_for(lambda: daemon.value("gpu_up", gpu="0") == 0)
    assert daemon.value("gpu_up", gpu="1") == 1
    assert node.boards[0].uuid in problems(daemon)
    assert daemon.value("gpu_power_watts", gpu="0") is None
    before = daemon.value("gpu_energy_joules_total", gpu="0")
    wait_for(lambda: daemon.value("tokens_per_joule", server="code", tokens="generation"))
    node.boards[0].entry.lost = 0
    wait_for(lambda: daemon.value("gpu_up", gpu="0") == 1)
    wait_for(lambda: (daemon.value("energy_joules_total", server="chat", state="unobserved") or 0) > 0)
    after = daemon.value("gpu_energy_joules_total", gpu="0")
    assert before is not None
    assert after is not None
    assert after > before


def test_a_reloaded_driver_is_followed(start: StartDaemon, node: Node, vllm: HttpServers) -> None:
    daemon = start(settings_for(vllm)).ready()
    before = daemon.value("gpu_energy_joules_total") or 0
    node.unload_driver()
    wait_for(lambda: daemon.value("gpu_up") == 0)
    node.load_driver()
    wait_for(lambda: daemon.value("gpu_up") == 2)
    wait_for(lambda: (daemon.value("gpu_energy_joules_total") or 0) > before)
    assert daemon.value("gpu_energy_resets_total") == 2


def test_a_stuck_driver_call_does_not_stop_the_others(start: StartDaemon, node: Node, vllm: HttpServers) -> None:
    daemon = start(settings_for(vllm)).ready()
    node.boards[0].stick("nvmlDeviceGetFieldValues")
    wait_for(lambda: "has not answered" in problems(daemon))
    before = daemon.value("energy_joules_total", server="code") or 0
    wait_for(lambda: (daemon.value("energy_joules_total", server="code") or 0) > before + 500)
    assert daemon.get("/-/healthy")[0] == 200
    node.unstick()
    wait_for(lambda: daemon.value("gpu_up", gpu="0") == 1)


def test_a_server_that_hangs_or_fails_or_goes_is_reported_and_the_rest_goes_on(start: StartDaemon, vllm: HttpServers) -> None:
    daemon = start(settings_for(vllm)).ready()
    for fault, said in (("error", "500"), ("garbage", "chat"), ("refuse", "refuses")):
        vllm.set_fault("chat", fault)  # type: ignore[arg-type]
        wait_for(lambda: daemon.value("server_up", server="chat") == 0)
        wait_for(lambda said=said: said in problems(daemon), why=lambda: problems(daemon))  # type: ignore[misc]
        assert daemon.value("server_up", server="code") == 1
        vllm.set_fault("chat", None)
        wait_for(lambda: daemon.value("server_up", server="chat") == 1)


def test_a_server_that_is_gone_gives_its_gpu_up(start: StartDaemon, vllm: HttpServers) -> None:
    daemon = start(settings_for(vllm)).ready()
    wait_for(lambda: daemon.value("energy_joules_total", server="chat"))
    vllm.set_fault("chat", "refuse")
    wait_for(lambda: (daemon.value("unattributed_energy_joules_total", gpu="0") or 0) > 300)
    assert daemon.value("pending_energy_joules", server="chat") == 0
    assert daemon.value("server_gpu_info", server="chat") is None


def test_a_restart_is_counted_and_loses_nothing_published(start: StartDaemon, vllm: HttpServers) -> None:
    daemon = start(settings_for(vllm)).ready()
    before = wait_for(lambda: daemon.value("tokens_total", server="chat", kind="generation"))
    vllm.restart("chat")
    wait_for(lambda: daemon.value("server_resets_total", server="chat") == 1)
    wait_for(lambda: (daemon.value("tokens_total", server="chat", kind="generation") or 0) > before)


class _Answers(BaseHTTPRequestHandler):
    """What servers answer that are none. The path of the settings' URL says what."""

    def do_GET(self) -> None:
        body = {
            "html": b"<!doctype html><html><body>Welcome</body></html>",
            "nan": b'# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{model_name="m"} NaN\n'
            b'# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total{model_name="m"} 1\n',
            "nothing": b"",
            "huge": b"# a line\n" * 2_000_000,
        }[self.path.split("/")[1]]
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if b"html" in body else "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def nonsense():  # type: ignore[no-untyped-def]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_bad_answers_are_down_with_the_reason(start: StartDaemon, vllm: HttpServers, nonsense: str) -> None:
    names = ("html", "nan", "nothing", "huge")
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, and never answers
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        entries = [f"{{name: {name}, url: '{nonsense}/{name}', gpus: []}}".replace(", gpus: []", "") for name in names]
        daemon = start(settings_for(vllm, *entries, f"{{name: deaf, url: '{url}'}}")).ready()
        for name in (*names, "deaf"):
            assert daemon.value("server_up", server=name) == 0
        items = {item["name"]: item["reason"] for item in daemon.json("/api/v1/servers")["items"]}
        assert all(items[name] for name in (*names, "deaf"))
        assert "NaN" in items["nan"] or "nan" in items["nan"]
        assert (daemon.value("server_rejected_readings_total", server="nan") or 0) > 0
        assert daemon.value("server_up", server="chat") == 1
        wait_for(lambda: daemon.value("tokens_per_joule", server="chat", tokens="generation"))


def test_health_is_told_by_the_exit_status(start: StartDaemon, vllm: HttpServers) -> None:
    daemon = start(settings_for(vllm)).ready()
    assert tokenwatt("health", "--listen", f"127.0.0.1:{daemon.port}").returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = tokenwatt("health", "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_one_sentence(start: StartDaemon, vllm: HttpServers, node: Node, library: Path) -> None:
    daemon = start(settings_for(vllm)).listening()
    done = tokenwatt("run", "--listen", f"127.0.0.1:{daemon.port}", environment=node.environment(library))
    assert done.returncode == 1
    assert "another program listens there already" in done.stderr


def test_no_gpu_is_one_sentence_that_names_the_demo(node: Node, library: Path) -> None:
    node.control.gpu_count = 0
    done = tokenwatt("run", "--listen", "127.0.0.1:0", environment=node.environment(library))
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("tokenwatt: ")]
    assert len(said) == 1
    assert "tokenwatt demo" in said[0]


def test_waiting_for_a_gpu(start: StartDaemon, node: Node, vllm: HttpServers) -> None:
    node.control.gpu_count = 0
    daemon = start(settings_for(vllm), "--wait-for-gpu").listening()
    wait_for(lambda: daemon.get("/-/healthy")[0] == 200)
    assert daemon.get("/-/ready")[0] == 503
    node.control.gpu_count = 2
    wait_for(lambda: daemon.get("/-/ready")[0] == 200)
    wait_for(lambda: daemon.value("gpu_up") == 2)


@pytest.mark.parametrize("form", [[], ["--json"], ["--prom"]])
def test_one_reading_without_a_daemon(form: list[str], node: Node, library: Path, vllm: HttpServers, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(settings_for(vllm))
    done = tokenwatt("snapshot", "--config", str(file), *form, environment=node.environment(library))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if form == ["--json"]:
        answer = json.loads(done.stdout)
        assert [gpu["power_w"] for gpu in answer["gpus"]["items"]] == [300, 500]
        assert all(server["up"] for server in answer["servers"]["items"])
    elif form == ["--prom"]:
        assert 'tokenwatt_server_up{server="chat"} 1.0' in done.stdout
    else:
        assert "chat" in done.stdout
        assert "300" in done.stdout


def test_it_leaves_promptly_with_a_stream_open(start: StartDaemon, vllm: HttpServers) -> None:
    daemon = start(settings_for(vllm)).ready()
    with socket.create_connection(("127.0.0.1", daemon.port)) as client:
        client.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        client.settimeout(10)
        assert b"200 OK" in client.recv(4096)
        begin = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - begin < 3
