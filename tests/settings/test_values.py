"""Single values: what is written is read back, and nothing else is taken."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwatt.settings import addresses, values
from tokenwatt.snapshot import Window

MS_NS = 1_000_000
DAY_NS = 86_400_000 * MS_NS


@given(st.integers(0, 400 * 86_400_000).map(lambda ms: ms * MS_NS))
def test_durations_are_read_as_they_are_written(ns: int) -> None:
    assert values.duration_ns(values.duration_text(ns)) == ns


@given(st.integers(1, 86_400))
def test_a_window_has_one_label_however_it_is_written(seconds: int) -> None:
    window = values.window(f"{seconds}s")
    assert window.span_ns == seconds * 1000 * MS_NS
    assert values.window(window.label) == window
    assert window.label[-1] == ("h" if seconds % 3600 == 0 else "m" if seconds % 60 == 0 else "s")


@pytest.mark.parametrize(
    ("written", "label"), [("10s", "10s"), ("60s", "1m"), ("300s", "5m"), ("60m", "1h"), ("24h", "24h"), ("1d", "24h"), ("90s", "90s")]
)
def test_labels_of_windows(written: str, label: str) -> None:
    assert values.window(written) == Window(label, values.duration_ns(written))


READERS: tuple[Callable[[object], object], ...] = (
    values.duration_ns, values.window, values.boolean, values.number(0, example="1"), values.text, values.name, values.gpu, values.currency,
    values.time_of_day_minutes, addresses.listen_address, addresses.server_url, addresses.source_url, addresses.metrics_path,
)  # fmt: skip


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers())))
def test_readers_take_a_value_or_say_why_not(value: object) -> None:
    for read in READERS:
        said = _refusal(read, value)
        assert said is None or ("; write " in said and said.isprintable())


def _refusal(read: Callable[[object], object], value: object) -> str | None:
    try:
        read(value)
    except ValueError as e:
        return str(e)
    return None


@given(st.text(), st.text(alphabet=st.characters(blacklist_characters="@")))
def test_masked_shows_neither_password_nor_query(secret: str, host: str) -> None:
    assert values.masked(f"http://user:{secret}@h") == "http://***@h"
    assert values.masked(f"http://h/?{secret}") in ("http://h/?***", "http://***@" + secret.rpartition("@")[2].partition("?")[0])
    assert values.masked(host) == host or "?" in host


def test_plain_words_follow_yaml_1_2() -> None:
    assert [values.plain(w) for w in ("", "~", "null", "true", "False", "7", "-7", "1.5", "1e3", ".5", "-.inf")] == [
        None, None, None, True, False, 7, -7, 1.5, 1000.0, 0.5, -math.inf,
    ]  # fmt: skip
    assert math.isnan(float(str(values.plain(".nan"))))
    for word in ("off", "no", "1_0", "12:30", "0x10", "nan", "1.2.3", "2026-01-01", "9" * 19 + "x", "127.0.0.1"):
        assert values.plain(word) == word


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::]:28900", "::", 28900),
        ("[fe80::1%eth0]:65535", "fe80::1%eth0", 65535),
        ("localhost:1", "localhost", 1),
    ],
)
def test_listen_addresses(address: str, host: str, port: int) -> None:
    assert addresses.split_address(addresses.listen_address(address)) == (host, port)


@pytest.mark.parametrize(
    "address", ["", ":", "a", "a:", "a:-1", "a:65536", "a b:1", "[::1]", "[::1:1", "::1:1", "1.2.3:1", "256.1.1.1:1", "-a:1", "a..b:1"]
)
def test_no_listen_addresses(address: str) -> None:
    with pytest.raises(ValueError, match="; write "):
        addresses.listen_address(address)


def test_urls_of_one_endpoint_are_known_as_such() -> None:
    same = [
        addresses.url_key(addresses.server_url(u)) for u in ("http://localhost:8000", "http://127.0.0.1:8000/", "HTTP://LOCALHOST:8000")
    ]
    assert len(set(same)) == 1
    assert addresses.url_key("https://a") == addresses.url_key("https://A.:443")
    assert addresses.url_key("http://a:1/x") != addresses.url_key("http://a:1/y")
    assert addresses.server_url("http://[::1]:8000/base/") == "http://[::1]:8000/base"
