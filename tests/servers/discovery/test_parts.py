"""What discovery is made of: names, programs, ports, addresses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwatt import procfs
from tokenwatt.procfs import ListenSocket, PortHolder, Process
from tokenwatt.servers.discovery.asking import Inquiry, Outcome, Question
from tokenwatt.servers.discovery.candidates import Candidate, Candidates
from tokenwatt.servers.discovery.configured import Configured
from tokenwatt.servers.discovery.fronts import Part, part_of
from tokenwatt.servers.discovery.listeners import Listening
from tokenwatt.servers.discovery.names import Names
from tokenwatt.servers.discovery.notices import not_read
from tokenwatt.servers.discovery.order import named_ports
from tokenwatt.servers.discovery.programs import leads, program
from tokenwatt.servers.discovery.reach import served, ways_here, ways_there
from tokenwatt.servers.target import ServerTarget
from tokenwatt.types import Listener, SeriesKey, ServerReading


def process(line: str, command: str | None = None, *, parent: int = 100) -> Process:
    words = tuple(line.split())
    return Process(4711, parent, 1, (command if command is not None else words[0].rsplit("/", 1)[-1])[:15], words)


# --- programs ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "command", "standing"),
    [
        ("/usr/bin/python3 /opt/venv/bin/vllm serve Qwen/Qwen3-8B", "vllm", "serves"),
        ("python3 -u -W ignore -m vllm.entrypoints.openai.api_server --port 8000", "python3", "serves"),
        ("VLLM::APIServer_0", "VLLM::APIServer", "serves"),
        ("VLLM::EngineCore_DP0", "VLLM::EngineCor", "never"),
        ("VLLM::Worker_TP1", "VLLM::Worker_TP", "never"),
        ("python -m sglang.launch_server --model x", "python", "serves"),
        ("sglang::scheduler_TP0", "sglang::schedul", "never"),
        ("/app/llama-server -m x.gguf", None, "serves"),
        ("text-generation-router --port 80", "text-generation", "serves"),
        ("/opt/conda/bin/python /opt/conda/bin/text-generation-server serve x", "text-generation", "never"),
        ("tritonserver --model-repository=/models", None, "serves"),
        ("/opt/tritonserver/backends/python/triton_python_backend_stub /models/x", "triton_python_b", "never"),
        ("python -m dynamo.frontend --http-port 8000", "python", "serves"),
        ("ray::ServeReplica:app:LLMDeployment", "ray::ServeRepli", "never"),
        ("ray::DashboardAgent", "ray::DashboardA", "serves"),
        ("/usr/lib/ray/core/src/ray/raylet/raylet --raylet_socket_name=x", None, "never"),
        ("python3.12 my_server.py", "python3.12", "python"),
        ("python3 -m pytest tests", "python3", "python"),
        ("/usr/local/bin/python3 -c import(x)", "python3", "python"),
        ("/usr/bin/python3 /usr/bin/uvicorn app:app", "uvicorn", "python"),
        ("/usr/bin/python3 /usr/bin/jupyter-lab --port 8888", "jupyter-lab", "never"),
        ("python3 -m ipykernel_launcher -f x.json", "python3", "never"),
        ("python3 -m jupyter notebook", "python3", "never"),
        ("sshd: /usr/sbin/sshd -D", "sshd", "never"),
        ("postgres: writer process", "postgres", "never"),
        ("/usr/bin/docker-proxy -proto tcp", None, "never"),
        ("nginx: worker process", "nginx", "never"),
        ("/usr/bin/containerd-shim-runc-v2 -namespace moby", "containerd-shim", "never"),
        ("/home/u/tokenwatt/.venv/bin/python /home/u/tokenwatt/.venv/bin/tokenwatt proxy", "tokenwatt", "never"),
        ("python -m tokenwatt demo", "python", "never"),
        ("python -m tokenwatt.cli demo", "python", "never"),
        ("/home/u/tokenwatt/.venv/bin/python /home/u/tokenwatt/serve.py", "python", "python"),
        ("/home/u/vllm/bin/backup --all", None, "other"),
        ("/bin/bash /start.sh vllm", "bash", "other"),
        ("", "kworker/0:1", "other"),
    ],
)
def test_programs(line: str, command: str | None, standing: str) -> None:
    assert program(process(line, command)).standing == standing


@pytest.mark.parametrize(
    ("line", "leading"),
    [("-bash", True), ("/bin/bash", True), ("bash -l", True), ("bash /start.sh", False), ("sh -c vllm", False), ("tini -- x", False),
     ("/usr/bin/containerd-shim-runc-v2 -id x", True), ("sshd: root@pts/0", True), ("text-generation-launcher", False)],
)  # fmt: skip
def test_who_has_children_that_belong_together(line: str, leading: bool) -> None:
    assert leads(process(line)) is leading


def test_the_first_process_leads() -> None:
    assert leads(process("tini -- vllm serve", parent=0))


@given(st.lists(st.text(max_size=20), max_size=6), st.text(max_size=15))
def test_any_command_line_can_be_judged(words: list[str], command: str) -> None:
    judged = program(Process(5, 1, 1, command, tuple(words)))
    assert judged.standing in ("serves", "python", "never", "other")
    leads(Process(5, 1, 1, command, tuple(words)))
    named_ports(words)


def test_what_a_process_becomes_by_exec_is_seen() -> None:
    if shutil.which("sh") is None:
        pytest.skip("there is no sh")
    candidates = Candidates()
    script = f'read go; exec "{sys.executable}" -c "import sys; print(1, flush=True); sys.stdin.read()"'
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        for _ in range(8):  # until it is not young any more
            assert shell.pid not in candidates.scan(())
        shell.stdin.write("\n")
        shell.stdin.flush()
        assert shell.stdout.readline() == "1\n"
        assert any(shell.pid in candidates.scan(()) for _ in range(5))
        shell.communicate()
    assert shell.pid not in candidates.scan(())


def test_we_are_no_candidate() -> None:
    assert os.getpid() not in Candidates().scan((os.getpid(),))


def test_without_processes_to_see_nobody_is_found(tmp_path: Path) -> None:
    assert Candidates(tmp_path / "nothing").scan((1, 2)) == {}
    (tmp_path / "12").mkdir()
    candidates = Candidates(tmp_path)
    assert [candidates.scan((12,)) for _ in range(7)] == [{}] * 7


# --- names -------------------------------------------------------------------------------------------------------------------------------


def test_names_of_the_settings_are_never_given() -> None:
    names = Names(["vllm-8000", "vllm-8000-3"])
    assert [names.take("vllm", 8000, ()) for _ in range(3)] == ["vllm-8000-2", "vllm-8000-4", "vllm-8000-5"]


def test_names_that_others_have_at_the_moment_are_not_given() -> None:
    taken = {"vllm-8000"}
    names = Names([], lambda: taken)
    assert names.take("vllm", 8000, ()) == "vllm-8000-2"
    taken.clear()
    assert names.take("vllm", 8000, ("another",)) == "vllm-8000"


def test_a_name_goes_to_the_next_of_the_same_command_line() -> None:
    names = Names([])
    a, b = names.take("vllm", 8000, ("a",)), names.take("vllm", 8000, ("b",))
    assert (a, b) == ("vllm-8000", "vllm-8000-2")
    names.release(a)
    names.release(b)
    assert names.take("vllm", 8000, ("b",)) == b
    assert names.take("vllm", 8000, ("another",)) == a


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("xy"), st.integers(0, 3)), max_size=60))
def test_no_two_that_are_present_have_one_name(steps: list[tuple[bool, str, int]]) -> None:
    names, present = Names(["x-1"]), []
    for comes, engine, which in steps:
        if comes:
            name = names.take(engine, 1, (str(which),))
            assert name not in present
            assert name != "x-1"
            present.append(name)
        elif present:
            names.release(present.pop(which % len(present)))


# --- ports and addresses -----------------------------------------------------------------------------------------------------------------


def test_ports_that_a_command_line_names() -> None:
    line = "x --port 8000 --metrics-port=8002 -p 9 --nccl-port 4 --data-parallel-rpc-port 5 --master_port=6 --port-range 7 --port x"
    assert named_ports(line.split()) == ({8000, 8002, 9}, {4, 5, 6})


def sock(address: str, inode: int = 1, port: int = 8000) -> ListenSocket:
    return ListenSocket(ip_address(address), inode, 0, port)


OWN = (ip_address("10.0.0.5"), ip_address("fd00::5"))
NAMESPACE = Path("/proc/5/ns/net")


def urls(address: str, *others: ListenSocket) -> list[str]:
    mine = sock(address)
    return [way.url.removeprefix("http://") for way in ways_here(mine, [mine, *others], OWN)]


def test_how_a_socket_here_is_reached() -> None:
    assert urls("127.0.0.1") == ["127.0.0.1:8000"]
    assert urls("10.0.0.5") == ["10.0.0.5:8000"]
    assert urls("0.0.0.0") == ["127.0.0.1:8000", "10.0.0.5:8000"]
    assert urls("::") == ["127.0.0.1:8000", "[::1]:8000", "10.0.0.5:8000", "[fd00::5]:8000"]


def test_another_on_the_same_port_is_not_taken_for_it() -> None:
    assert urls("0.0.0.0", sock("127.0.0.1", 2)) == ["10.0.0.5:8000"]
    assert urls("::", sock("0.0.0.0", 2)) == ["[::1]:8000", "[fd00::5]:8000"]
    assert urls("0.0.0.0", sock("0.0.0.0", 2)) == urls("0.0.0.0")
    assert urls("0.0.0.0", sock("0.0.0.0", 0)) == []
    assert urls("0.0.0.0", sock("127.0.0.1", 2, port=8001)) == urls("0.0.0.0")


def test_how_a_socket_in_another_namespace_is_reached() -> None:
    def ways(address: str) -> list[tuple[str, bool]]:
        found = ways_there(sock(address), [sock(address)], OWN, NAMESPACE)
        assert {w.namespace for w in found} == {NAMESPACE}
        return [(w.url.removeprefix("http://"), w.enters) for w in found]

    assert ways("127.0.0.1") == [("127.0.0.1:8000", True)]
    assert ways("0.0.0.0") == [("10.0.0.5:8000", False), ("127.0.0.1:8000", True)]
    assert ways("10.0.0.5") == [("10.0.0.5:8000", False)]


@pytest.mark.parametrize(
    ("url", "address", "here", "covered"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1", True, True),
        ("http://127.0.0.1:8000", "0.0.0.0", True, True),
        ("http://127.0.0.1:8000", "0.0.0.0", False, False),
        ("http://127.0.0.1:8001", "127.0.0.1", True, False),
        ("http://[::1]:8000", "::", True, True),
        ("http://0.0.0.0:8000", "127.0.0.1", True, True),
        ("http://10.0.0.5:8000", "0.0.0.0", True, True),
        ("http://10.0.0.5:8000", "0.0.0.0", False, True),
        ("http://10.0.0.5:8000", "127.0.0.1", True, False),
        ("http://10.0.0.6:8000/prefix", "0.0.0.0", True, False),
    ],
)
def test_what_the_settings_name(url: str, address: str, here: bool, covered: bool) -> None:
    configured = Configured([ServerTarget("x", url)])
    assert configured.resolve()
    assert configured.covers(served(sock(address), OWN, here=here), 8000, []) is covered


def test_a_port_that_docker_forwards() -> None:
    proxy = process("/usr/bin/docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 80 -container-ip 10.0.0.5 -container-port 8000 -use-fd")
    for url in ("http://127.0.0.1:80", "http://192.0.2.9:80"):
        configured = Configured([ServerTarget("x", url)])
        assert configured.covers(served(sock("0.0.0.0"), OWN, here=False), 8000, [proxy])
        assert not configured.covers(served(sock("0.0.0.0"), OWN, here=False), 8000, [process("docker-proxy -proto tcp -host-port x")])


# --- notices ------------------------------------------------------------------------------------------------------------------------------


def test_a_known_program_that_stays_unknown_is_told_with_the_last_reason() -> None:
    served, unknown = (
        Candidate(Process(7, 1, 1, name, (name,)), program(Process(7, 1, 1, name, (name,))), 1) for name in ("llama-server", "python3")
    )
    listener = Listener(7, 1)
    question = Question(Listening(sock("127.0.0.1"), PortHolder(listener, None, ""), served), ())
    outcome = Outcome(Inquiry(listener, (question,), 0, again=True), reason="HTTP 401 for /metrics")
    assert [not_read(outcome, served, tries) for tries in (1, 2)] == [None, None]
    text = "llama-server (process 7) listens on port 8000 and was not recognised as a server: HTTP 401 for /metrics"
    assert not_read(outcome, served, 3) == text
    assert not_read(outcome, unknown, 3) is None


# --- fronts ------------------------------------------------------------------------------------------------------------------------------


def reading(engine: str, labels: str = "") -> ServerReading:
    return ServerReading("x", 1, engine, {SeriesKey("m", "generation", labels): 1})


def test_fronts_and_workers() -> None:
    assert part_of(process("python -m dynamo.frontend"), reading("dynamo")) == Part("Dynamo", front=True)
    assert part_of(process("python -m dynamo.vllm --model x"), reading("vllm")) == Part("Dynamo", front=False)
    assert part_of(process("python -m sglang.launch_server"), reading("sglang", 'engine_type="x"')) == Part("SGLang", front=False)
    router = part_of(process("sglang_router"), reading("sglang", 'worker_addr="http://x"'))
    assert router == Part("SGLang", front=True)
    assert router.worker() == Part("SGLang", front=False)
    assert part_of(process("vllm serve"), reading("vllm")) is None


def test_our_namespace_is_known() -> None:
    assert procfs.net_namespace(Path("/proc/net")) == procfs.net_namespace(Path(f"/proc/{os.getpid()}/net"))
