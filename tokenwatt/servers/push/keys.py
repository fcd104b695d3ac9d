"""Idempotency keys: what was counted under which one."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final, Literal, NamedTuple

KEYS_MAX: Final = 20_000
"""The oldest is forgotten beyond this. A key takes some 400 bytes, however long it is."""
KEEP_NS: Final = 24 * 3600 * 10**9


class Key(NamedTuple):
    """A key as a client chose it, and a digest of what it sent under it."""

    text: str
    digest: bytes


class PushKeys:
    """Remembers keys for 24 h, in memory, and at most ``KEYS_MAX``. Instants come in order."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()
        """By digest of the key, oldest first: digest of the body, and when it came."""

    def known(self, of: Literal["request", "report"], key: Key) -> bytes | None:
        """The digest of what was counted under a key. None: nothing, or it is forgotten. Requests and reports have keys of their own."""
        kept = self._kept.get(_short(of, key))
        return kept[0] if kept is not None else None

    def keep(self, of: Literal["request", "report"], key: Key, now_ns: int) -> None:
        """Remember a key, and forget what is too old or too many."""
        self._kept[_short(of, key)] = key.digest, now_ns
        while len(self._kept) > KEYS_MAX:
            self._kept.popitem(last=False)

    def forget_old(self, now_ns: int) -> None:
        """Forget what is older than 24 h."""
        while self._kept and now_ns - next(iter(self._kept.values()))[1] >= KEEP_NS:
            self._kept.popitem(last=False)


def _short(of: str, key: Key) -> bytes:
    return hashlib.blake2b(f"{of} {key.text}".encode(), digest_size=16).digest()
