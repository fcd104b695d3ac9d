"""One POST to the meter: a connection of its own, bounded in time and size."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import h11

from tokenwatt import followed_file
from tokenwatt.proxy.addresses import endpoint
from tokenwatt.proxy.errors import why
from tokenwatt.settings.values import printable

_TIMEOUT_S: Final = 5.0
_ANSWER_LIMIT_BYTES: Final = 16 * 1024
_SHOWN_CHARACTERS: Final = 300


class Answer(NamedTuple):
    """What came of it. ``status`` None: no answer. ``text``: the reason, for people."""

    status: int | None
    text: str


class TokenFileError(Exception):
    """The token file cannot be used: why, in words for people."""


class Post:
    """Sends reports to ``url``/api/v1/tokens. The token's file is followed when it changes.

    Raises:
        TokenFileError: it cannot be used now.
    """

    def __init__(self, url: str, token_file: Path | None, *, timeout_s: float = _TIMEOUT_S) -> None:
        self.url = url
        self._endpoint = endpoint(url)
        self._target = urlsplit(url).path + "/api/v1/tokens"
        self._token = followed_file.token_file(token_file, "--token-file", TokenFileError) if token_file is not None else None
        if self._token is not None:
            self._token.get()
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context() if self._endpoint.tls else None

    async def __call__(self, body: bytes) -> Answer:
        """Send one report. Never raises but when it is cancelled."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(body)
        except OSError as e:  # a timeout is one
            return Answer(None, why(e))
        except h11.ProtocolError:
            return Answer(None, "what answers there is not HTTP/1.1")
        except TokenFileError as e:
            return Answer(None, str(e))

    async def _send(self, body: bytes) -> Answer:
        headers = [("Host", self._endpoint.host_header), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        headers.append(("Connection", "close"))
        if self._token is not None:
            headers.append(("Authorization", f"Bearer {self._token.get()}"))
        client = h11.Connection(h11.CLIENT)
        request = client.send(h11.Request(method="POST", target=self._target, headers=headers))
        reader, writer = await asyncio.open_connection(self._endpoint.host, self._endpoint.port, ssl=self._tls, limit=_ANSWER_LIMIT_BYTES)
        try:
            # In one piece: it is one segment then, and the meter wakes once.
            writer.write((request or b"") + body)
            client.send(h11.Data(data=body))
            client.send(h11.EndOfMessage())
            return await _answer(client, reader)
        finally:
            writer.transport.abort()  # everything was said


async def _answer(client: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    status, text = 0, b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(_ANSWER_LIMIT_BYTES)
            if not data and not client.trailing_data[0] and not status:
                return Answer(None, "it closed the connection without an answer")
            client.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            text = (text + bytes(event.data))[:_ANSWER_LIMIT_BYTES]
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, _reason(status, text))


def _reason(status: int, text: bytes) -> str:
    """What an answer says, as {"detail": ...} or as text."""
    words = text.decode("utf-8", "replace")
    try:
        document = json.loads(words)
    except ValueError:
        document = None
    if isinstance(document, dict) and "detail" in document:
        words = document["detail"] if isinstance(document["detail"], str) else json.dumps(document["detail"])
    return printable(f"{status} {' '.join(words.split())}".strip())[:_SHOWN_CHARACTERS]
