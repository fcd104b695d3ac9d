"""The core alone, without Python: compiled with every warning an error, and run under the sanitizers."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "tokenwatt" / "ring"
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror"]


@pytest.fixture
def gcc() -> str:
    path = shutil.which("gcc")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no gcc")
        pytest.skip("no gcc")
    return path


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_core_agrees_with_its_model_under_the_sanitizers(gcc: str, tmp_path: Path) -> None:
    program = tmp_path / "test_core"
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    sources = [HERE / "c" / "test_core.c", SOURCES / "core.c"]
    run(gcc, *STRICT, "-g", "-O1", *sanitize, "-I", SOURCES, *sources, "-o", program)
    # A preloaded library (of a tracing tool, say) comes before the sanitizer's own, which is harmless but refused by default.
    options = {"ASAN_OPTIONS": "detect_leaks=1:verify_asan_link_order=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    assert run(program, env=options).startswith("ok ")


@pytest.mark.parametrize("source", ["core.c", "_ring.c"])
def test_the_analyzer_finds_nothing(gcc: str, tmp_path: Path, source: str) -> None:
    include = sysconfig.get_paths()["include"]
    if source == "_ring.c" and not Path(include, "Python.h").exists():
        pytest.skip("no Python headers")
    python = ["-DPy_LIMITED_API=0x030B0000", "-isystem", include]
    run(gcc, *STRICT, "-O2", "-fPIC", "-fanalyzer", *python, "-c", SOURCES / source, "-o", tmp_path / "out.o")
