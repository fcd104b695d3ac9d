"""Why an answer of a server cannot be used."""

from __future__ import annotations


class Unusable(Exception):
    """There is no answer, or none that can be used. The text is one sentence for people, without a full stop.

    ``gone``: nobody listens any more. ``rejected``: the page was read, but holds a value that no server can mean. ``not_metered``: the name
    of the software, where it is a known one that has no token counters, or has them switched off.
    """

    def __init__(self, reason: str, *, gone: bool = False, rejected: bool = False, not_metered: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.gone = gone
        self.rejected = rejected
        self.not_metered = not_metered
