import pytest
from prometheus_client.parser import text_string_to_metric_families

from tokenwatt.demo.load import Shape
from tokenwatt.demo.node import SERVICES, Service, SimulatedNode
from tokenwatt.demo.profiles import CHAT_8B, H100, L4, SMALL_8B
from tokenwatt.demo.server import page

S = 10**9


def _counted(text: bytes) -> dict[str, float]:
    """Value by kind of token, as a scraper finds them."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name == "vllm:generation_tokens_total":
                found["generation"] = sample.value
            elif sample.name == "vllm:prompt_tokens_by_source_total":
                found[sample.labels["source"]] = sample.value
    return {"prompt_computed": found["local_compute"], "prompt_cached": found["local_cache_hit"], "generation": found["generation"]}


def test_one_seed_is_one_node_and_two_are_two() -> None:
    a, b, c = SimulatedNode(1), SimulatedNode(1), SimulatedNode(2)
    for service in SERVICES:
        assert a.truth(service.name, 700 * S) == b.truth(service.name, 700 * S)
        assert a.truth(service.name, 300 * S) != c.truth(service.name, 300 * S)
        assert page(a.server(service.name), 300 * S) == page(b.server(service.name), 300 * S)


@pytest.mark.parametrize("name", [s.name for s in SERVICES])
def test_pages_count_what_the_truth_has(name: str) -> None:
    node = SimulatedNode(origin_ns=5 * S)
    start_ns, end_ns = 17 * S + 1, 400 * S + 123_456_789
    first, last = (_counted(page(node.server(name), t)) for t in (start_ns, end_ns))
    truth = {k: node.truth(name, end_ns).tokens[k] - node.truth(name, start_ns).tokens[k] for k in node.truth(name, 0).tokens}
    assert {k: last[k] - first[k] for k in last} == truth
    assert all(v > 0 for v in truth.values())


def test_the_first_process_is_older_than_the_meter() -> None:
    node = SimulatedNode()
    for server in node.servers:
        assert all(v > 10**5 for v in _counted(page(server, 0)).values())
        assert server.at(0).age_s > 3600


def test_truth_has_the_energy_of_the_server_s_boards() -> None:
    node = SimulatedNode()
    energy_uj = node.truth("chat-70b", 100 * S).energy_uj
    assert energy_uj == {node.boards[i].gpu.uuid: node.boards[i].energy_uj(100 * S) for i in (3, 4, 5, 6)}


def test_figures_of_a_day_are_plausible() -> None:
    node = SimulatedNode()
    for name, low, high in (("chat-8b", 0.11, 0.2), ("chat-70b", 0.6, 2.0), ("code-32b", 0.5, 5.0)):
        truth = node.truth(name, 1200 * S)
        joules_per_token = sum(truth.energy_uj.values()) / 1e6 / truth.tokens["generation"]
        assert low < joules_per_token < high, name


def test_a_restart_begins_at_zero_and_the_past_stays() -> None:
    node = SimulatedNode()
    server = node.server("chat-8b")
    before = page(server, 50 * S)
    server.restart(60 * S)
    assert page(server, 50 * S) == before
    assert set(_counted(page(server, 60 * S)).values()) == {0.0}
    since = {k: v - node.truth("chat-8b", 60 * S).tokens[k] for k, v in node.truth("chat-8b", 90 * S).tokens.items()}
    assert _counted(page(server, 90 * S)) == since
    assert server.at(90 * S).start_wall_s == server.at(0).start_wall_s + 23_000 + 60
    assert server.started_ns == 60 * S
    with pytest.raises(ValueError, match="must be later"):
        server.restart(60 * S)


def test_a_small_node_can_be_made() -> None:
    node = SimulatedNode(services=[Service("small", SMALL_8B, Shape(peak=8), (0,))], boards=[L4])
    assert [g.name for g in node.source(lambda: 0).open()] == ["NVIDIA L4 (simulated)"]
    assert node.truth("small", 60 * S).tokens["generation"] > 1000


@pytest.mark.parametrize(
    ("services", "reason"),
    [
        ([Service("a", CHAT_8B, Shape(1), (0,)), Service("b", CHAT_8B, Shape(1), (0,))], "share a board"),
        ([Service("a", CHAT_8B, Shape(1), (0, 1))], "a needs 1 x NVIDIA H100"),
        ([Service("a", SMALL_8B, Shape(1), (0,))], "a needs 1 x NVIDIA L4"),
    ],
)
def test_an_impossible_node_is_refused(services: list[Service], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SimulatedNode(services=services, boards=[H100, H100])


def test_everything_shown_says_that_it_is_simulated() -> None:
    node = SimulatedNode()
    assert all(s.model.startswith("simulated/") for s in node.servers)
    assert all("simulated" in g.name and "simulated" in g.driver for g in (b.gpu for b in node.boards))
