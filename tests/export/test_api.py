"""The app over real sockets."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from tests.export.conftest import Served
from tests.export.snapshots import SECOND_NS, node
from tokenwatt.export import answers
from tokenwatt.export.families import FAMILIES

MODELS: dict[str, type[answers.Answer]] = {
    "/api/v1/status": answers.Status,
    "/api/v1/gpus": answers.Gpus,
    "/api/v1/servers": answers.Servers,
    "/api/v1/efficiency": answers.Efficiency,
}
DATA = tuple(MODELS)


def test_metrics_are_text_0_0_4_also_for_who_prefers_openmetrics(shared: Served) -> None:
    shared.publisher.publish(node())
    response, body = shared.request("/metrics")
    assert (response.status, response.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert body.count(b"# HELP") == len(FAMILIES)
    assert int(response.headers["content-length"]) == len(body)


def test_metrics_follow_the_snapshot(shared: Served) -> None:
    for up in (True, False):
        snapshot = node(1, 0)
        shared.publisher.publish(replace(snapshot, gpus=(replace(snapshot.gpus[0], up=up),)))
        for _ in range(2):
            _, body = shared.request("/metrics")
            assert f"}} {float(up)}\n# HELP tokenwatt_gpu_info".encode() in body


@pytest.mark.parametrize(("path", "model"), tuple(MODELS.items()), ids=DATA)
def test_data_is_of_the_model_that_openapi_shows(shared: Served, path: str, model: type[answers.Answer]) -> None:
    shared.publisher.publish(node())
    model.model_validate(shared.json(path))
    operation = shared.json("/openapi.json")["paths"][path]["get"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": f"#/components/schemas/{model.__name__}"}


def test_all_of_a_status_is_from_one_snapshot(shared: Served) -> None:
    snapshot = replace(node(8, 3), problems=("One server is down.",))
    shared.publisher.publish(snapshot)
    status = shared.json("/api/v1/status")
    assert status["counts"] == {"gpus": 8, "gpus_up": 8, "servers": 3, "servers_up": 3}
    assert (status["windows"], status["problems"]) == (["10s", "1m", "5m", "1h", "24h"], ["One server is down."])
    assert status["uptime_s"] == 86400
    assert 0 <= status["snapshot_age_s"] < 10


def test_efficiency_is_of_one_minute_unless_told_otherwise(shared: Served) -> None:
    shared.publisher.publish(node())
    assert shared.json("/api/v1/efficiency")["window_s"] == 60
    assert shared.json("/api/v1/efficiency?window=24h")["window_s"] == 86400
    shared.publisher.publish(replace(node(), windows=node().windows[2:]))
    assert shared.json("/api/v1/efficiency")["window_s"] == 300


def test_efficiency_of_one_server_or_model(shared: Served) -> None:
    shared.publisher.publish(node())
    assert len(shared.json("/api/v1/efficiency")["items"]) == 8
    assert [i["server"] for i in shared.json("/api/v1/efficiency?server=chat-3")["items"]] == ["chat-3"]
    assert len(shared.json("/api/v1/efficiency?model=meta-llama/Llama-3.1-8B-Instruct")["items"]) == 8
    assert len(shared.json("/api/v1/efficiency?server=chat-3&model=meta-llama/Llama-3.1-8B-Instruct")["items"]) == 1


@pytest.mark.parametrize(
    ("query", "status", "names"),
    [
        ("window=7m", 422, "10s, 1m, 5m, 1h, 24h"),
        ("server=chat", 404, "'chat-0', 'chat-1'"),
        ("model=gpt", 404, "'meta-llama/Llama-3.1-8B-Instruct'"),
        ("server=chat-0&model=gpt", 404, "on server 'chat-0'. There are: 'meta-llama/Llama-3.1-8B-Instruct'"),
        ("model=", 404, "'meta-llama/Llama-3.1-8B-Instruct'"),
        ("server=%ED%A0%80", 404, "'chat-0', 'chat-1'"),
    ],
)
def test_what_is_unknown_is_refused_with_what_there_is(shared: Served, query: str, status: int, names: str) -> None:
    shared.publisher.publish(node(2, 2))
    assert names in shared.json(f"/api/v1/efficiency?{query}", status)["detail"]


def test_an_unknown_path_is_404_in_json(shared: Served) -> None:
    assert shared.json("/api/v1/nonsense", 404) == {"detail": "Not Found"}


@pytest.mark.parametrize(("age_s", "reason"), [(None, "There is no reading yet"), (11, "The last reading is 11 s old")])
def test_without_a_fresh_snapshot_everything_but_the_pages_is_503(served: Served, age_s: int | None, reason: str) -> None:
    if age_s is not None:
        served.publisher.publish(node(t_ns=time.monotonic_ns() - age_s * SECOND_NS))
    for path in (*DATA, "/api/v1/stream"):
        assert reason in served.json(path, 503)["detail"]
    for path in ("/metrics", "/-/healthy", "/-/ready"):
        response, body = served.request(path)
        assert (response.status, response.headers["content-type"]) == (503, "text/plain; charset=utf-8")
        assert reason in body.decode()
    assert served.request("/")[0].status == 200


def test_ready_is_when_the_snapshot_says_so(shared: Served) -> None:
    shared.publisher.publish(replace(node(), ready=False))
    assert [shared.request(path)[0].status for path in ("/-/healthy", "/-/ready")] == [200, 503]
    shared.publisher.publish(node())
    assert [shared.request(path)[0].status for path in ("/-/healthy", "/-/ready")] == [200, 200]


@pytest.mark.parametrize("path", ["/metrics", "/-/healthy", "/-/ready", "/", "/docs"])
def test_head_is_get_without_the_body(shared: Served, path: str) -> None:
    shared.publisher.publish(node())
    got, body = shared.request(path)
    head, nothing = shared.request(path, "HEAD")
    assert (head.status, nothing) == (got.status, b"")
    assert head.headers["content-length"] == got.headers["content-length"] == str(len(body))


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/status", "/-/healthy", "/", "/docs", "/nonsense"])
def test_every_answer_carries_the_security_headers(shared: Served, path: str) -> None:
    shared.publisher.publish(node())
    headers = shared.request(path)[0].headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]
    assert "server" not in headers
    assert "x-tokenwatt-simulated" not in headers


def test_a_demo_says_so_everywhere(demo: Served) -> None:
    demo.publisher.publish(replace(node(), simulated=True))
    for path in (*DATA, "/metrics", "/-/healthy", "/", "/docs", "/nonsense"):
        assert demo.request(path)[0].headers["x-tokenwatt-simulated"] == "1"
    assert all(demo.json(path)["simulated"] is True for path in DATA)
    assert b"\ntokenwatt_simulated 1.0\n" in demo.request("/metrics")[1]
    assert "simulated" in demo.json("/openapi.json")["info"]["title"]
    assert b"every figure is simulated" in demo.request("/")[1]
    assert b"every figure is simulated" in demo.request("/docs")[1]


def test_half_a_surrogate_pair_does_not_take_down_an_answer(shared: Served) -> None:
    snapshot = node(0, 1)
    shared.publisher.publish(replace(snapshot, servers=(replace(snapshot.servers[0], name="a\ud800"),)))
    assert [s["name"] for s in shared.json("/api/v1/servers")["items"]] == ["a?"]
    assert shared.json("/api/v1/efficiency?server=b", 404)["detail"].endswith("There are: 'a?'.")


def test_openapi_documents_the_errors(shared: Served) -> None:
    document = shared.json("/openapi.json")
    paths = document["paths"]
    assert set(paths["/api/v1/efficiency"]["get"]["responses"]) == {"200", "404", "422", "503"}
    assert set(paths["/metrics"]) == {"get"}
    assert "application/json" not in json.dumps(paths["/metrics"])
    stream = paths["/api/v1/stream"]["get"]["responses"]
    data = stream["200"]["content"]["text/event-stream"]["itemSchema"]["properties"]["data"]
    assert data["contentSchema"] == {"$ref": "#/components/schemas/Live"}
    assert list(stream["503"]["content"]) == ["application/json"]
    assert set(document["components"]["schemas"]["Live"]["properties"]) == {"status", "gpus", "servers", "efficiency"}
