"""What names and instants look like outside."""

from __future__ import annotations

from datetime import UTC, datetime


def encodable(text: str) -> str:
    """``text``, with what UTF-8 cannot hold replaced by "?".

    A server may name its model with half a surrogate pair (JSON allows ``"\\ud800"``): one such label must not take down the whole page.
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def rfc3339(wall_s: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
