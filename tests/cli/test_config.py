"""``tokenwatt config check`` and ``show``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tokenwatt.cli import main
from tokenwatt.settings.load import load


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("TOKENWATT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text('servers:\n  - {url: "http://127.0.0.1:8000"}\n')
    return path


def test_check_of_a_good_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--config", str(file)]) == 0
    assert tuple(capsys.readouterr()) == (f"{file}: fine\n", "")


def test_check_warns(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("store: {keep: 1d}\n")
    monkeypatch.setenv("TOKENWATT_PORT", "tcp://10.0.0.1:28900")
    assert main(["config", "check", "--config", str(file)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{file}: fine\n"
    assert said.err == (
        "tokenwatt: warning: variables that are no settings, ignored: TOKENWATT_PORT\n"
        f"tokenwatt: warning: {file}:1: store.keep: is read but not used by this version\n"
    )


def test_check_tells_all_that_is_wrong(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("host: of\nlisten: 1\n")
    assert main(["config", "check", "--config", str(file)]) == 1
    assert tuple(capsys.readouterr()) == (
        "",
        f"tokenwatt: {file}:1: host: 'of' is not known; write off\n"
        f"tokenwatt: {file}:2: listen: 1 is not an address; write host:port, for example 127.0.0.1:28900\n",
    )


def test_check_of_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--config", str(tmp_path / "no")]) == 1
    assert capsys.readouterr().err == (
        f"tokenwatt: {tmp_path / 'no'}: cannot be read: no such file or directory; give the path of a YAML file\n"
    )


def test_the_file_may_be_named_by_the_environment(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["config", "check"]) == 0
    assert capsys.readouterr().out == "no settings file, the defaults hold: fine\n"
    monkeypatch.setenv("TOKENWATT_CONFIG", str(file))
    assert main(["config", "check"]) == 0
    assert capsys.readouterr().out == f"{file}: fine\n"
    monkeypatch.setenv("TOKENWATT_CONFIG", "/nowhere")
    assert main(["config", "check", "--config", str(file)]) == 0


def test_show_is_the_settings_in_force(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--config", str(file), "--listen", "127.0.0.1:0"]) == 0
    said = capsys.readouterr()
    assert "listen: 127.0.0.1:0  # --listen\n" in said.out
    assert said.err == ""
    again = tmp_path / "again.yaml"
    again.write_text(said.out)
    assert load(again, {}, {}).settings == load(file, {}, {"listen": "127.0.0.1:0"}).settings
