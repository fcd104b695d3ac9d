"""The daemon and all the ways in which tokens come to it: found by itself, named by engine, pushed, through the proxy, from other nodes."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.daemon.conftest import StartDaemon
from tests.daemon.process import Daemon, wait_for
from tests.daemon.test_run import FAST, problems
from tests.nvml.board import Node
from tests.servers.engine_servers import answer_json, be_engine
from tests.servers.fake_server import FakeServer, answer

ALONE = FAST + "discovery: {local: false}\n"

FOUND = """
import sys
from tests.servers.fake_server import FakeServer, be_vllm
with FakeServer() as server:
    be_vllm(server)
    print(server.port, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def fake() -> Iterator[Callable[[], FakeServer]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(FakeServer())


def be_page(server: FakeServer, *lines: str) -> None:
    server.serve("/metrics", answer("".join(f"{line}\n" for line in lines).encode()))


def post(daemon: Daemon, body: object, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
    try:
        connection.request("POST", "/api/v1/tokens", json.dumps(body), {"Content-Type": "application/json", **headers})
        said = connection.getresponse()
        return said.status, json.loads(said.read())
    finally:
        connection.close()


def tokens(daemon: Daemon, server: str, kind: str) -> int:
    return int(daemon.value("tokens_total", server=server, kind=kind) or 0)


def item(daemon: Daemon, name: str) -> Any:
    return next((each for each in daemon.json("/api/v1/servers")["items"] if each["name"] == name), None)


def test_a_server_that_nobody_named_is_found_with_its_gpus_within_five_seconds(start: StartDaemon, node: Node) -> None:
    daemon = start(FAST).ready()
    assert daemon.value("server_up", server="vllm-1") is None
    process = subprocess.Popen([sys.executable, "-c", FOUND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        began = time.monotonic()
        node.boards[1].set_processes((process.pid, 1 << 30))
        name = f"vllm-{port}"
        wait_for(lambda: daemon.value("server_up", server=name) == 1, why=lambda: daemon.log)
        assert time.monotonic() - began < 5
        wait_for(lambda: daemon.value("server_gpu_info", server=name, gpu="1", method="ancestry"))
        wait_for(lambda: (daemon.value("energy_joules_total", server=name) or 0) > 0)
    finally:
        process.communicate()
    wait_for(lambda: daemon.value("server_up", server=name) == 0, why=lambda: daemon.log)
    used = daemon.value("energy_joules_total", server=name)
    time.sleep(0.5)  # its joules stay, and no more are its
    assert daemon.value("energy_joules_total", server=name) == used
    assert item(daemon, name)["up"] is False
    assert name not in problems(daemon)


def test_a_server_without_a_name_has_its_engines(start: StartDaemon, fake: Callable[[], FakeServer]) -> None:
    server = fake()
    be_engine(server, "sglang-0.5.23")
    daemon = start(ALONE + f"servers: [{{url: '{server.url}', gpus: [0]}}]\n").ready()
    name = f"sglang-{server.port}"
    wait_for(lambda: daemon.value("server_up", server=name) == 1, why=lambda: daemon.log)
    assert daemon.value("server_info", server=name, engine="sglang", update="step", cached="known", scope="whole") == 1
    assert [each["name"] for each in daemon.json("/api/v1/servers")["items"]] == [name]


OUTSIDE = """
import sys
from tests.servers.engine_servers import be_engine
from tests.servers.fake_server import FakeServer
with FakeServer(sys.argv[1]) as server:
    server.refuse()
    server.port = int(sys.argv[2])
    be_engine(server, "sglang-0.5.23")
    server.listen()
    print(server.port, flush=True)
    sys.stdin.read()
"""


def test_the_name_of_its_engine_is_given_to_nobody_else(start: StartDaemon, fake: Callable[[], FakeServer]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses an address of ours
            address = probe.getsockname()[0]
        except OSError:
            pytest.skip("this machine has no address but loopback")
    server = fake()
    be_engine(server, "sglang-0.5.23")
    daemon = start(FAST + f"servers: [{{url: '{server.url}', gpus: [0]}}]\n").ready()
    name = f"sglang-{server.port}"
    wait_for(lambda: daemon.value("server_up", server=name) == 1, why=lambda: daemon.log)
    command = [sys.executable, "-c", OUTSIDE, address, str(server.port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: daemon.value("server_up", server=f"{name}-2") == 1, why=lambda: daemon.log)
        assert (item(daemon, name)["url"], item(daemon, f"{name}-2")["url"]) == (server.url, f"http://{address}:{server.port}")
    finally:
        process.communicate()


def test_generic_counters_by_their_names(start: StartDaemon, fake: Callable[[], FakeServer]) -> None:
    server = fake()
    be_page(server, 'my_out_total{model="m"} 100', "my_in_total 50")
    daemon = start(
        ALONE + f"servers: [{{name: own, url: '{server.url}', gpus: [0], counters: {{prompt: my_in_total, generation: my_out_total}}}}]\n"
    ).ready()
    wait_for(lambda: daemon.value("server_up", server="own") == 1, why=lambda: daemon.log)
    be_page(server, 'my_out_total{model="m"} 130', "my_in_total 70")
    wait_for(lambda: (tokens(daemon, "own", "generation"), tokens(daemon, "own", "prompt_computed")) == (30, 20))
    assert daemon.value("server_info", server="own", engine="generic", cached="unknown") == 1


def test_a_server_without_counters_is_told_why(start: StartDaemon, fake: Callable[[], FakeServer]) -> None:
    server = fake()
    answer_json(server, "/v1/models", {"object": "list", "data": [{"id": "tiny", "owned_by": "library"}]})
    daemon = start(ALONE + f"servers: [{{name: llama, url: '{server.url}', gpus: [0]}}]\n").ready()
    assert daemon.value("server_up", server="llama") == 0
    assert "Ollama cannot be metered, because" in problems(daemon)
    assert "tokenwatt proxy" in problems(daemon)


def test_pushed_tokens_count_once(start: StartDaemon, fake: Callable[[], FakeServer]) -> None:
    metered = fake()
    be_engine(metered, "vllm-0.32.0")
    daemon = start(ALONE + f"servers: [{{name: chat, url: '{metered.url}', gpus: [0]}}]\n").ready()
    report = {"server": "batch", "model": "m", "kind": "generation", "count": 500, "idempotency_key": "a"}
    assert post(daemon, report) == (200, {"accepted": 1, "duplicates": 0})
    assert post(daemon, report) == (200, {"accepted": 0, "duplicates": 1})
    wait_for(lambda: tokens(daemon, "batch", "generation") == 500, why=lambda: daemon.log)
    prompt = {**report, "count": 7, "kind": "prompt_computed", "idempotency_key": "c"}
    assert post(daemon, [{**report, "idempotency_key": "b"}, prompt])[0] == 200
    wait_for(lambda: (tokens(daemon, "batch", "generation"), tokens(daemon, "batch", "prompt_computed")) == (1000, 7))
    assert daemon.value("server_info", server="batch", engine="generic", update="completion", cached="unknown") == 1
    status, said = post(daemon, {**report, "server": "chat"})
    assert (status, "twice" in said["detail"]) == (409, True)
    assert daemon.value("server_up", server="batch") == 1


def test_the_proxy_meters_what_has_no_counters(start: StartDaemon, node: Node, fake: Callable[[], FakeServer]) -> None:
    ollama = fake()
    usage = {"prompt_tokens": 20, "completion_tokens": 300, "prompt_tokens_details": {"cached_tokens": 5}}
    ollama.serve("/v1/chat/completions", answer(json.dumps({"model": "m", "usage": usage}).encode(), content_type="application/json"))
    daemon = start(ALONE + f"servers: [{{name: ollama, url: '{ollama.url}', engine: generic, gpus: [0]}}]\n").ready()
    wait_for(lambda: (daemon.value("energy_joules_total", server="ollama", state="idle") or 0) > 0, why=lambda: daemon.log)
    words = ["--upstream", ollama.url, "--listen", "127.0.0.1:0", "--server", "ollama", "--report-to", f"http://127.0.0.1:{daemon.port}"]
    proxy = subprocess.Popen([sys.executable, "-m", "tokenwatt", "proxy", *words], stderr=subprocess.PIPE, text=True)
    assert proxy.stderr is not None
    try:
        port = int(proxy.stderr.readline().split("http://127.0.0.1:")[1].split()[0].rstrip(",.;:"))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", "/v1/chat/completions", b"{}", {"Content-Type": "application/json"})
        assert json.loads(connection.getresponse().read())["usage"] == usage
        connection.close()
        wait_for(lambda: tokens(daemon, "ollama", "generation") == 300, why=lambda: daemon.log)
        assert (tokens(daemon, "ollama", "prompt_computed"), tokens(daemon, "ollama", "prompt_cached")) == (15, 5)
        assert daemon.value("server_info", server="ollama", engine="generic", cached="known") == 1
    finally:
        proxy.terminate()
        assert proxy.wait(15) == 0
        proxy.stderr.close()


def test_members_of_a_server_that_spans_nodes(start: StartDaemon, fake: Callable[[], FakeServer]) -> None:
    head, seen_from_another_node = fake(), fake()
    working = ('vllm:prompt_tokens_total{model_name="m"} 9', "vllm:num_requests_running 1")
    for each in (head, seen_from_another_node):
        be_page(each, 'vllm:generation_tokens_total{model_name="m"} 100', *working)
    daemon = start(
        ALONE + "servers:\n"
        f"  - {{name: head, url: '{head.url}', engine: vllm, gpus: [0], group: big}}\n"
        f"  - {{name: rest, url: '{seen_from_another_node.url}', engine: vllm, gpus: [1], group: big, tokens: none}}\n"
    ).ready()
    assert daemon.value("server_group_info", server="head", group="big") == 1
    assert daemon.value("server_group_info", server="rest", group="big") == 1
    assert daemon.value("server_info", server="head", scope="partial") == 1
    wait_for(lambda: (daemon.value("energy_joules_total", server="head", state="active") or 0) > 0, why=lambda: daemon.log)
    wait_for(lambda: (daemon.value("energy_joules_total", server="rest", state="active") or 0) > 0, why=lambda: daemon.log)
    for each in (head, seen_from_another_node):
        be_page(each, 'vllm:generation_tokens_total{model_name="m"} 150', *working)
    wait_for(lambda: tokens(daemon, "head", "generation") == 50)
    wait_for(lambda: daemon.value("tokens_per_second", server="head", kind="generation") is not None)
    samples = daemon.samples()
    assert not [name for name, _ in samples if name == "tokenwatt_tokens_per_joule"]
    assert not [name for name, have in samples if name == "tokenwatt_tokens_total" and ("server", "rest") in have]


def test_nothing_is_asked_of_who_is_found_when_discovery_is_off(start: StartDaemon) -> None:
    daemon = start(ALONE).ready()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(3)
        with pytest.raises(TimeoutError):
            listener.accept()
    assert daemon.json("/api/v1/servers")["items"] == []
