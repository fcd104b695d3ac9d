"""Wrong settings: each is told with file, line, key, what is wrong and what would be right, and all are told at once."""

from __future__ import annotations

import pytest

from tests.settings.conftest import Load, Refused
from tokenwatt.settings.servers import ENGINE_NAMES

ENGINES = ", ".join(("auto", *ENGINE_NAMES))

ONE_PROBLEM = {
    # unknown keys, at each level
    "lisen: 127.0.0.1:1": "s.yaml:1: lisen: unknown key; write listen",
    "web-config: a": "s.yaml:1: web-config: unknown key; write web_config",
    "sampling: {Power: 100ms}": "s.yaml:1: sampling.Power: unknown key; write sampling.power",
    "\npower: 100ms": "s.yaml:2: power: unknown key; it belongs elsewhere: sampling.power",
    "json_path: a": "s.yaml:1: json_path: unknown key; it belongs elsewhere: cost.source.json_path or carbon.source.json_path",
    "gpus: [0]": "s.yaml:1: gpus: unknown key; it belongs elsewhere: servers[].gpus",
    "store: {zzz: 1}": "s.yaml:1: store.zzz: unknown key; known here: path, keep",
    "servers:\n  - url: http://a:1\n    api_key: sk-1": "s.yaml:3: servers[0].api_key: unknown key; write servers[0].api_key_file",
    "servers:\n  - {url: http://a:1, tls: {ca: x}}": "s.yaml:2: servers[0].tls.ca: unknown key; known here: ca_file, insecure_skip_verify",
    "cost:\n  gpu_purchase:\n    H100: {price: 1, life_years: 1, resale: 2}": (
        "s.yaml:3: cost.gpu_purchase.H100.resale: unknown key; known here: price, life_years, residual_value"
    ),
    # units
    "sampling: {power: 100}": "s.yaml:1: sampling.power: 100 has no unit; write for example 100s or 100ms",
    'sampling: {power: "100"}': "s.yaml:1: sampling.power: 100 has no unit; write for example 100s or 100ms",
    "sampling:\n  tokens: 1sec": (
        "s.yaml:2: sampling.tokens: '1sec' is not a duration; write a whole number and ms, s, m, h or d, for example 100ms, 1s, 5m"
    ),
    "store: {keep: 1y}": (
        "s.yaml:1: store.keep: '1y' is not a duration; write a whole number and ms, s, m, h or d, for example 100ms, 1s, 5m"
    ),
    # impossible durations
    "sampling: {power: 0ms}": "s.yaml:1: sampling.power: '0ms' is out of bounds; write 20ms to 1s",
    "sampling: {power: 5ms}": "s.yaml:1: sampling.power: '5ms' is out of bounds; write 20ms to 1s",
    "sampling: {tokens: 1m}": "s.yaml:1: sampling.tokens: '1m' is out of bounds; write 200ms to 5s",
    "sampling: {power: -1s}": (
        "s.yaml:1: sampling.power: '-1s' is not a duration; write a whole number and ms, s, m, h or d, for example 100ms, 1s, 5m"
    ),
    "sampling:\n  power: 500ms\n  tokens: 200ms": (
        "s.yaml:2: sampling.power: power every 500ms is coarser than tokens every 200ms; write a power period of at most 200ms"
    ),
    "sampling:\n  tokens: 200ms\n  power: 1s\n": (
        "s.yaml:3: sampling.power: power every 1s is coarser than tokens every 200ms; write a power period of at most 200ms"
    ),
    # windows
    "windows: [10s, 1m,\n  25h]": "s.yaml:2: windows[2]: '25h' cannot be a window; write whole seconds, 1s to 24h",
    "windows: [1500ms]": "s.yaml:1: windows[0]: '1500ms' cannot be a window; write whole seconds, 1s to 24h",
    "windows:\n- 1m\n- 5m\n- 60s": "s.yaml:4: windows[2]: 1m is given twice; remove one of the two",
    "windows: 1m": "s.yaml:1: windows: '1m' is not a list; write it in brackets: [...]",
    "windows: []": "s.yaml:1: windows: is empty; write at least one window, for example [1m]",
    "windows: [1s, 1m]": ("s.yaml:1: windows[0]: 1s is shorter than two readings of a server; write at least 2s, or lower sampling.tokens"),
    "windows: [1m, 1h]\nmetrics:\n  windows: [1m, 7m]": (
        "s.yaml:3: metrics.windows: 7m is not among windows; write one of 1m, 1h, or add it to windows"
    ),
    # addresses
    "listen: 28900": "s.yaml:1: listen: 28900 is not an address; write host:port, for example 127.0.0.1:28900",
    "listen: localhost": "s.yaml:1: listen: 'localhost' has no port; write host:port, for example 127.0.0.1:28900",
    "listen: 127.0.0.1:99999": "s.yaml:1: listen: '127.0.0.1:99999' has no port that exists; write host:port with a port of 0 to 65535",
    'listen: ":80"': ("s.yaml:1: listen: ':80' has no host; write 127.0.0.1:80 for this machine only, 0.0.0.0:80 for every interface"),
    'listen: "::1:80"': "s.yaml:1: listen: '::1:80' has no host that can be; write [::1]:80",
    "listen: null": "s.yaml:1: listen: nothing is not an address; write host:port, for example 127.0.0.1:28900",
    # servers
    "servers:\n  - name: a": "s.yaml:2: servers[0].url: is missing; write for example url: http://127.0.0.1:8000",
    "servers: [{url: 127.0.0.1:8000}]": (
        "s.yaml:1: servers[0].url: '127.0.0.1:8000' is not an http or https URL; write http://127.0.0.1:8000"
    ),
    'servers: [{url: "http://a:70000"}]': (
        "s.yaml:1: servers[0].url: 'http://a:70000' is not a URL with a host and a port of 1 to 65535; write for example http://127.0.0.1:8000"
    ),
    "servers: [{url: http://a:1/v1}]": (
        "s.yaml:1: servers[0].url: 'http://a:1/v1' is the root of the server's API; write the URL without /v1"
    ),
    "servers:\n  - {name: a, url: http://a:1}\n  - name: a\n    url: http://a:2": (
        "s.yaml:3: servers[1].name: 'a' is the name of servers[0] too; write another name"
    ),
    "servers:\n  - {url: http://localhost:8000}\n  - {name: b, url: http://127.0.0.1:8000/}": (
        "s.yaml:3: servers[1].url: 'http://127.0.0.1:8000' is the server of servers[0] too; remove one of the two"
        " (its gpus and name go to one entry)"
    ),
    "servers: [{url: http://a:1, engine: generic, counters: {prompt_cached: c}}]": (
        "s.yaml:1: servers[0].counters: names only prompt_cached, a part of the prompt; name prompt or generation too"
    ),
    "servers: [{url: http://a:1, engine: vlm}]": "s.yaml:1: servers[0].engine: 'vlm' is not an engine; write vllm",
    "servers: [{url: http://a:1, engine: 7}]": f"s.yaml:1: servers[0].engine: 7 is not an engine; write one of {ENGINES}",
    "servers: [{url: http://a:1, gpus: [0, -1]}]": (
        "s.yaml:1: servers[0].gpus[1]: -1 is not a GPU; write an index such as 0, or a UUID such as nvidia-smi -L prints: GPU-..."
    ),
    "servers: [{url: http://a:1, gpus: [true]}]": (
        "s.yaml:1: servers[0].gpus[0]: true is not a GPU; write an index such as 0, or a UUID such as nvidia-smi -L prints: GPU-..."
    ),
    "servers: [{url: http://a:1, gpus: [MIG-1]}]": (
        "s.yaml:1: servers[0].gpus[0]: 'MIG-1' is a MIG instance, which has no power of its own; write the index or UUID of its board"
    ),
    'servers: [{url: http://a:1, gpus: [1, "1"]}]': "s.yaml:1: servers[0].gpus[1]: 1 is given twice; remove one of the two",
    "servers: [{url: http://a:1, gpus: []}]": (
        "s.yaml:1: servers[0].gpus: is empty; name at least one GPU, or leave the key out to have them found"
    ),
    "servers: [{url: http://a:1, gpus: 0}]": "s.yaml:1: servers[0].gpus: 0 is not a list; write it in brackets: [...]",
    "servers: [{url: http://a:1, name: 5}]": 's.yaml:1: servers[0].name: 5 is not text; write it in quotes: "5"',
    "servers: [{url: http://a:1, name: retired}]": (
        "s.yaml:1: servers[0].name: 'retired' is the name that servers gone for a day share; write another name"
    ),
    'servers: [{url: http://a:1, name: "a\\nb"}]': (
        "s.yaml:1: servers[0].name: 'a\\nb' cannot be a name; write up to 128 printable characters, no spaces around them"
    ),
    "servers: [{url: http://a:1, metrics_path: metrics}]": (
        "s.yaml:1: servers[0].metrics_path: 'metrics' is not a path; write for example /metrics (without a query)"
    ),
    "servers: [{url: http://a:1, api_key_file: ~/key}]": (
        "s.yaml:1: servers[0].api_key_file: '~/key' has a ~, which only a shell expands; write the whole path"
    ),
    "servers: [{url: http://a:1,\n  tls: {insecure_skip_verify: true}}]": (
        "s.yaml:2: servers[0].tls: is for https, and the url is http; write an https url, or remove tls"
    ),
    "servers: [{url: http://a:1, tokens: all}]": "s.yaml:1: servers[0].tokens: 'all' is not known; write none",
    "servers: {url: http://a:1}": "s.yaml:1: servers: a mapping is not a list; write it in brackets: [...]",
    "servers: [http://a:1]": "s.yaml:1: servers[0]: 'http://a:1' is not a mapping; write keys below it",
    # costs and carbon
    "cost: {pue: 0.9}": "s.yaml:1: cost.pue: 0.9 is out of bounds; write a number of at least 1 and at most 10, for example 1.2",
    "cost: {pue: .nan}": "s.yaml:1: cost.pue: nan is not a finite number; write for example 1.2",
    "cost: {energy_price_per_kwh: -0.1}": (
        "s.yaml:1: cost.energy_price_per_kwh: -0.1 is out of bounds; write a number of at least 0, for example 0.25"
    ),
    "cost: {energy_price_per_kwh: .inf}": "s.yaml:1: cost.energy_price_per_kwh: inf is not a finite number; write for example 0.25",
    'cost: {energy_price_per_kwh: "0,25"}': (
        "s.yaml:1: cost.energy_price_per_kwh: '0,25' is not a number; write the decimals after a point: 0.25"
    ),
    "cost: {host_watts: 0}": (
        "s.yaml:1: cost.host_watts: 0 is out of bounds; write a number of more than 0 and at most 1e+06, for example 400"
    ),
    "cost: {currency: usd}": "s.yaml:1: cost.currency: 'usd' is not a currency code; write USD",
    "cost: {currency: $}": "s.yaml:1: cost.currency: '$' is not a currency code; write three capital letters, for example USD or EUR",
    "cost: {gpu_hourly: {NVIDIA H100: -1}}": (
        "s.yaml:1: cost.gpu_hourly['NVIDIA H100']: -1 is out of bounds; write a number of at least 0, for example 0.25"
    ),
    "cost: {gpu_hourly_includes: [energy, hosts]}": "s.yaml:1: cost.gpu_hourly_includes[1]: 'hosts' is not known; write host",
    "cost: {gpu_purchase: {A: {price: 5, life_years: 4, residual_value: 6}}}": (
        "s.yaml:1: cost.gpu_purchase.A.residual_value: 6 is more than the price; write at most 5"
    ),
    "cost:\n  gpu_hourly: {A: 1}\n  gpu_purchase:\n    A: {price: 5, life_years: 4}": (
        "s.yaml:4: cost.gpu_purchase.A: has an hourly rate in gpu_hourly too; keep one of the two"
    ),
    "cost:\n  energy_price_per_kwh: 0.2\n  source: {url: http://a, json_path: b}": (
        "s.yaml:3: cost.source: cannot go with energy_price_per_kwh; keep one of the two"
    ),
    "cost: {source: {url: http://a}}": ("s.yaml:1: cost.source: does not say what to read; add json_path, or prometheus with a query"),
    "cost:\n  tariff:\n    timezone: Europe/Berln\n    periods: [{price: 1}]": (
        "s.yaml:3: cost.tariff.timezone: 'Europe/Berln' is no time zone that this machine knows; write Europe/Berlin"
    ),
    "cost: {tariff: {timezone: UTC, periods: []}}": (
        "s.yaml:1: cost.tariff.periods: is empty; write at least one period, for example {price: 0.25}"
    ),
    "cost: {tariff: {timezone: UTC, periods: [{price: 1, months: [13]}]}}": (
        "s.yaml:1: cost.tariff.periods[0].months[0]: 13 is not a month; write a number of 1 to 12"
    ),
    "cost: {tariff: {timezone: UTC, periods: [{price: 1, days: [mo]}]}}": (
        "s.yaml:1: cost.tariff.periods[0].days[0]: 'mo' is not known; write mon"
    ),
    'cost: {tariff: {timezone: UTC, periods: [{price: 1, start: "24:01"}]}}': (
        "s.yaml:1: cost.tariff.periods[0].start: '24:01' is not a time of day; write HH:MM, 00:00 to 24:00"
    ),
    "cost: {tariff: {timezone: UTC, periods: [{price: 1, start: 10:00, end: 10:00}]}}": (
        "s.yaml:1: cost.tariff.periods[0].end: is also the start, so that the period has no length; write a later time"
    ),
    "carbon: {factor: lifecyle}": "s.yaml:1: carbon.factor: 'lifecyle' is not known; write lifecycle",
    # shapes
    "sampling: 100ms": "s.yaml:1: sampling: '100ms' is not a mapping; write keys below it",
    "cost: {gpu_hourly: 2}": "s.yaml:1: cost.gpu_hourly: 2 is not a mapping; write keys below it",
    "host: [auto]": "s.yaml:1: host: a list is not known; write auto or off",
    "discovery: {local: maybe}": "s.yaml:1: discovery.local: 'maybe' is neither true nor false; write true or false",
}


@pytest.mark.parametrize(("text", "line"), ONE_PROBLEM.items(), ids=[t.replace("\n", " ")[:60] for t in ONE_PROBLEM])
def test_one_problem(refused: Refused, text: str, line: str) -> None:
    assert refused(text) == [line]


def test_all_problems_are_told_in_the_order_of_the_file(refused: Refused) -> None:
    text = """\
cost: {pue: 0}
servers:
  - {name: a, url: http://a:1}
  - {name: a, url: nonsense}
  - {name: c, url: http://a:1}
listen: here
listn: there
listen: 127.0.0.1:1
"""
    environ = {"TOKENWATT_HOST": "on", "TOKENWATT_SAMPLING_POWER": "1"}
    assert [line.split("; ")[0] for line in refused(text, environ, {"sampling.tokens": "2"})] == [
        "s.yaml:1: cost.pue: 0 is out of bounds",
        "s.yaml:4: servers[1].url: 'nonsense' is not an http or https URL",
        "s.yaml:4: servers[1].name: 'a' is the name of servers[0] too",
        "s.yaml:5: servers[2].url: 'http://a:1' is the server of servers[0] too",
        "s.yaml:6: listen: 'here' has no port",
        "s.yaml:7: listn: unknown key",
        "s.yaml:8: listen: is given twice, first in line 6",
        "--sampling-tokens: sampling.tokens: 2 has no unit",
        "TOKENWATT_HOST: host: 'on' is not known",
        "TOKENWATT_SAMPLING_POWER: sampling.power: 1 has no unit",
    ]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://user:hunter2@a:1", "'http://***@a:1' holds a user or a password"),
        ("http://user:hun/ter2@a:1", "'http://***@a:1'"),
        ("user:hunter2@a:1", "'***@a:1' is not an http or https URL"),
        ("http://a:1/?key=hunter2", "'http://a:1/?***' has a query"),
        ("a:1/?key=hunter2", "'a:1/?***' is not an http or https URL"),
    ],
)
def test_a_message_repeats_no_secret_of_a_url(refused: Refused, url: str, said: str) -> None:
    [line] = refused(f'servers: [{{url: "{url}"}}]')
    assert said in line
    assert "hunter2" not in line
    assert "ter2" not in line


def test_a_message_is_one_printable_line(refused: Refused) -> None:
    [line] = refused('"k\\e[31m\\u2028\\r\\n": 1\n')
    assert line.startswith("s.yaml:1: ['k\\x1b[31m\\u2028\\r\\n']: unknown key; known here: listen, ")
    [line] = refused(f'host: "\\e]0;{"x" * 500}"')
    assert "\x1b" not in line
    assert len(line) < 150


def test_what_two_sources_say_is_blamed_on_the_one_that_was_given(refused: Refused) -> None:
    assert refused("", {"TOKENWATT_SAMPLING_TOKENS": "200ms"}, {"sampling.power": "1s"})[0].startswith("--sampling-power: sampling.power: ")
    [line] = refused("metrics: {windows: [1m]}", {"TOKENWATT_WINDOWS": "5m,1h"})
    assert line.startswith("s.yaml:1: metrics.windows: 1m is not among windows; write one of 5m, 1h")
    [line] = refused("", {"TOKENWATT_COST_SOURCE_URL": "http://a"})
    assert line.startswith("TOKENWATT_COST_SOURCE_URL: cost.source: does not say what to read")


def test_a_wrong_value_that_something_stronger_replaces_is_not_in_the_way(load_text: Load) -> None:
    assert load_text("listen: wrong", {"TOKENWATT_LISTEN": "127.0.0.1:1"}).settings.listen == "127.0.0.1:1"
