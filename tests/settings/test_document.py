"""Files that are no settings files at all: one sentence each. And what YAML allows."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.settings.conftest import Load, Refused
from tokenwatt.settings.load import load
from tokenwatt.settings.problems import SettingsError
from tokenwatt.snapshot import Window

BAD_YAML = {
    "sampling:\n\tpower: 100ms": (
        "s.yaml:2: is not YAML: found character '\\t' that cannot start any token; YAML indents with spaces, not tabs"
    ),
    "listen: a: b": (
        "s.yaml:1: is not YAML: mapping values are not allowed here; indent keys of one level alike, and put text that holds ': ' in quotes"
    ),
    "a: 1\nlisten": "s.yaml:2: is not YAML: could not find expected ':'; write 'key: value'",
    "sampling:\n    power: 100ms\n  tokens: 1s": (
        "s.yaml:3: is not YAML: expected <block end>, but found '<block mapping start>'; indent keys of one level alike"
    ),
    "windows: [1m": (
        "s.yaml:1: is not YAML: expected ',' or ']', but got '<stream end>';"
        " close the bracket or brace, and separate what is in it by commas"
    ),
    'listen: "127': "s.yaml:1: is not YAML: found unexpected end of stream; close the quote",
    "listen: *a": "s.yaml:1: is not YAML: found undefined alias 'a'; define the anchor with & before it is used with *",
    "host: auto\n---\nhost: off": "s.yaml:2: is not YAML: but found another document; remove the line with ---",
    "host: @auto": "s.yaml:1: is not YAML: found character '@' that cannot start any token; put the text in quotes",
    "host: auto\n# \x07": "s.yaml:2: is not YAML: special characters are not allowed; remove the control character",
    "- a": "s.yaml:1: is not a mapping; write 'key: value' lines, for example 'listen: 127.0.0.1:28900'",
    "\n\nlisten": "s.yaml:3: is not a mapping; write 'key: value' lines, for example 'listen: 127.0.0.1:28900'",
    "listen: 127.0.0.1:1\nhost: auto\nlisten: 127.0.0.1:1": "s.yaml:3: listen: is given twice, first in line 1; remove one of the two",
    "sampling:\n  power: 1s\n  power: 1s": "s.yaml:3: sampling.power: is given twice, first in line 2; remove one of the two",
    "? [a]\n: b": "s.yaml:1: a key is a list or a mapping; write text before the colon",
    "host: !!python/name:os.system auto": "s.yaml:1: host: the tag tag:yaml.org,2002:python/name:os.system means nothing here; remove it",
    "windows: &a [*a]": "s.yaml:1: is nested more than 20 levels deep, counting aliases; remove the alias or the nesting",
    "<<: 5": "s.yaml:1: ['<<']: takes mappings that merge nothing themselves; write <<: *anchor",
    "[" * 900: "s.yaml: is nested too deeply; the settings have at most 5 levels",
    "a: " + "[" * 30 + "]" * 30: "s.yaml:1: is nested more than 20 levels deep, counting aliases; remove the alias or the nesting",
}


@pytest.mark.parametrize(("text", "line"), BAD_YAML.items(), ids=[repr(t[:40]) for t in BAD_YAML])
def test_bad_yaml(refused: Refused, text: str, line: str) -> None:
    assert refused(text) == [line]


def test_a_short_file_that_is_a_billion_values_is_refused(refused: Refused) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    [line] = refused(bomb)
    assert line == "s.yaml:1: holds more than 50000 values, counting aliases; remove the alias or the nesting"


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "null\n", "---\n", "{}", "servers:\ncost:\n  # pue: 1.2\nwindows: [1m]\n"])
def test_nothing_means_the_defaults(load_text: Load, text: str) -> None:
    settings = load_text(text).settings
    assert settings.listen == "127.0.0.1:28900"
    assert settings.servers == ()
    assert settings.cost.pue == 1.0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xfe\x00", ":1: is not text in UTF-8; give a YAML file saved as UTF-8"),
        (b"host: auto\nlisten: \xe9", ":2: is not text in UTF-8; give a YAML file saved as UTF-8"),
        (b"host: a\x00", ": is not a text file; give a YAML file"),
        (b"#" * 600_000, ": is larger than 512 KiB; give a settings file"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(data)
    with pytest.raises(SettingsError) as caught:
        load(path, {}, {})
    assert str(caught.value) == f"{path}{said}"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^.*/no\.yaml: cannot be read: no such file or directory; give the path of a YAML file$"):
        load(tmp_path / "no.yaml", {}, {})
    with pytest.raises(SettingsError, match="cannot be read: is a directory"):
        load(tmp_path, {}, {})


def test_a_byte_order_mark_and_windows_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes("\ufeffhost: auto\r\nlisten: 127.0.0.1:1\r\n".encode())
    loaded = load(path, {}, {})
    assert loaded.settings.listen == "127.0.0.1:1"
    assert loaded.origins["listen"] == f"{path}:2"


def test_a_pipe_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("listen: 127.0.0.1:1",))
    writer.start()
    assert load(path, {}, {}).settings.listen == "127.0.0.1:1"
    writer.join()


def test_anchors_and_merges(load_text: Load) -> None:
    settings = load_text("""\
windows: &short [1m, 5m]
metrics: {windows: *short}
servers:
  - &base {url: "https://a:1", tls: {insecure_skip_verify: true}, gpus: [0]}
  - {<<: *base, url: "https://a:2"}
""").settings
    assert settings.metrics.windows == settings.windows == (Window("1m", 60_000_000_000), Window("5m", 300_000_000_000))
    assert [s.url for s in settings.servers] == ["https://a:1", "https://a:2"]
    assert all(s.tls.insecure_skip_verify and s.gpus == (0,) for s in settings.servers)


def test_words_mean_what_they_say(load_text: Load) -> None:
    # YAML 1.1 makes off and no booleans, 22:00 a number, and 1_0 ten.
    settings = load_text("""\
host: off
probes_without_auth: yes
servers: [{name: no, url: "http://a:1", group: 1_0}]
cost: {pue: !!float "1.5", tariff: {timezone: UTC, periods: [{start: 22:00, end: 06:00, price: 1e-1}]}}
""").settings
    assert settings.host == "off"
    assert settings.probes_without_auth is True
    assert (settings.servers[0].name, settings.servers[0].group) == ("no", "1_0")
    assert settings.cost.pue == 1.5
    assert settings.cost.tariff is not None
    [period] = settings.cost.tariff.periods
    assert (period.start_minutes, period.end_minutes, period.price) == (22 * 60, 6 * 60, 0.1)
