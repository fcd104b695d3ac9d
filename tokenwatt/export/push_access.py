"""Who may push: without a token, processes of this machine; with one, who has it. Web pages never."""

from __future__ import annotations

import hmac
import logging
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers

from tokenwatt.followed_file import FollowedFile, token_file

log = logging.getLogger("tokenwatt")

# A proxy on this machine makes everybody a local peer.
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class Refused(Exception):
    """This peer may not push: why, in one sentence. ``status`` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Unreadable(Exception):
    """The file of the token cannot be used."""


class PushAccess:
    """Judges requests by their headers and by the address of their socket's peer."""

    def __init__(self, write_token_file: Path | None) -> None:
        self._token: FollowedFile[str] | None = None
        self._problem: str | None = None
        if write_token_file is not None:
            self._token = token_file(write_token_file, "write_token_file", _Unreadable)

    def check(self, peer: str | None, headers: Headers) -> None:
        """Let a request pass. ``peer`` is an IP address.

        Raises:
            Refused: it may not push.
        """
        if self._token is None:
            _check_local(peer, headers)
        else:
            self._check_token(self._token, headers)
        if "origin" in headers:
            # Browsers send it with each POST. A page may reach us without a preflight where its name was made to point to this machine.
            raise Refused(403, "Web pages may not push tokens: this request has an Origin header, which no program needs to send.")

    def _check_token(self, file: FollowedFile[str], headers: Headers) -> None:
        try:
            token = file.get()
        except _Unreadable as e:
            if self._problem != str(e):
                self._problem = str(e)
                log.error("Nobody can push tokens: %s", e)
            raise Refused(503, f"Nobody can push tokens now: {e}.") from None
        self._problem = None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Bytes: compare_digest takes no text beyond ASCII.
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise Refused(401, "Pushing tokens needs the header Authorization: Bearer TOKEN, with the token in write_token_file.")


def _check_local(peer: str | None, headers: Headers) -> None:
    if not _is_loopback(peer):
        raise Refused(403, "Only processes of this machine may push tokens. To let others, give write_token_file in the settings.")
    if any(name in headers for name in _FORWARDED):
        raise Refused(403, "A proxy passed this request on, so nobody can tell where it is from. Give write_token_file in the settings.")


def _is_loopback(peer: str | None) -> bool:
    try:
        address = ip_address((peer or "").partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
