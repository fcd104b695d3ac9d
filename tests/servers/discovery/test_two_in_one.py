"""Several servers in one process, and one server on several ports."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers.discovery.conftest import Discover, Heard, Program, Start
from tokenwatt.servers.discovery.repetition import same
from tokenwatt.types import SeriesKey

PAGES = Path(__file__).parents[1] / "pages"

# One process with a server on two ports each. Its standard input says what they count: "PORT MODEL TOKENS", or "PORT close"; "moving MODEL"
# is both the same, more at each look.
SCRIPT = """
import itertools, sys
from pathlib import Path
from tests.servers.fake_server import FakeServer, answer, be_vllm
def page(model, tokens):
    return "".join(f'# TYPE vllm:{n}_tokens counter\\nvllm:{n}_tokens_total{{engine="0",model_name="{model}"}} {tokens}\\n'
        for n in ("prompt", "generation")).encode()
def serve(server, what):
    if sys.argv[3] == "vllm":
        be_vllm(server, what)
    else:
        server.serve("/metrics", answer(Path(sys.argv[3]).read_bytes()))
looks = itertools.count(1)
with FakeServer() as one, FakeServer() as other:
    both = {one.port: one, other.port: other}
    serve(one, page(sys.argv[4], int(sys.argv[5])))
    serve(other, page(sys.argv[6], int(sys.argv[7])))
    if sys.argv[4] == "moving":
        for server in both.values(): serve(server, lambda: page("a", next(looks)))
    print(one.port, flush=True)
    print(other.port, flush=True)
    for line in sys.stdin:
        port, *what = line.split()
        if what == ["close"]:
            both[int(port)].refuse()
        elif what:
            serve(both[int(port)], page(what[0], int(what[1])))
        print(both[int(port)].connections, flush=True)
"""


def start_two(
    start: Start, one: tuple[str, int], other: tuple[str, int], *, name: str | None = None, page: str = "vllm"
) -> tuple[Program, tuple[int, int]]:
    program = start(page, script=SCRIPT, name=name, words=(one[0], str(one[1]), other[0], str(other[1])))
    assert program.process.stdout is not None
    return program, (program.port, int(program.process.stdout.readline()))


def found_at(heard: Heard, ports: tuple[int, int]) -> list[int]:
    return [port for port in ports if heard.at(port)]


@pytest.mark.parametrize(("one", "other"), [(("a", 5), ("b", 5)), (("a", 5), ("a", 6))])
def test_two_models_in_one_process_are_two_servers(
    one: tuple[str, int], other: tuple[str, int], start: Start, discover: Discover, heard: Heard
) -> None:
    program, ports = start_two(start, one, other)
    discover()
    for port in ports:
        assert heard.find(port).name == f"vllm-{port}"
    program.tell(f"{ports[0]} close")
    heard.wait_for(lambda: found_at(heard, ports) == [ports[1]])


@pytest.mark.parametrize("model", ["a", "moving"])
def test_two_ports_with_the_same_counters_are_one_server(model: str, start: Start, discover: Discover, heard: Heard) -> None:
    program, ports = start_two(start, (model, 5), (model, 5))
    discover()
    heard.wait_for(lambda: found_at(heard, ports))
    heard.find(start().port)
    (first,) = found_at(heard, ports)
    second = sum(ports) - first
    connections = program.tell(str(second))
    heard.find(start().port)
    assert program.tell(str(second)) == connections, "it was asked again"
    # It is a server of its own once the other one is gone.
    program.tell(f"{first} close")
    heard.find(second)


def test_nothing_counted_yet_is_no_repetition_until_it_counts(start: Start, discover: Discover, heard: Heard) -> None:
    program, ports = start_two(start, ("a", 0), ("a", 0))
    discover()
    for port in ports:
        heard.find(port)
    for port in ports:
        program.tell(f"{port} a 7")
    heard.wait_for(lambda: len(found_at(heard, ports)) == 1, 12)


@pytest.mark.parametrize("page", ["tgi", "tei"])
def test_an_engine_that_shows_its_page_twice_is_one_server(page: str, start: Start, discover: Discover, heard: Heard) -> None:
    file = next(iter(sorted(PAGES.glob(f"{page}-*.txt"))))
    _, ports = start_two(start, ("a", 0), ("a", 0), page=str(file))
    discover()
    heard.wait_for(lambda: found_at(heard, ports))
    heard.find(start().port)
    assert len(found_at(heard, ports)) == 1


def test_a_program_that_is_known_to_serve_is_one_server(start: Start, discover: Discover, heard: Heard) -> None:
    program, ports = start_two(start, ("a", 5), ("b", 6), name="vllm")
    discover()
    heard.find(min(ports))
    heard.find(start().port)
    assert not heard.at(max(ports))
    assert int(program.tell(str(max(ports)))) == 0


KEYS = [SeriesKey("m", "prompt", ""), SeriesKey("m", "generation", "")]


@given(st.lists(st.tuples(*[st.integers(0, 10**6)] * 3).map(sorted), min_size=2, max_size=2))
def test_what_lies_between_is_the_same(counts: list[list[int]]) -> None:
    before, between, after = ({key: row[i] for key, row in zip(KEYS, counts, strict=True)} for i in range(3))
    assert same(before, between, after)
    assert not same(before, between | {KEYS[0]: after[KEYS[0]] + 1}, after)
    assert not same(before, {KEYS[0]: between[KEYS[0]]}, after)
