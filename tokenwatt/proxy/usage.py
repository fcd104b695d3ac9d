"""What an answer says that it cost: the ``usage`` of OpenAI, Responses and Anthropic answers, the counts of Ollama's own.

Sources of the shapes: the OpenAI API reference (chat, completions, embeddings, responses), vLLM 0.32 vllm/entrypoints/openai, the Anthropic
API reference (messages, streaming), Ollama 0.30 docs/api.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from tokenwatt.types import Kind

MARK: Final = re.compile(rb'"usage"\s*:\s*\{|eval_count"\s*:|"done_reason"\s*:\s*"(?:un)?load"')
"""What a line or body must contain to be worth parsing. The null that comes with each piece of a stream is none."""

_HIGHEST_COUNT: Final = 10**9
"""Tokens of one answer: a context of a billion is beyond any model, and within any counter."""

_NAME_CHARACTERS: Final = 128


class WrongUsage(Exception):
    """The numbers cannot be: negative, no integers, more cached than there are."""


class Usage(NamedTuple):
    """Tokens of one answer. ``prompt`` includes ``cached``, which is None where the server does not tell it."""

    model: str
    prompt: int
    cached: int | None
    generation: int

    def tokens(self) -> dict[Kind, int]:
        """By kind, disjoint. ``prompt_cached`` is there when the server tells it, also with 0."""
        if self.cached is None:
            return {"prompt_computed": self.prompt, "generation": self.generation}
        return {"prompt_computed": self.prompt - self.cached, "prompt_cached": self.cached, "generation": self.generation}


class Gathered:
    """The usage of one answer, from the documents (bodies, or pieces of a stream) it came in. The last that is told holds."""

    def __init__(self) -> None:
        self._model = ""
        self._usage: Usage | None = None
        self._message: dict[str, object] = {}
        self.nothing_due = False
        """The answer says that it loaded or put away a model, and made no tokens."""

    def usage(self) -> Usage | None:
        """What is known by now, under the model's last name."""
        return self._usage and self._usage._replace(model=self._model)

    def forget(self) -> None:
        """What came may have been replaced by something that could not be read."""
        self._usage = None

    def add(self, document: object) -> None:
        """One parsed document.

        Raises:
            WrongUsage: it has a usage, with numbers that cannot be.
        """
        if not isinstance(document, dict):
            return
        inner = document.get("response") or document.get("message")  # of Responses' events; of Anthropic's message_start
        holder = inner if isinstance(inner, dict) and isinstance(inner.get("usage"), dict) else document
        self._model = _name(holder.get("model")) or self._model
        usage = holder.get("usage")
        if isinstance(usage, dict):
            self._add_usage(str(document.get("type")), usage)
        elif document.get("done") is not False and ("eval_count" in document or "prompt_eval_count" in document):
            self._usage = _usage(document, "prompt_eval_count", "eval_count", None)
        elif document.get("done_reason") in ("load", "unload"):
            self.nothing_due = True

    def _add_usage(self, kind: str, usage: dict[str, object]) -> None:
        if kind in ("message", "message_start", "message_delta"):
            self._add_message(kind, usage)
        elif "prompt_tokens" in usage:
            self._usage = _usage(usage, "prompt_tokens", "completion_tokens", usage.get("prompt_tokens_details"))
        elif "input_tokens" in usage:
            self._usage = _usage(usage, "input_tokens", "output_tokens", usage.get("input_tokens_details"))

    def _add_message(self, kind: str, usage: dict[str, object]) -> None:
        """Anthropic's, whose counts are disjoint: ``input_tokens`` is without the cache. A stream's end repeats or corrects its start."""
        self._message |= {name: value for name, value in usage.items() if value or name not in self._message}
        if kind == "message_start":
            return  # the answer's length is not known yet
        told = self._message.get("cache_read_input_tokens")
        cached = None if told is None else _count(told)
        computed = _count(self._message.get("input_tokens")) + _count(self._message.get("cache_creation_input_tokens"))
        self._usage = Usage("", computed + (cached or 0), cached, _count(self._message.get("output_tokens")))


def _usage(counts: Mapping[str, object], prompt: str, generation: str, details: object) -> Usage:
    told = details.get("cached_tokens") if isinstance(details, dict) else None
    found = Usage("", _count(counts.get(prompt)), None if told is None else _count(told), _count(counts.get(generation)))
    if found.cached is not None and found.cached > found.prompt:
        raise WrongUsage
    return found


def _count(value: object) -> int:
    if value is None:  # as embeddings, which generate nothing
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _HIGHEST_COUNT:
        raise WrongUsage
    return value


def _name(value: object) -> str:
    """A model's name as a metric label can have it, else none."""
    fits = isinstance(value, str) and value.isprintable() and value == value.strip() and len(value) <= _NAME_CHARACTERS
    return str(value) if fits else ""
