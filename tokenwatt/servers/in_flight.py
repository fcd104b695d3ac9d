"""Tokens of requests that run, where an engine adds them to its counter only at their end. Numbers only: such answers may hold prompts."""

from __future__ import annotations

from typing import Final

from tokenwatt.servers.asking import Asker, field
from tokenwatt.servers.engines.description import InFlight
from tokenwatt.servers.errors import Unusable

_TOKENS_MAX: Final = 10**9
"""More than any context: no count of one request."""


def ask_in_flight(ask: Asker, described: InFlight) -> tuple[int | None, bool]:
    """The tokens in flight, and whether the answer settles that this server tells them, or that it does not.

    Raises:
        Unusable: in a hurry, and it does not answer at all.
    """
    try:
        status, said = ask.json(described.path)
    except Unusable:
        if ask.hurried:
            raise
        return None, False
    # 400: the model was unloaded meanwhile, at a router.
    return tokens_in_flight(said, described), (status < 500 and status != 400) or status == 501


def tokens_in_flight(said: object, described: InFlight) -> int | None:
    """The tokens of all busy entries of a JSON list. None: it is no such list, or an entry does not tell.

    One that does not tell spoils the sum: a part of it would look like tokens that were taken back.
    """
    if not isinstance(said, list):
        return None
    total = 0
    for entry in said:
        if field(entry, (described.busy,)) is not True:
            continue
        numbers = (field(entry, keys) for keys in described.tokens)
        tokens = next((n for n in numbers if isinstance(n, int) and not isinstance(n, bool)), None)
        if tokens is None or not 0 <= tokens <= _TOKENS_MAX:
            return None
        total += tokens
    return total
