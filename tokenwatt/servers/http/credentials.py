"""Files that say who we are and whom we trust. They are read again when they change, and never shown."""

from __future__ import annotations

import ssl
from pathlib import Path

from tokenwatt.followed_file import FollowedFile, token_file
from tokenwatt.servers.errors import Unusable
from tokenwatt.servers.target import ServerTarget


def api_key(path: Path) -> FollowedFile[str]:
    """The bearer token in a file."""
    return token_file(path, "api_key_file", Unusable)


class Trust:
    """The TLS settings of one server."""

    def __init__(self, target: ServerTarget) -> None:
        self._verify = not target.insecure_skip_verify
        self._file = FollowedFile(target.ca_file, "tls.ca_file", self._context, Unusable) if target.ca_file else None
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
        try:
            context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        except ssl.SSLError:  # an OSError, whose text is no help
            raise Unusable(f"tls.ca_file {ca_file} holds no certificate") from None
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
