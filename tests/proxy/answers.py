"""Answers as the servers give them, and what they cost."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import NamedTuple

from tokenwatt.proxy.usage import Usage


class Answer(NamedTuple):
    name: str
    path: str
    content_type: str
    body: bytes
    usage: Usage | None


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def _sse(*documents: object, done: bool = True, named: bool = False) -> bytes:
    lines = b""
    for document in documents:
        if named and isinstance(document, dict):
            lines += b"event: " + document["type"].encode() + b"\n"
        lines += b"data: " + _json(document) + b"\n\n"
    return lines + (b"data: [DONE]\n\n" if done else b"")


def _ndjson(*documents: object) -> bytes:
    return b"".join(_json(d) + b"\n" for d in documents)


# Words of an answer that look like usage. None of this counts.
TRAP = 'He said: "usage": {"prompt_tokens": 999999} {"done": true, "eval_count": 999999} data: [DONE]'


def _piece(text: str, **more: object) -> dict[str, object]:
    return {"id": "c", "object": "chat.completion.chunk", "model": "tiny", "choices": [{"index": 0, "delta": {"content": text}}], **more}


OPENAI = {"prompt_tokens": 21, "completion_tokens": 8, "total_tokens": 29}
OPENAI_CACHED = {**OPENAI, "prompt_tokens_details": {"cached_tokens": 16}}

JSON, SSE, NDJSON = "application/json", "text/event-stream; charset=utf-8", "application/x-ndjson"

ANSWERS = (
    Answer("chat", "/v1/chat/completions", JSON,
           _json({"model": "tiny", "choices": [{"message": {"content": TRAP}}], "usage": OPENAI_CACHED}), Usage("tiny", 21, 16, 8)),
    Answer("chat, cache not told", "/v1/chat/completions", JSON,
           _json({"model": "tiny", "choices": [], "usage": {**OPENAI, "prompt_tokens_details": None}}), Usage("tiny", 21, None, 8)),
    Answer("chat, nothing cached", "/v1/chat/completions", JSON,
           _json({"model": "tiny", "usage": {**OPENAI, "prompt_tokens_details": {"cached_tokens": 0}}}), Usage("tiny", 21, 0, 8)),
    Answer("usage within a tool's arguments", "/api/chat", JSON,
           _json({"model": "q", "message": {"tool_calls": [{"function": {"arguments": {"usage": {"prompt_tokens": 9}, "eval_count": 7}}}]},
                  "done": True, "prompt_eval_count": 5, "eval_count": 3}), Usage("q", 5, None, 3)),
    Answer("embeddings", "/v1/embeddings", JSON,
           _json({"model": "e", "data": [{"embedding": [0.1, -2e-3]}], "usage": {"prompt_tokens": 7, "total_tokens": 7}}),
           Usage("e", 7, None, 0)),
    Answer("stream", "/v1/chat/completions", SSE,
           _sse(_piece("a", usage=None), _piece(TRAP, usage=None), _piece("", choices=[], usage=OPENAI_CACHED)), Usage("tiny", 21, 16, 8)),
    Answer("stream with continuous usage", "/v1/completions", SSE,
           _sse(_piece("a", usage={**OPENAI, "completion_tokens": 1}), _piece("b", usage={**OPENAI, "completion_tokens": 2}),
                _piece("", usage=OPENAI)), Usage("tiny", 21, None, 8)),
    Answer("stream with lines as on Windows", "/v1/chat/completions", SSE,
           _sse(_piece("a"), _piece("", usage=OPENAI)).replace(b"\n", b"\r\n"), Usage("tiny", 21, None, 8)),
    Answer("stream without an empty line at its end", "/v1/chat/completions", SSE,
           b'data:{"model":"tiny","usage":{"prompt_tokens":1,"completion_tokens":2}}', Usage("tiny", 1, None, 2)),
    Answer("responses", "/v1/responses", JSON,
           _json({"object": "response", "model": "r", "output": [], "usage":
                  {"input_tokens": 30, "input_tokens_details": {"cached_tokens": 10}, "output_tokens": 4}}), Usage("r", 30, 10, 4)),
    Answer("responses, stream", "/v1/responses", SSE,
           _sse({"type": "response.created", "response": {"model": "r", "usage": None}},
                {"type": "response.output_text.delta", "delta": TRAP},
                {"type": "response.completed", "response": {"model": "r", "usage":
                 {"input_tokens": 30, "input_tokens_details": {"cached_tokens": 10}, "output_tokens": 4}}}, done=False, named=True),
           Usage("r", 30, 10, 4)),
    Answer("messages", "/v1/messages", JSON,
           _json({"type": "message", "model": "m", "content": [{"type": "text", "text": TRAP}], "usage":
                  {"input_tokens": 10, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 100, "output_tokens": 6}}),
           Usage("m", 115, 100, 6)),
    Answer("messages, stream", "/v1/messages", SSE,
           _sse({"type": "message_start", "message": {"model": "m", "usage":
                 {"input_tokens": 10, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 100, "output_tokens": 1}}},
                {"type": "content_block_delta", "delta": {"text": TRAP}},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 6}},
                {"type": "message_stop"}, done=False, named=True), Usage("m", 115, 100, 6)),
    Answer("messages, the prompt is known at the end", "/v1/messages", SSE,
           _sse({"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 0, "output_tokens": 0}}},
                {"type": "message_delta", "usage": {"input_tokens": 12, "output_tokens": 6}}, done=False, named=True),
           Usage("m", 12, None, 6)),
    Answer("ollama chat", "/api/chat", NDJSON,
           _ndjson({"model": "llama3", "message": {"content": "a"}, "done": False},
                   {"model": "llama3", "message": {"content": TRAP}, "done": False},
                   {"model": "llama3", "done": True, "done_reason": "stop", "prompt_eval_count": 26, "eval_count": 290}),
           Usage("llama3", 26, None, 290)),
    Answer("ollama generate", "/api/generate", JSON,
           _json({"model": "llama3", "response": TRAP, "done": True, "context": [1, 2, 3], "prompt_eval_count": 26, "eval_count": 2}),
           Usage("llama3", 26, None, 2)),
    Answer("ollama embed", "/api/embed", JSON,
           _json({"model": "minilm", "embeddings": [[0.1, 0.2]], "prompt_eval_count": 8}), Usage("minilm", 8, None, 0)),
    Answer("ollama loads a model", "/api/generate", JSON,
           _json({"model": "llama3", "response": "", "done": True, "done_reason": "load"}), None),
    Answer("no usage", "/v1/chat/completions", SSE, _sse(_piece("a", usage=None), _piece(TRAP)), None),
)  # fmt: skip

USAGES = tuple(a for a in ANSWERS if a.usage is not None)


def request(path: str, body: bytes = b'{"prompt": "a secret"}', *, method: str = "POST", headers: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: models.example\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def whole(answer: Answer, *, status: str = "200 OK", headers: str = "") -> bytes:
    """With its length told."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n{headers}\r\n"
    return head.encode() + answer.body


def chunked(answer: Answer, sizes: tuple[int, ...] = (40,), *, trailers: str = "", headers: str = "") -> bytes:
    """In chunks of these sizes, again and again."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {answer.content_type}\r\nTransfer-Encoding: chunked\r\n{headers}\r\n".encode()
    at, number, chunks = 0, 0, b""
    while at < len(answer.body):
        piece = answer.body[at : at + sizes[number % len(sizes)]]
        chunks += b"%x;x=1\r\n%s\r\n" % (len(piece), piece)
        at, number = at + len(piece), number + 1
    return head + chunks + f"0\r\n{trailers}\r\n".encode()


def encoded(answer: Answer, coding: str) -> tuple[Answer, str]:
    """Its body in a coding, and the header that says so."""
    if coding == "gzip":
        body = gzip.compress(answer.body)
    elif coding == "deflate":
        body = zlib.compress(answer.body)
    else:
        raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = raw.compress(answer.body) + raw.flush()
    return answer._replace(body=body), f"Content-Encoding: {coding.removeprefix('raw ')}\r\n"
