"""Which ports of a process are asked: what its command line names, what the kernel chose, and those of ranks not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers.discovery.conftest import Discover, Heard, Start, free_port
from tokenwatt.procfs import start_ticks
from tokenwatt.servers.discovery.candidates import Candidates
from tokenwatt.servers.discovery.distributed import marks_environment, marks_words

RANK = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}

BELOW = ("sh", "-c", '"$@"; true', "sh")
"""A command that runs the rest of its line, and stays above it."""


def test_ports_that_the_kernel_chose_are_asked_where_no_rank_listens(start: Start, discover: Discover, heard: Heard) -> None:
    plain, known, slurm = start(port=0), start(port=0, name="vllm"), start(port=0, environment={"SLURM_PROCID": "0", "SLURM_NTASKS": "1"})
    ranks = [
        start(port=0, environment=RANK),
        start(port=0, environment={"OMPI_COMM_WORLD_RANK": "1"}),
        start(port=0, environment={"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}),
        start(port=0, words=("--deepspeed", "zero.json")),
        start(port=0, before=(*BELOW[:-1], "/usr/bin/torchrun")),
    ]
    heard.gpu_pids = {plain.process.pid, *(rank.process.pid for rank in ranks)}
    discover()
    for server in (plain, known, slurm):
        heard.find(server.port)
    heard.find(start().port)
    assert [rank.connections() for rank in ranks] == [0] * len(ranks)


def test_a_rank_is_asked_on_ports_that_it_was_told(start: Start, discover: Discover, heard: Heard) -> None:
    port = free_port()
    start(port=port, words=("--port", str(port)), environment=RANK)
    discover()
    heard.find(port)


TWO = """
import sys
from tests.servers.fake_server import FakeServer, be_vllm
with FakeServer() as one, FakeServer() as other:
    one.refuse()
    one.port = int(sys.argv[2])
    one.listen()
    be_vllm(one)
    print(other.port, flush=True)
    for line in sys.stdin:
        print(other.connections, flush=True)
"""


@pytest.mark.parametrize(("name", "asked"), [(None, True), ("vllm", False)])
def test_besides_the_ports_it_names_python_is_asked_on_others(
    name: str | None, asked: bool, start: Start, discover: Discover, heard: Heard
) -> None:
    port = free_port()
    program = start(script=TWO, port=port, name=name, words=("--port", str(port)))
    discover()
    heard.find(port)
    heard.find(start().port)
    assert (int(program.tell("")) > 0) is asked


PARENT = """
import multiprocessing, sys
from tests.servers.fake_server import FakeServer, be_vllm
with FakeServer() as server:
    be_vllm(server)
    child = multiprocessing.get_context("spawn").Process(target=input)
    child.start()
    print(server.port, flush=True)
    for line in sys.stdin:
        print(server.connections, flush=True)
    child.join()
"""


def test_who_spawned_processes_of_its_own_is_not_asked_there(start: Start, discover: Discover, heard: Heard) -> None:
    parent, server = start(script=PARENT), start()
    discover()
    heard.find(server.port)
    heard.find(start().port)
    assert int(parent.tell("")) == 0


def test_a_first_rank_that_started_the_others_itself(start: Start) -> None:
    script = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, "LOCAL_RANK": "1"})
print(1, flush=True)
sys.stdin.read()
child.communicate(b"x")
"""
    first = start(script=script).process.pid
    assert may_be_rank(first, gpu_pids=[first])
    assert not may_be_rank(first, gpu_pids=[])


def test_who_wrote_over_its_environment_hides_it(start: Start) -> None:
    program = start(script="import sys; print(1, flush=True); sys.stdin.read()", before=("env", "-i"))
    pid = program.process.pid
    assert marks_environment(pid) is None
    assert may_be_rank(pid, gpu_pids=[pid])
    assert not may_be_rank(pid, gpu_pids=[])


def may_be_rank(pid: int, *, gpu_pids: Sequence[int]) -> bool:
    candidates = Candidates()
    found = candidates.scan(gpu_pids)
    return candidates.may_be_rank(found[pid])


@pytest.mark.parametrize(
    ("environment", "marked"),
    [
        ({"LOCAL_RANK": "0"}, True),
        ({"TORCHELASTIC_RUN_ID": "x"}, True),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "8"}, False),
        ({"MY_RANK": "RANK", "API_KEY": "LOCAL_RANK=1"}, False),
        ({"X": "\n".join(["RANK=1"] * 10000)}, False),
    ],
)
def test_environments(environment: Mapping[str, str], marked: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", "print(); input()"], stdin=-1, stdout=-1, env={"A": "b", **environment}) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert marks_environment(process.pid) is marked
        process.communicate(b"\n")
    assert marks_environment(process.pid) is None
    assert start_ticks(process.pid) is None


@pytest.mark.parametrize(
    ("line", "marked"),
    [
        ("/usr/bin/python3 /opt/bin/torchrun --nproc-per-node 2 train.py", True),
        ("python -m torch.distributed.run train.py", True),
        ("python -m torch.distributed.launch train.py", True),
        ("python train.py --deepspeed x.json", True),
        ("/usr/bin/accelerate launch train.py", True),
        ("python -m accelerate.commands.launch train.py", True),
        ("horovodrun -np 2 python train.py", True),
        ("mpirun -n 2 python serve.py", True),
        ("python -m ipykernel_launcher -f x.json", True),
        ("python /usr/bin/dask-worker tcp://x:8786", True),
        ("python -m distributed.cli.dask_worker", True),
        ("ray::Trainer.train", True),
        ("python /x/ray/_private/workers/default_worker.py", True),
        ("python serve.py --port 8000", False),
        ("python -m pytest tests/test_servers.py", False),
        ("/opt/deepspeed/bin/python serve.py", False),
        ("python serve_with_accelerate_hooks.py", False),
        ("python array::x", False),
        ("", False),
    ],
)
def test_command_lines(line: str, marked: bool) -> None:
    assert marks_words(line.split()) is marked


@pytest.mark.parametrize("module", ["spawn", "forkserver", "resource_tracker"])
def test_what_multiprocessing_starts(module: str) -> None:
    assert marks_words(["python", "-c", f"from multiprocessing.{module} import main; main(5)", "--multiprocessing-fork"])
    assert marks_words(["sh", "-c", "cd /x && exec torchrun train.py"])


@given(st.lists(st.text(max_size=50), max_size=5))
def test_any_words_can_be_looked_at(words: list[str]) -> None:
    marks_words(words)
    assert marks_words([*words, "torchrun"])
