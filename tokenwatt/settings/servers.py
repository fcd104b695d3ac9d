"""The servers that the settings name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tokenwatt.settings import values
from tokenwatt.settings.addresses import url_key, url_port
from tokenwatt.settings.fields import (
    EMPTY_SECTION,
    Boolean,
    FilePath,
    Found,
    GpuField,
    Label,
    MetricsPath,
    Name,
    Section,
    ServerUrl,
    Text,
    refuse,
)

ENGINE_NAMES: Final = (
    "vllm", "sglang", "llamacpp", "tgi", "tei", "trtllm", "triton", "nim", "dynamo", "lmdeploy", "ray", "kserve", "aphrodite", "xinference",
    "localai", "lemonade", "mistralrs", "generic",
)  # fmt: skip
"""All engines of the contract."""


def _engine(value: object) -> str:
    choices = ("auto", *ENGINE_NAMES)
    if isinstance(value, str) and value in choices:
        return value
    near = values.nearest(value, choices) if isinstance(value, str) else None
    raise ValueError(f"{values.shown(value)} is not an engine; write {near or 'one of ' + ', '.join(choices)}")


class Tls(Section):
    """How an https server is trusted."""

    ca_file: FilePath | None = None
    insecure_skip_verify: Boolean = False


class Counters(Section):
    """Names of the counters of a server of engine ``generic``. Without any its tokens come by ``POST /api/v1/tokens``."""

    prompt: Text | None = None
    prompt_cached: Text | None = None
    generation: Text | None = None


class ServerSettings(Section):
    """One inference server. ``name`` is always set once the settings are loaded."""

    name: Name = ""
    url: ServerUrl = Field(examples=["http://127.0.0.1:8000"])
    engine: Annotated[str, BeforeValidator(_engine)] = "auto"
    gpus: tuple[GpuField, ...] | None = None
    metrics_path: MetricsPath | None = None
    api_key_file: FilePath | None = None
    tls: Annotated[Tls, EMPTY_SECTION] = Tls()
    counters: Annotated[Counters, EMPTY_SECTION] = Counters()
    group: Label | None = None
    tokens: Annotated[Literal["none"] | None, BeforeValidator(lambda v: v if v is None else values.choice("none")(v))] = None

    @field_validator("gpus")
    @classmethod
    def _gpus_differ(cls, gpus: tuple[int | str, ...] | None) -> tuple[int | str, ...] | None:
        if gpus == ():
            raise ValueError("is empty; name at least one GPU, or leave the key out to have them found")
        found: list[Found] = []
        for i, gpu in enumerate(gpus or ()):
            if gpu in (gpus or ())[:i]:
                found.append((f"{gpu} is given twice; remove one of the two", ((i,),)))
        refuse(found)
        return gpus

    @property
    def name_is_provisional(self) -> bool:
        """Its name is one that ``named`` gives, and has its engine in it, which is not known before it was read."""
        return self.reads_as == "auto" and re.fullmatch(rf"vllm-{url_port(self.url)}(-[0-9]+)?", self.name) is not None

    @property
    def reads_as(self) -> str:
        """The engine. Where counters are named, ``auto`` is ``generic``."""
        return "generic" if self.engine == "auto" and self.counters != Counters() else self.engine

    @property
    def is_pushed(self) -> bool:
        """Its tokens come by POST: nobody names counters to read."""
        return self.engine == "generic" and self.counters == Counters()

    @model_validator(mode="after")
    def _tls_needs_https(self) -> Self:
        if self.tls != Tls() and not self.url.startswith("https:"):
            refuse([("is for https, and the url is http; write an https url, or remove tls", (("tls",), ("url",)))])
        return self

    @model_validator(mode="after")
    def _counters_cover_the_tokens(self) -> Self:
        if self.counters != Counters() and self.counters.prompt is None and self.counters.generation is None:
            refuse([("names only prompt_cached, a part of the prompt; name prompt or generation too", (("counters",),))])
        return self


def duplicates(servers: Sequence[tuple[str, str]]) -> Iterator[Found]:
    """What is given twice among (name, url) of servers; either may be empty where it is not known."""
    names: dict[str, int] = {}
    urls: dict[object, int] = {}
    for i, (name, url) in enumerate(servers):
        first = names.setdefault(name, i) if name else i
        if first != i:
            yield f"'{name}' is the name of servers[{first}] too; write another name", ((i, "name"),)
        first = urls.setdefault(url_key(url), i) if url else i
        if first != i:
            yield f"'{url}' is the server of servers[{first}] too; remove one of the two (its gpus and name go to one entry)", ((i, "url"),)


def named(servers: Sequence[ServerSettings]) -> tuple[ServerSettings, ...]:
    """The servers, those without a name called ``ENGINE-PORT``, with -2, -3 ... where that is taken.

    Which engine auto is, is not known yet: it counts as vllm until it was read.
    """
    taken = {s.name for s in servers}
    found = []
    for s in servers:
        if not s.name:
            base = f"{'vllm' if s.reads_as == 'auto' else s.reads_as}-{url_port(s.url)}"
            name = next(n for i in range(1, len(servers) + 2) if (n := base if i == 1 else f"{base}-{i}") not in taken)
            taken.add(name)
            s = s.model_copy(update={"name": name})
        found.append(s)
    return tuple(found)
