"""What is in force: flags over environment over file over defaults; where it comes from; names; what is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.settings.conftest import Load
from tokenwatt.settings import schema
from tokenwatt.settings.load import load
from tokenwatt.settings.model import Settings
from tokenwatt.settings.values import duration_ns, window

# The settings as the contract has them.
CONTRACT = """\
listen: 127.0.0.1:28900
web_config: null                 # TLS and users, the Prometheus exporter-toolkit file format; works in the plain install
write_token_file: null           # for POST; without it, only loopback may post
probes_without_auth: false
sampling: {power: 100ms, tokens: 1s}
windows: [10s, 1m, 5m, 1h, 24h]
metrics: {windows: [10s, 1m, 5m]}
host: auto                       # RAPL where readable | off
servers:                         # what discovery can't see, or should not guess
  - {name: chat, url: "http://127.0.0.1:8000", engine: auto, gpus: [0, GPU-5e...]}
    # also: metrics_path, api_key_file, tls: {ca_file, insecure_skip_verify}, counters: {prompt, prompt_cached, generation},
    # group: NAME and tokens: none for the members of a server that spans nodes
discovery: {local: true, kubernetes: false}
cost:
  currency: USD
  energy_price_per_kwh: null     # or tariff: {timezone, periods: [{months, days, start, end, price}]}, or source
  demand_charge_per_kw_month: null
  pue: 1.0
  host_watts: null               # for nodes without RAPL; marked modelled
  gpu_hourly: {}                 # {"NVIDIA H100 80GB HBM3": 2.10, default: 1.5}; or gpu_purchase
  gpu_hourly_includes: []        # energy, host
carbon: {intensity_grams_per_kwh: null, factor: direct}   # or source, as above
store: {path: null, keep: 400d}  # null: the state directory of the user or the unit
"""

# Every key that the contract has beyond the defaults.
FULL = """\
listen: "[::]:28901"
web_config: web.yml
write_token_file: /run/token
probes_without_auth: true
sampling: {power: 50ms, tokens: 500ms}
windows: [24h, 60s]
metrics: {windows: [1m, 24h]}
host: off
servers:
  - name: chat
    url: https://gpu.example:8443/base
    engine: vllm
    gpus: [3, GPU-5e2f9d10-0000-4000-8000-000000000000]
    metrics_path: /stats/metrics
    api_key_file: keys/chat
    tls: {ca_file: ca.pem, insecure_skip_verify: true}
    counters: {prompt: a, prompt_cached: b, generation: c}
    group: big
    tokens: none
discovery: {local: false, kubernetes: true}
cost:
  currency: EUR
  tariff:
    timezone: Europe/Berlin
    periods:
      - {months: [1, 12], days: [sat, sun], start: "22:00", end: "06:00", price: 0.18}
      - {price: 0.3}
  demand_charge_per_kw_month: 12
  pue: 1.25
  host_watts: 400
  gpu_hourly: {"NVIDIA H100 80GB HBM3": 2.10, default: 1.5}
  gpu_purchase: {NVIDIA A100-SXM4-80GB: {price: 15000, life_years: 4, residual_value: 1000}}
  gpu_hourly_includes: [energy, host]
carbon:
  source: {url: "http://prom:9090", prometheus: "avg(x)", every: 5m}
  factor: lifecycle
store: {path: state/tokenwatt.db, keep: 30d}
"""


def test_the_whole_example_of_the_contract_is_accepted_and_is_the_defaults(load_text: Load) -> None:
    settings = load_text(CONTRACT).settings
    assert settings.servers[0].gpus == (0, "GPU-5e...")
    assert settings.model_copy(update={"servers": ()}) == Settings()


def test_all_keys_of_the_contract_arrive(load_text: Load, tmp_path: Path) -> None:
    s = load_text(FULL).settings
    assert (s.listen, s.listen_host, s.listen_port) == ("[::]:28901", "::", 28901)
    assert (s.web_config, s.write_token_file, s.probes_without_auth) == (tmp_path / "web.yml", Path("/run/token"), True)
    assert (s.sampling.power_ns, s.sampling.tokens_ns) == (50_000_000, 500_000_000)
    assert s.windows == s.metrics.windows == (window("1m"), window("24h"))
    assert (s.host, s.discovery.local, s.discovery.kubernetes) == ("off", False, True)
    [server] = s.servers
    assert (server.name, server.url, server.engine) == ("chat", "https://gpu.example:8443/base", "vllm")
    assert server.gpus == (3, "GPU-5e2f9d10-0000-4000-8000-000000000000")
    assert (server.metrics_path, server.api_key_file) == ("/stats/metrics", tmp_path / "keys/chat")
    assert (server.tls.ca_file, server.tls.insecure_skip_verify) == (tmp_path / "ca.pem", True)
    assert (server.counters.prompt, server.counters.prompt_cached, server.counters.generation) == ("a", "b", "c")
    assert (server.group, server.tokens) == ("big", "none")
    assert s.cost.tariff is not None
    night, rest = s.cost.tariff.periods
    assert (night.months, night.days, night.start_minutes, night.end_minutes, night.price) == ((1, 12), ("sat", "sun"), 1320, 360, 0.18)
    assert (len(rest.months), len(rest.days), rest.start_minutes, rest.end_minutes) == (12, 7, 0, 1440)
    assert (s.cost.currency, s.cost.pue, s.cost.host_watts, s.cost.demand_charge_per_kw_month) == ("EUR", 1.25, 400.0, 12.0)
    assert s.cost.gpu_hourly == {"NVIDIA H100 80GB HBM3": 2.10, "default": 1.5}
    assert s.cost.gpu_purchase["NVIDIA A100-SXM4-80GB"].residual_value == 1000.0
    assert s.cost.gpu_hourly_includes == ("energy", "host")
    assert s.carbon.source is not None
    assert (s.carbon.source.prometheus, s.carbon.source.every_ns, s.carbon.factor) == ("avg(x)", duration_ns("5m"), "lifecycle")
    assert (s.store.path, s.store.keep_ns) == (tmp_path / "state/tokenwatt.db", duration_ns("30d"))


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().listen = "127.0.0.1:1"


@given(st.integers(0, 7))
def test_precedence(tmp_path_factory: pytest.TempPathFactory, given_in: int) -> None:
    path = tmp_path_factory.mktemp("precedence") / "s.yaml"
    path.write_text("# nothing\nlisten: 127.0.0.1:1\n" if given_in & 1 else "")
    environ = {"TOKENWATT_LISTEN": "127.0.0.1:2"} if given_in & 2 else {}
    flags = {"listen": "127.0.0.1:3"} if given_in & 4 else {}
    loaded = load(path, environ, flags)
    strongest = given_in.bit_length()
    assert loaded.settings.listen_port == (strongest or 28900)
    assert loaded.origins.get("listen") == [None, f"{path}:2", "TOKENWATT_LISTEN", "--listen"][strongest]


def test_the_environment_gives_scalars_and_lists(load_text: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path.parent)
    environ = {
        "TOKENWATT_SAMPLING_POWER": "50ms",
        "TOKENWATT_WINDOWS": "1h, 30s",
        "TOKENWATT_METRICS_WINDOWS": "30s",
        "TOKENWATT_COST_ENERGY_PRICE_PER_KWH": "0.31",
        "TOKENWATT_COST_GPU_HOURLY_INCLUDES": "energy",
        "TOKENWATT_PROBES_WITHOUT_AUTH": "yes",
        "TOKENWATT_STORE_PATH": "here.db",
        "TOKENWATT_HOST": "",  # an empty variable counts as not given
    }
    loaded = load_text("sampling: {tokens: 2s}\nwindows: [1m,\n 5m]\ncost:\n", environ)
    s = loaded.settings
    assert (s.sampling.power_ns, s.sampling.tokens_ns) == (50_000_000, 2_000_000_000)
    assert s.windows == (window("30s"), window("1h"))
    assert s.metrics.windows == (window("30s"),)
    assert (s.cost.energy_price_per_kwh, s.cost.gpu_hourly_includes) == (0.31, ("energy",))
    assert s.probes_without_auth is True
    assert s.store.path == tmp_path.parent / "here.db"  # relative to where the command was started, not to the file
    assert s.host == "auto"
    assert loaded.origins["windows"] == "TOKENWATT_WINDOWS"
    assert "windows[0]" not in loaded.origins
    assert loaded.origins["sampling.tokens"].endswith("s.yaml:1")


def test_names_of_variables() -> None:
    names = schema.environment()
    assert names["TOKENWATT_LISTEN"] == ("listen",)
    assert names["TOKENWATT_SAMPLING_POWER"] == ("sampling", "power")
    assert names["TOKENWATT_COST_TARIFF_TIMEZONE"] == ("cost", "tariff", "timezone")
    assert not names.keys() & {"TOKENWATT_SERVERS", "TOKENWATT_COST_GPU_HOURLY", "TOKENWATT_COST_TARIFF_PERIODS"}


def test_unknown_variables_get_one_warning(load_text: Load) -> None:
    environ = {
        "TOKENWATT_SERVICE_HOST": "10.0.0.1",
        "TOKENWATT_PORT_28900_TCP": "tcp://10.0.0.1:28900",
        "TOKENWATT_SERVERS": "http://a:1",
        "TOKENWATT_CONFIG": "s.yaml",
        "TOKENWATT_DEBUG": "1",
        "TOKENWATT_PURE_PYTHON": "1",
        "TOKENWATTS": "1",
        "HOME": "/",
    }
    assert load_text("", environ).warnings == (
        "variables that are no settings, ignored: TOKENWATT_PORT_28900_TCP, TOKENWATT_SERVERS, TOKENWATT_SERVICE_HOST",
    )


def test_servers_without_a_name_get_one(load_text: Load) -> None:
    settings = load_text("""\
servers:
  - {url: "http://10.0.0.1:8000"}
  - {url: "http://10.0.0.2:8000", engine: vllm}
  - {url: "http://10.0.0.3:8000", name: vllm-8000-2}
  - {url: "http://10.0.0.4:8000"}
  - {url: "https://10.0.0.5"}
""").settings
    assert [s.name for s in settings.servers] == ["vllm-8000", "vllm-8000-3", "vllm-8000-2", "vllm-8000-4", "vllm-443"]


def test_counters_by_name_make_a_generic_server(load_text: Load) -> None:
    settings = load_text("""\
servers:
  - {url: "http://10.0.0.1:9000", counters: {generation: my_tokens_total}}
  - {url: "http://10.0.0.2:11434", engine: generic}
""").settings
    assert [(s.name, s.reads_as, s.is_pushed) for s in settings.servers] == [
        ("generic-9000", "generic", False),
        ("generic-11434", "generic", True),
    ]


def test_prometheus_is_shown_the_windows_up_to_five_minutes_unless_told(load_text: Load) -> None:
    assert [w.label for w in load_text("windows: [1h, 2m, 301s, 300s]").settings.metrics.windows] == ["2m", "5m"]
    assert [w.label for w in load_text("windows: [1h, 2m]\nmetrics: {windows: [1h]}").settings.metrics.windows] == ["1h"]
    assert load_text("metrics: {windows: []}").settings.metrics.windows == ()


def test_what_this_version_does_not_act_on_is_said_with_its_place(load_text: Load, tmp_path: Path) -> None:
    said = [w.removeprefix(f"{tmp_path}/") for w in load_text(FULL, {"TOKENWATT_STORE_KEEP": "2d"}).warnings]
    assert said.pop() == "s.yaml:17: servers[0].counters: is not used: the counters of engine vllm are known"
    assert all(w.endswith(": is read but not used by this version") for w in said)
    assert [w.removesuffix(": is read but not used by this version") for w in said] == [
        "s.yaml:2: web_config",
        "s.yaml:4: probes_without_auth",
        "s.yaml:20: discovery.kubernetes",
        "s.yaml:22: cost.currency",
        "s.yaml:23: cost.tariff",
        "s.yaml:28: cost.demand_charge_per_kw_month",
        "s.yaml:29: cost.pue",
        "s.yaml:30: cost.host_watts",
        "s.yaml:31: cost.gpu_hourly",
        "s.yaml:32: cost.gpu_purchase",
        "s.yaml:33: cost.gpu_hourly_includes",
        "s.yaml:36: carbon.factor",
        "s.yaml:35: carbon.source",
        "s.yaml:37: store.path",
        "TOKENWATT_STORE_KEEP: store.keep",
    ]


def test_only_what_asks_for_something_is_said(load_text: Load) -> None:
    assert load_text("").warnings == ()
    assert load_text("host: off\ndiscovery: {local: false}\ncost: {currency: USD, pue: 1}").warnings == ()
    assert [w.split(": ")[1] for w in load_text("host: auto\ndiscovery: {kubernetes: true}").warnings] == ["host", "discovery.kubernetes"]
    [line] = load_text("", {"TOKENWATT_COST_SOURCE_URL": "http://a", "TOKENWATT_COST_SOURCE_JSON_PATH": "b"}).warnings
    assert line == "TOKENWATT_COST_SOURCE_URL: cost.source: is read but not used by this version"
