from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.servers.discovery.conftest import SERVER, Discover, Heard, Start, free_port
from tokenwatt.servers.target import ServerTarget


def test_finds_a_server_that_is_there_and_one_that_comes(start: Start, discover: Discover, heard: Heard) -> None:
    first = start()
    discover()
    target = heard.find(first.port)
    assert target == ServerTarget(f"vllm-{first.port}", f"http://127.0.0.1:{first.port}", "vllm")
    second = start()
    assert heard.find(second.port).name == f"vllm-{second.port}"


def test_a_server_that_restarts_on_its_port_keeps_its_name(start: Start, discover: Discover, heard: Heard) -> None:
    server = start()
    discover()
    name = heard.find(server.port).name
    server.end()
    heard.wait_for(lambda: not heard.at(server.port))
    again = start(port=server.port)
    assert heard.find(again.port).name == name
    assert [event for event in heard.events if event[1] == name] == [("found", name), ("gone", name), ("found", name)]


def test_a_server_that_stops_listening_is_gone_and_one_that_listens_again_is_back(start: Start, discover: Discover, heard: Heard) -> None:
    server = start()
    discover()
    heard.find(server.port)
    server.tell("close")
    heard.wait_for(lambda: not heard.at(server.port))


def test_a_port_of_the_settings_is_not_found_again_nor_asked(start: Start, discover: Discover, heard: Heard) -> None:
    named, by_name, other = start(), start(address="0.0.0.0"), start()
    discover(
        ServerTarget("mine", f"http://127.0.0.1:{named.port}"),
        ServerTarget("mine too", f"http://localhost:{by_name.port}"),
        ServerTarget(f"vllm-{other.port}", "http://127.0.0.1:1"),
    )
    assert heard.find(other.port).name == f"vllm-{other.port}-2"
    assert not heard.at(named.port)
    assert named.connections() == by_name.connections() == 0


def test_who_is_no_server_is_asked_once_and_politely(start: Start, discover: Discover, heard: Heard) -> None:
    other, server = start("nothing"), start()
    discover()
    heard.find(server.port)
    # Asked later than this one, whose second look comes after 5 s.
    late = start()
    heard.find(late.port)
    asked = other.asked()
    assert asked
    assert len(asked) == len(set(asked)), "no path twice"
    assert not any(path.startswith(("/slots", "/perf_metrics", "/sleep", "/wake")) for path in asked)


def test_who_becomes_a_server_is_found_at_a_later_look(start: Start, discover: Discover, heard: Heard) -> None:
    server = start("nothing")
    discover()
    deadline = time.monotonic() + 5
    while not server.asked():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.tell("vllm")
    heard.wait_for(lambda: heard.at(server.port), 9)


def test_some_programs_are_never_asked(start: Start, discover: Discover, heard: Heard) -> None:
    silent = [start(name=name) for name in ("sshd", "redis-server", "docker-proxy", "jupyter-lab", "tokenwatt", "postgres")]
    unknown = start(name="backup-agent")
    server = start()
    discover()
    heard.find(server.port)
    heard.find(start().port)
    assert unknown.connections() == 0
    # It is asked once it, or a relative, holds a GPU; the others not even then.
    heard.gpu_pids = {p.process.pid for p in (unknown, *silent)}
    heard.find(unknown.port)
    heard.find(start().port)
    assert [p.connections() for p in silent] == [0] * len(silent)


def test_relatives_of_who_holds_a_gpu_are_asked(start: Start, discover: Discover, heard: Heard) -> None:
    # As TGI: a launcher, below it the router that listens and the shard that holds the GPU.
    server = start(name="my-router", before=("sh", "-c", 'sleep 60 & echo $! >&2; "$@"; kill $!', "sh"))
    launcher = server.process.pid
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    shard = next(int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    heard.gpu_pids = {shard}
    discover()
    heard.find(server.port)


HANGING = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_a_server_that_cannot_be_metered_is_told_until_it_is_gone(start: Start, discover: Discover, heard: Heard) -> None:
    server = start("ollama")
    discover()
    beginning = f"Ollama at http://127.0.0.1:{server.port} (process {server.process.pid}): "
    heard.wait_for(lambda: [t for t in heard.notices.values() if t.startswith(beginning) and "tokenwatt proxy" in t])
    assert not heard.at(server.port)
    server.end()
    heard.wait_for(lambda: not any(t.startswith(beginning) for t in heard.notices.values()))


def test_it_need_not_be_told_while_others_report_for_it(start: Start, discover: Discover, heard: Heard) -> None:
    server = start("ollama")
    discover()

    def told() -> bool:
        return any(f"http://127.0.0.1:{server.port} " in text for text in heard.notices.values())

    heard.wait_for(told)
    heard.reported.add(f"http://localhost:{server.port}")
    heard.wait_for(lambda: not told())
    heard.reported.clear()
    heard.wait_for(told)
    heard.reported.add(f"http://localhost:{server.port}")
    heard.wait_for(lambda: not told())
    server.end()
    heard.find(start().port)
    assert not told()


def test_who_hangs_does_not_delay_the_others(start: Start, discover: Discover, heard: Heard) -> None:
    for _ in range(6):
        start(script=HANGING, name="vllm")
    discover()
    server = start()
    begun = time.monotonic()
    heard.find(server.port)
    assert time.monotonic() - begun < 5


def test_workers_that_share_a_port_are_one_server(start: Start, discover: Discover, heard: Heard) -> None:
    script = """
import os, socket, sys
import tests.servers.fake_server as fake
create = socket.create_server
socket.create_server = lambda address, **options: create((address[0], int(sys.argv[2])), reuse_port=True)
with fake.FakeServer() as server:
    fake.be_vllm(server)
    print(server.port, flush=True)
    sys.stdin.read()
"""
    first = start(script=script)
    second = start(script=script, port=first.port)
    assert second.port == first.port
    discover()
    heard.find(first.port)
    heard.find(start().port)
    assert len(heard.at(first.port)) == 1
    # Whichever of the two it was, the other one is there.
    first.end()
    heard.find(start().port)
    heard.find(first.port)
    second.end()
    heard.wait_for(lambda: not heard.at(first.port))


def test_what_docker_forwards_to_a_server_of_the_settings_is_that_server(start: Start, discover: Discover, heard: Heard) -> None:
    container, other = start(address="127.0.0.9"), start()
    port = free_port()
    words = f"-proto tcp -host-ip 0.0.0.0 -host-port {port} -container-ip 127.0.0.9 -container-port {container.port}".split()
    proxy = start("nothing", name="docker-proxy", words=words)
    discover(ServerTarget("mine", f"http://localhost:{port}"))
    heard.find(other.port)
    heard.find(start().port)
    assert container.connections() == proxy.connections() == 0


STARTER = """
import subprocess, sys
from tests.servers.engine_servers import be_engine
from tests.servers.fake_server import FakeServer, be_vllm
children = []
with FakeServer() as server:
    server.refuse()
    server.port = int(sys.argv[2])
    server.listen()
    kind = sys.argv[3]
    be_vllm(server) if kind == "vllm" else be_engine(server, "llamacpp-2026-11")
    print(server.port, flush=True)
    for line in sys.stdin:
        if line == "close\\n":
            server.refuse()
            print("yes", flush=True)
            continue
        command = [sys.executable, "-c", sys.argv[4], "127.0.0.1", line.strip(), kind]
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        print(children[-1].stdout.readline().decode().strip(), flush=True)
    for child in children: child.communicate()
"""


def test_a_server_below_another_counts_what_that_one_passes_on(start: Start, discover: Discover, heard: Heard) -> None:
    front = start(script=STARTER, name="vllm", words=(SERVER,))
    discover()
    heard.find(front.port)
    worker = int(front.tell(str(free_port())))
    heard.find(worker)
    heard.wait_for(lambda: not heard.at(front.port))
    assert any(f"passes requests on to vllm-{worker}" in text for text in heard.notices.values())
    front.end()
    heard.wait_for(lambda: not any(f"vllm-{worker}" in text for text in heard.notices.values()))


@pytest.mark.parametrize("child_first", [True, False])
def test_a_llama_server_is_read_for_those_that_it_started(
    start: Start, discover: Discover, heard: Heard, child_first: bool
) -> None:
    router = start("llamacpp", script=STARTER, name="llama-server", words=(SERVER,))
    if child_first:
        child = int(router.tell(str(free_port())))
        discover()
        heard.find(router.port)
    else:
        discover()
        heard.find(router.port)
        child = int(router.tell(str(free_port())))
    heard.find(start().port)
    heard.wait_for(lambda: not heard.at(child))
    assert heard.at(router.port)
    assert not heard.notices


def test_a_program_that_starts_servers_and_is_one_is_no_front(start: Start, discover: Discover, heard: Heard) -> None:
    program = start(script=STARTER, words=(SERVER,))
    discover()
    heard.find(program.port)
    other = int(program.tell(str(free_port())))
    heard.find(other)
    heard.find(start().port)
    assert heard.at(program.port)


def test_what_a_server_of_the_settings_started_is_part_of_it(start: Start, discover: Discover, heard: Heard) -> None:
    server = start(script=STARTER, name="llama-server", words=(SERVER,))
    part = int(server.tell(str(free_port())))
    program = start(script=STARTER, words=(SERVER,))
    other = int(program.tell(str(free_port())))
    discover(ServerTarget("mine", f"http://127.0.0.1:{server.port}"), ServerTarget("mine too", f"http://localhost:{program.port}"))
    heard.find(other)
    late = int(server.tell(str(free_port())))
    heard.find(start().port)
    assert not any(heard.at(port) for port in (server.port, program.port, part, late))


def test_a_part_is_a_server_once_its_server_is_gone(start: Start, discover: Discover, heard: Heard) -> None:
    server = start(script=STARTER, name="llama-server", words=(SERVER,))
    part = int(server.tell(str(free_port())))
    discover(ServerTarget("mine", f"http://127.0.0.1:{server.port}"))
    heard.find(start().port)
    assert not heard.at(part)
    server.tell("close")
    heard.find(part)


def test_stops_within_a_second_also_while_it_asks(start: Start, discover: Discover, heard: Heard) -> None:
    hanging = start(script=HANGING, name="vllm")
    discovery = discover()
    server = start()
    heard.find(server.port)
    assert hanging.process.poll() is None
    begun = time.monotonic()
    discovery.stop()
    discovery.stop()
    assert time.monotonic() - begun < 1
    count = len(heard.events)
    server.end()
    assert len(heard.events) == count
