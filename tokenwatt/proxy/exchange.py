"""One request and what its answer cost."""

from __future__ import annotations

import re
from typing import Final

from tokenwatt.proxy.answers import Document, Lines, NotDecoded, Reader, TooLarge, search
from tokenwatt.proxy.tally import Unmetered
from tokenwatt.proxy.usage import Gathered, Usage, WrongUsage

# The requests that generate or embed. Others may tell usage as well, but of these one is expected.
_GENERATES: Final = re.compile(rb"[!-~]*/(?:completions|embeddings|responses|messages|api/generate|api/chat|api/embed)")


class Exchange:
    """One request, from its head on. ``from_s``: the wall time of its first byte."""

    def __init__(self, method: bytes, path: bytes, from_s: float) -> None:
        self.method = method
        self.from_s = from_s
        # A GET tells again what a POST cost (Responses API): only a POST counts.
        self._costs = method == b"POST"
        self.generates = self._costs and _GENERATES.fullmatch(path) is not None
        """Tokens are due."""
        self._status = 0
        self._gathered = Gathered()
        self._reader: Reader | None = None
        self._plain: Lines | Document | None = None
        self._missed: Unmetered | None = None

    def begin(self, status: int, headers: dict[bytes, bytes]) -> None:
        """The answer's head."""
        self._status = status
        if not self._costs:
            return
        try:
            found = search(headers, self._gathered)
        except NotDecoded:
            self._miss(Unmetered.NOT_DECODED)
            return
        if found is None:
            self._miss(Unmetered.NOT_READ)
        else:
            self._reader, self._plain = found

    def feed(self, piece: bytes) -> None:
        """A piece of the answer's body."""
        self._read(piece)

    def end(self, *, complete: bool) -> Usage | Unmetered | None:
        """The cost, or why it is not known; None where none is due. ``complete``: the answer came to its own end."""
        if complete:
            self._read(None)
        usage = self._gathered.usage() if self._missed is None else None
        if usage is not None:
            return usage
        if not self.generates or self._status >= 400 or self._gathered.nothing_due:
            return None
        if self._missed is not None:
            return self._missed
        if self._plain is not None and self._plain.skipped:
            return Unmetered.TOO_LARGE
        if not complete:
            return Unmetered.CUT_OFF
        stream = self._plain is not None and self._plain.is_stream
        return Unmetered.STREAM_WITHOUT_USAGE if stream else Unmetered.WITHOUT_USAGE

    def _read(self, piece: bytes | None) -> None:
        if self._reader is None:
            return
        try:
            if piece is None:
                self._reader.end()
            else:
                self._reader.feed(piece)
        except TooLarge:
            self._miss(Unmetered.TOO_LARGE)
        except NotDecoded:
            self._miss(Unmetered.NOT_DECODED)
        except WrongUsage:
            self._miss(Unmetered.WRONG_USAGE)

    def _miss(self, reason: Unmetered) -> None:
        self._missed, self._reader, self._plain = reason, None, None
