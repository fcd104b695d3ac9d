"""What one server is to us: where it is and how it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """One server to read. ``url`` is its base (http or https, a path prefix is kept); ``engine`` a name in ``ENGINES``, or ``auto``.

    ``metrics_path`` None is the engine's own. ``api_key_file`` holds a bearer token and is read again when it changes.
    """

    name: str
    url: str
    engine: str = "auto"
    metrics_path: str | None = None
    api_key_file: Path | None = None
    ca_file: Path | None = None
    insecure_skip_verify: bool = False
