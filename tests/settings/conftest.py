"""Settings files written for one test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tokenwatt.settings.load import Loaded, load
from tokenwatt.settings.problems import SettingsError

Load = Callable[..., Loaded]
Refused = Callable[..., list[str]]


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    """Load a file of this text."""

    def read(text: str, environ: Mapping[str, str] | None = None, flags: Mapping[str, str] | None = None) -> Loaded:
        path = tmp_path / "s.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, environ or {}, flags or {})

    return read


@pytest.fixture
def refused(tmp_path: Path, load_text: Load) -> Refused:
    """Load a file that must be refused; the lines of the error, with the file called s.yaml."""

    def read(text: str, environ: Mapping[str, str] | None = None, flags: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            load_text(text, environ, flags)
        assert str(caught.value) == "\n".join(caught.value.problems)
        return [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]

    return read
