"""Follows one connection by copies of its bytes, and finds what each answer cost.

It may be wrong about a connection, it may give up on it, it may fail: nothing of that reaches the bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from tokenwatt.proxy.bodies import Body, NotFollowed, UntilClose, answer_body, request_body
from tokenwatt.proxy.exchange import Exchange
from tokenwatt.proxy.heads import AnswerReader, RequestReader
from tokenwatt.proxy.tally import Unmetered
from tokenwatt.proxy.usage import Usage

_PIPELINED_LIMIT: Final = 256
_HELD_LIMIT_BYTES: Final = 64 * 1024


class Books(Protocol):
    """Where a connection's requests are booked. Wall times are in seconds."""

    def began(self) -> None:
        """A request that generates is in flight."""

    def ended(self) -> None:
        """It is not any more."""

    def metered(self, usage: Usage, from_s: float, to_s: float) -> None:
        """An answer told its tokens."""

    def missed(self, reason: Unmetered, detail: str = "") -> None:
        """Tokens are not known."""


class Observer:
    """One connection. Each method is told what has passed already, at wall time ``now_s``; none raises."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._following = True
        self._exchanges: deque[Exchange] = deque()
        self._request_head = RequestReader()
        self._request_body: Body | None = None
        self._request_from_s: float | None = None
        self._undecided: Exchange | None = None
        self._held = b""
        self._answer_head: AnswerReader | None = None
        self._answer_body: Body | None = None

    @property
    def idle(self) -> bool:
        """Nothing is in flight. Not known, hence false, where the connection is not followed."""
        return self._following and not self._exchanges and self._request_from_s is None

    def from_client(self, data: bytes, now_s: float) -> None:
        """Bytes of requests."""
        self._safely(self._requests, data, now_s)

    def from_upstream(self, data: bytes, now_s: float) -> None:
        """Bytes of answers."""
        self._safely(self._answers, data, now_s)

    def upstream_ended(self, now_s: float) -> None:
        """The upstream sends no more: for some answers that is their end."""
        self._safely(self._last_answer, b"", now_s)

    def closed(self, now_s: float) -> None:
        """The connection is no more."""
        self._stop(None, now_s)

    def _safely(self, follow: Callable[[bytes, float], None], data: bytes, now_s: float) -> None:
        if not self._following:
            return
        try:
            follow(data, now_s)
        except NotFollowed:
            self._stop(Unmetered.NOT_FOLLOWED, now_s)
        except Exception as e:  # a fault of ours must not be one of the connection. The text of an exception may repeat what was sent.
            self._stop(Unmetered.FAULT, now_s, f" ({type(e).__name__})")

    def _stop(self, reason: Unmetered | None, now_s: float, detail: str = "") -> None:
        """Follow no more. ``reason`` None: there is nothing more to follow."""
        if not self._following:
            return
        self._following = False
        self._held = b""
        self._answer_head = self._answer_body = self._request_body = None
        if reason is not None:
            self._books.missed(reason, detail)
        while self._exchanges:
            self._close(self._exchanges.popleft(), now_s, complete=False, told=reason is not None)

    # --- requests ------------------------------------------------------------------------------------------------------------------------

    def _requests(self, data: bytes, now_s: float) -> None:
        if self._undecided is not None and self._request_body is None:
            # Whether these are requests, or another protocol already, is for the answer to say.
            self._held += data
            if len(self._held) > _HELD_LIMIT_BYTES:
                raise NotFollowed
            return
        rest: bytes | None = data
        while rest:
            rest = self._request_head_from(rest, now_s) if self._request_body is None else rest
            if rest is None or self._request_body is None:
                return
            _, rest = self._request_body.feed(rest)
            if rest is None:
                return
            self._request_body = None
            if self._undecided is not None and rest:
                self._requests(rest, now_s)
                return

    def _request_head_from(self, data: bytes, now_s: float) -> bytes | None:
        if self._request_from_s is None:
            self._request_from_s = now_s
        found = self._request_head.feed(data)
        if found is None:
            return None
        head, rest = found
        exchange = Exchange(head.method, head.path, self._request_from_s)
        if len(self._exchanges) >= _PIPELINED_LIMIT:
            raise NotFollowed
        self._exchanges.append(exchange)
        if exchange.generates:
            self._books.began()
        if b"upgrade" in head.headers or head.method == b"CONNECT":
            self._undecided = exchange
        self._request_head, self._request_from_s = RequestReader(), None
        self._request_body = request_body(head.headers)
        return rest

    # --- answers -------------------------------------------------------------------------------------------------------------------------

    def _answers(self, data: bytes, now_s: float) -> None:
        rest: bytes | None = data
        while rest:
            if not self._exchanges:
                raise NotFollowed  # an answer to nothing
            exchange = self._exchanges[0]
            if self._answer_body is None:
                rest = self._answer_head_from(exchange, rest, now_s)
                if rest is None or self._answer_body is None:
                    return
            pieces, rest = self._answer_body.feed(rest)
            for piece in pieces:
                exchange.feed(piece)
            if rest is not None:
                self._answered(now_s)

    def _answer_head_from(self, exchange: Exchange, data: bytes, now_s: float) -> bytes | None:
        if self._answer_head is None:
            self._answer_head = AnswerReader(exchange.method)
        found = self._answer_head.feed(data)
        if found is None:
            return None
        head, rest = found
        self._answer_head = None
        if head.status == 101 or (exchange.method == b"CONNECT" and head.status < 300):
            self._stop(Unmetered.UPGRADED, now_s)
            return None
        self._answer_body = answer_body(exchange.method, head.status, head.headers)
        exchange.begin(head.status, head.headers)
        if exchange is self._undecided:
            self._undecided, held, self._held = None, self._held, b""
            self._requests(held, now_s)
        return rest

    def _answered(self, now_s: float) -> None:
        self._answer_body = None
        self._close(self._exchanges.popleft(), now_s, complete=True)

    def _last_answer(self, _: bytes, now_s: float) -> None:
        if isinstance(self._answer_body, UntilClose):
            self._answered(now_s)

    def _close(self, exchange: Exchange, now_s: float, *, complete: bool, told: bool = False) -> None:
        """Book an exchange. ``told``: that something of this connection is not metered is booked already."""
        result = exchange.end(complete=complete)
        if isinstance(result, Usage):
            self._books.metered(result, exchange.from_s, now_s)
        elif result is not None and not told:
            self._books.missed(result)
        if exchange.generates:
            self._books.ended()
