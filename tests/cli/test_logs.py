"""Log lines: one a record, whatever is in it."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwatt import logs


@pytest.fixture(autouse=True)
def _handlers_go_with_the_test() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in [h for h in root.handlers if h not in before]:
        root.removeHandler(handler)
    root.setLevel(level)


def line(message: str, name: str = "tokenwatt", **record: object) -> str:
    return logs.Logfmt().format(logging.makeLogRecord({"msg": message, "name": name, "levelname": "INFO", "created": 1.5, **record}))


def test_a_line() -> None:
    assert line('GPU "0" is lost') == 'time=1970-01-01T00:00:01.500Z level=info logger=tokenwatt msg="GPU \\"0\\" is lost"'


@given(st.text())
def test_a_message_is_one_line_and_can_be_read_back(message: str) -> None:
    written = line(message)
    assert len(written.splitlines()) == 1
    assert not re.search("[\x00-\x1f\x7f-\x9f]", written)
    assert json.loads(written.partition(" msg=")[2]) == message


@given(st.text())
def test_a_name_cannot_forge_a_key(name: str) -> None:
    assert re.fullmatch(r'time=\S+ level=info logger=([\w.-]+|"([^"\\]|\\.)*") msg="m"', line("m", name), re.ASCII | re.DOTALL)


def test_a_traceback_is_part_of_the_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        written = line("it failed", exc_info=sys.exc_info())
    assert len(written.splitlines()) == 1
    assert ' exc="Traceback (most recent call last):\\n' in written
    assert written.endswith('ValueError: two\\nlines"')


def test_setup_writes_to_stderr_once_and_from_the_level_on(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("debug")
    logs.setup("INFO")
    logging.getLogger("tokenwatt.x").debug("no")
    logging.getLogger("tokenwatt.x").info("server %s is up", "a")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith(' level=info logger=tokenwatt.x msg="server a is up"\n')
    assert said.err.count("\n") == 1


def test_a_level_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="no log level 'loud'; write one of DEBUG, INFO, WARNING, ERROR"):
        logs.setup("loud")
