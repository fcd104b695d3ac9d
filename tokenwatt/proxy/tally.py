"""What was metered and what could not be, and why."""

from __future__ import annotations

import logging
from collections import Counter
from enum import Enum

log = logging.getLogger("tokenwatt.proxy")


class Unmetered(Enum):
    """Why tokens of an answer, or of what follows on a connection, are not known. They are never guessed."""

    STREAM_WITHOUT_USAGE = (
        'A stream ended without usage, so its tokens are not known; its client should send "stream_options": {"include_usage": true}'
    )
    WITHOUT_USAGE = "An answer came without usage, so its tokens are not known; its server does not tell them"
    CUT_OFF = "A connection ended before its answer told its usage, so its tokens are not known"
    TOO_LARGE = "An answer was too large to look for its usage (a line of more than 1 MiB, or a body of more than 4 MiB)"
    NOT_DECODED = "An answer came in a coding that is not read here (gzip and deflate are), so its tokens are not known"
    NOT_READ = "An answer was neither JSON nor a stream of it, so its tokens are not known"
    WRONG_USAGE = "An answer told a usage that cannot be, and was not counted"
    UPGRADED = "A connection changed to another protocol (a websocket, or HTTP/2); it goes on, and is not metered any more"
    NOT_FOLLOWED = "A connection is not HTTP/1.1 as it can be followed; it goes on, and is not metered any more"
    FAULT = "The observer of a connection failed; the connection goes on, and is not metered any more"


class Tally:
    """Counts. The first of a reason is logged, then the 10th, the 100th and so on."""

    def __init__(self) -> None:
        self.metered = 0
        self.unmetered: Counter[Unmetered] = Counter()

    def miss(self, reason: Unmetered, detail: str = "") -> None:
        """One could not be metered. ``detail`` must hold nothing of what passed."""
        self.unmetered[reason] += 1
        count = self.unmetered[reason]
        if set(str(count)[1:]) <= {"0"} and str(count)[0] == "1":
            log.warning("%s%s.%s", reason.value, detail, "" if count == 1 else f" This happened {count} times by now.")

    def summary(self) -> str:
        """For the log at the end."""
        missed = ", ".join(f"{reason.name.lower().replace('_', ' ')} {count}" for reason, count in sorted(self.unmetered.items(), key=str))
        return f"{self.metered} requests metered; not metered: {missed or 'none'}"
