"""What one server is to us: where it is and how it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """One server to read. ``url`` is its base (http or https, a path prefix is kept).

    ``engine`` is a name in ``ENGINES``, ``generic`` or ``auto``; ``metrics_path`` None the engine's own. ``api_key_file`` holds a bearer
    token and is read again when it changes.
    """

    name: str
    url: str
    engine: str = "auto"
    metrics_path: str | None = None
    api_key_file: Path | None = None
    ca_file: Path | None = None
    insecure_skip_verify: bool = False
    counters: tuple[str | None, str | None, str | None] | None = None
    """Of engine generic: the names of its counters of prompt, cached prompt and generation tokens."""
    tokens: bool = True
    """False: a member of a server that spans nodes, whose tokens are counted elsewhere. Its page is read for whether it works."""
    namespace: Path | None = None
    """The network namespace that it listens in (/proc/PID/ns/net). None: our own."""
