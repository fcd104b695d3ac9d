"""/api/v1/stream: one server-sent event a snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tokenwatt.export.publisher import Subscription
from tokenwatt.snapshot import Snapshot

HEARTBEAT_S: Final = 15.0
"""A comment after so long without a snapshot: proxies keep the connection, and one to a client that died is found out."""

_HEARTBEAT: Final = b": no snapshot\n\n"


class EventStream(StreamingResponse):
    """The snapshots of a subscription as server-sent events, until the client goes or the subscription ends."""

    media_type = "text/event-stream"

    def __init__(
        self, subscription: Subscription, render: Callable[[Snapshot], Awaitable[bytes]], heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        # nginx would otherwise hold events back to fill its buffer.
        super().__init__(_events(subscription, render, heartbeat_s), headers={"x-accel-buffering": "no"})
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, however it comes, and give the subscription back."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._subscription.close()


async def _events(subscription: Subscription, render: Callable[[Snapshot], Awaitable[bytes]], heartbeat_s: float) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(heartbeat_s):
                snapshot = await anext(subscription)
        except TimeoutError:
            yield _HEARTBEAT
        except StopAsyncIteration:
            return
        else:
            yield await render(snapshot)


def event(json: bytes) -> bytes:
    """The bytes of one event. ``json`` has no line breaks."""
    return b"event: snapshot\ndata: " + json + b"\n\n"


def event_schema(model: str) -> dict[str, Any]:
    """One event in OpenAPI's words (3.2, section 4.14.4), with data of a model that the document names."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"$ref": f"#/components/schemas/{model}"}}
    return {"type": "object", "required": ["event", "data"], "properties": {"event": {"const": "snapshot"}, "data": data}}
