from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.llamacpp.server import LlamaServer

HERE = Path(__file__).parent

Start = Callable[..., LlamaServer]


@pytest.fixture(scope="session")
def home(request: pytest.FixtureRequest) -> Path:
    """Where install.sh put everything."""
    chosen = str(request.config.option.markexpr)
    if "llamacpp" not in chosen or "not llamacpp" in chosen:
        pytest.skip("needs a download: make test-llamacpp")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "tokenwatt" / "llamacpp"
    if not (home / "bin" / "python").exists():
        assert not os.environ.get("CI"), f"no llama-server in {home}"
        pytest.skip(f"no llama-server in {home}: make test-llamacpp installs it")
    return home


@pytest.fixture(scope="session")
def executable(home: Path) -> Path:
    """The llama-server: one's own build, where LLAMA_SERVER names it."""
    return Path(os.environ.get("LLAMA_SERVER") or home / "llama-server")


@pytest.fixture(scope="session")
def model(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tiny model."""
    file = tmp_path_factory.mktemp("models") / "tiny.gguf"
    subprocess.run([home / "bin" / "python", HERE / "tiny_model.py", file], check=True)
    return file


@pytest.fixture
def start(executable: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts llama-servers with the options given; they end with the test."""
    with ExitStack() as servers:

        def start(*options: str) -> LlamaServer:
            server = LlamaServer(executable, tmp_path / "log", *options)
            servers.callback(server.stop)
            return server.ready()

        yield start


@pytest.fixture
def server(start: Start, model: Path) -> LlamaServer:
    """One with counters."""
    return start("--model", str(model), "--alias", "tiny", "--metrics")
