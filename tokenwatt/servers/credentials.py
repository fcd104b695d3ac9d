"""Files that say who we are and whom we trust. They are read again when they change, and never shown."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.target import ServerTarget

T = TypeVar("T")

_TOKEN: Final = re.compile(r"[!-~]+")  # visible ASCII: anything else could end the header it is put into


class FollowedFile(Generic[T]):
    """What ``load`` makes of a file, made anew when the file changes."""

    def __init__(self, path: Path, what: str, load: Callable[[Path], T]) -> None:
        self._path = path
        self._what = what
        self._load = load
        self._loaded: tuple[tuple[int, int, int], T] | None = None

    def get(self) -> T:
        """The file's meaning now.

        Raises:
            Unusable: it cannot be read, or is not what it should be.
        """
        try:
            stat = os.stat(self._path)
            version = stat.st_mtime_ns, stat.st_size, stat.st_ino
            if self._loaded is None or self._loaded[0] != version:
                self._loaded = version, self._load(self._path)
        except ssl.SSLError:  # an OSError too
            raise Unusable(f"{self._what} {self._path} holds no certificate") from None
        except OSError as e:
            raise Unusable(f"{self._what} {self._path} cannot be read: {e.strerror}") from None
        return self._loaded[1]


def api_key(path: Path) -> FollowedFile[str]:
    """The bearer token in a file."""
    return FollowedFile(path, "api_key_file", _token)


def _token(path: Path) -> str:
    token = path.read_text(encoding="latin-1").strip()
    if not _TOKEN.fullmatch(token):
        raise Unusable(f"api_key_file {path} does not hold one line of visible characters")
    return token


class Trust:
    """The TLS settings of one server."""

    def __init__(self, target: ServerTarget) -> None:
        self._verify = not target.insecure_skip_verify
        self._file = FollowedFile(target.ca_file, "tls.ca_file", self._context) if target.ca_file else None
        self._default: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The context for the next connection.

        Raises:
            Unusable: ca_file cannot be used.
        """
        if self._file is not None:
            return self._file.get()
        if self._default is None:  # kept: reading the system's certificates takes longer than a scrape
            self._default = self._context(None)
        return self._default

    def _context(self, ca_file: Path | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
