"""Small files that others change while we run: a key, a certificate. Read again when they change, and never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_TOKEN: Final = re.compile(r"[!-~]+")  # visible ASCII: anything else could end the header it is put into


class FollowedFile(Generic[T]):
    """What ``load`` makes of a file, made anew when the file changes. ``what`` is the setting that names it."""

    def __init__(self, path: Path, what: str, load: Callable[[Path], T], error: Callable[[str], Exception]) -> None:
        self._path = path
        self._what = what
        self._load = load
        self._error = error
        self._loaded: tuple[tuple[int, int, int], T] | None = None

    def get(self) -> T:
        """The file's meaning now.

        Raises:
            what ``error`` makes of a sentence: the file cannot be read. ``load`` raises its own, where it is not what it should be.
        """
        try:
            stat = os.stat(self._path)
            version = stat.st_mtime_ns, stat.st_size, stat.st_ino
            if self._loaded is None or self._loaded[0] != version:
                self._loaded = version, self._load(self._path)
        except OSError as e:
            raise self._error(f"{self._what} {self._path} cannot be read: {e.strerror}") from None
        return self._loaded[1]


def token_file(path: Path, what: str, error: Callable[[str], Exception]) -> FollowedFile[str]:
    """The bearer token in a file: one line of visible characters."""

    def load(path: Path) -> str:
        token = path.read_text(encoding="latin-1").strip()
        if not _TOKEN.fullmatch(token):
            raise error(f"{what} {path} does not hold one line of visible characters")
        return token

    return FollowedFile(path, what, load, error)
