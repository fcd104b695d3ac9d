"""What the meter is told of a server before it is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """A server: one that the settings name, with the GPUs they give it (index, UUID or the beginning of one; None: none given), or one that
    was found (``configured`` False).

    ``group`` names the server that spans nodes which this one is a member of; ``tokens`` False: another member counts the tokens.
    """

    name: str
    url: str
    engine: str = "vllm"
    gpus: tuple[int | str, ...] | None = None
    group: str | None = None
    tokens: bool = True
    configured: bool = True

    @property
    def partial(self) -> bool:
        """Whether its tokens and its joules are not of the same boards: figures per token mean nothing here."""
        return self.group is not None or not self.tokens
