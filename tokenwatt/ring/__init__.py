"""Counter rings: cumulative values over time, in memory that never grows.

``Ring`` is written twice, in C (``_ring``) and in Python (``_twin``), with the same answers to the bit. ``IMPLEMENTATION`` says which one
runs, ``"c"`` or ``"python"``: Python where the extension is not built, or where the environment has ``TOKENWATT_PURE_PYTHON=1``.
"""

import os
from typing import TYPE_CHECKING, Literal

__all__ = ["IMPLEMENTATION", "Ring"]

if TYPE_CHECKING:
    from tokenwatt.ring._twin import Ring

    IMPLEMENTATION: Literal["c", "python"]
elif os.environ.get("TOKENWATT_PURE_PYTHON") == "1":
    from tokenwatt.ring._twin import Ring

    IMPLEMENTATION = "python"
else:
    try:
        from tokenwatt.ring._ring import Ring

        IMPLEMENTATION = "c"
    except ImportError:
        from tokenwatt.ring._twin import Ring

        IMPLEMENTATION = "python"
