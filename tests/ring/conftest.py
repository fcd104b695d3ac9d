import importlib
import os
from typing import Literal, cast

import pytest

from tokenwatt.ring import Ring


def load(implementation: Literal["c", "python"]) -> type[Ring]:
    """The Ring of one implementation. Without the extension its tests are skipped, but not where nobody would see that."""
    name = "tokenwatt.ring._ring" if implementation == "c" else "tokenwatt.ring._twin"
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("CI"):
            pytest.fail(f"the C ring is not built: {error}")
        pytest.skip(f"the C ring is not built: {error}")
    return cast(type[Ring], module.Ring)


@pytest.fixture(params=["c", "python"])
def ring_type(request: pytest.FixtureRequest) -> type[Ring]:
    return load(request.param)


@pytest.fixture
def both(request: pytest.FixtureRequest) -> tuple[type[Ring], type[Ring]]:
    """(C, Python), for tests that hold one against the other."""
    return load("c"), load("python")
