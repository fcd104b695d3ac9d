"""The settings of the whole contract: names, types, bounds, defaults, and what does not go together.

Attribute names carry units; the keys of the file are their aliases. ``tokenwatt.settings.load`` reads them from files, variables and flags.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from tokenwatt.settings import addresses, values
from tokenwatt.settings.cost import Carbon, Cost
from tokenwatt.settings.fields import (
    EMPTY_LIST,
    EMPTY_SECTION,
    Boolean,
    FilePath,
    Found,
    Listen,
    Section,
    WindowField,
    duration,
    refuse,
)
from tokenwatt.settings.servers import ServerSettings, duplicates, named
from tokenwatt.snapshot import Window

DEFAULT_WINDOWS: Final = tuple(values.window(w) for w in ("10s", "1m", "5m", "1h", "24h"))
_LONGEST_METRICS_WINDOW_NS: Final = values.duration_ns("5m")  # beyond, PromQL over the counters is the better window


class Sampling(Section):
    """How often is measured.

    Power: boards renew their energy counter and instant power each 20 to 100 ms, so that faster reads the same value again; the mean power
    that is integrated where there is no counter is over 1 s, so that slower leaves time unseen. Tokens: a snapshot, one a period, is
    refused when it is 10 s old, and a server that failed is asked again within 5 s.
    """

    power_ns: Annotated[int, *duration("20ms", "1s")] = Field(default=values.duration_ns("100ms"), alias="power")
    tokens_ns: Annotated[int, *duration("200ms", "5s")] = Field(default=values.duration_ns("1s"), alias="tokens")

    @model_validator(mode="after")
    def _power_is_finer(self) -> Self:
        if self.power_ns > self.tokens_ns:
            power, tokens = values.duration_text(self.power_ns), values.duration_text(self.tokens_ns)
            text = f"power every {power} is coarser than tokens every {tokens}; write a power period of at most {tokens}"
            refuse([(text, (("power",), ("tokens",)))])
        return self


class Metrics(Section):
    """What Prometheus is shown. Without ``windows``: those of the settings up to 5m."""

    windows: tuple[WindowField, ...] = ()

    @field_validator("windows")
    @classmethod
    def _ordered(cls, windows: tuple[Window, ...]) -> tuple[Window, ...]:
        return _ordered(windows)


class Discovery(Section):
    """Where servers are looked for that the settings do not name."""

    local: Boolean = True
    kubernetes: Boolean = False


class Store(Section):
    """Where history is kept, and for how long. ``path`` None: the state directory of the user or the unit."""

    path: FilePath | None = None
    keep_ns: Annotated[int, *duration("1d", "36500d")] = Field(default=values.duration_ns("400d"), alias="keep")


class Settings(Section):
    """All settings. Every one has a default."""

    listen: Listen = addresses.DEFAULT_LISTEN
    web_config: FilePath | None = None
    write_token_file: FilePath | None = None
    probes_without_auth: Boolean = False
    sampling: Annotated[Sampling, EMPTY_SECTION] = Sampling()
    windows: tuple[WindowField, ...] = DEFAULT_WINDOWS
    metrics: Annotated[Metrics, EMPTY_SECTION] = Field(default=Metrics(), validate_default=True)
    host: Annotated[Literal["auto", "off"], BeforeValidator(values.choice("auto", "off"))] = "auto"
    servers: Annotated[tuple[ServerSettings, ...], EMPTY_LIST] = ()
    discovery: Annotated[Discovery, EMPTY_SECTION] = Discovery()
    cost: Annotated[Cost, EMPTY_SECTION] = Cost()
    carbon: Annotated[Carbon, EMPTY_SECTION] = Carbon()
    store: Annotated[Store, EMPTY_SECTION] = Store()

    @property
    def listen_host(self) -> str:
        """The host of ``listen``, IPv6 without brackets."""
        return addresses.split_address(self.listen)[0]

    @property
    def listen_port(self) -> int:
        """The port of ``listen``. 0: the system chooses."""
        return addresses.split_address(self.listen)[1]

    @field_validator("windows")
    @classmethod
    def _windows_resolve(cls, windows: tuple[Window, ...], info: ValidationInfo) -> tuple[Window, ...]:
        """A window holds at least two readings of a server: the edges of a shorter one would be guesses."""
        if not windows:
            raise ValueError("is empty; write at least one window, for example [1m]")
        sampling = info.data.get("sampling")
        if sampling is not None:
            shortest = 2 * sampling.tokens_ns
            text = f"is shorter than two readings of a server; write at least {values.duration_text(shortest)}, or lower sampling.tokens"
            refuse((f"{w.label} {text}", ((i,),)) for i, w in enumerate(windows) if w.span_ns < shortest)
        return _ordered(windows)

    @field_validator("metrics")
    @classmethod
    def _metrics_have_windows(cls, metrics: Metrics, info: ValidationInfo) -> Metrics:
        known: tuple[Window, ...] | None = info.data.get("windows")
        if known is None:  # they are wrong themselves
            return metrics
        if "windows" not in metrics.model_fields_set:
            return metrics.model_copy(update={"windows": tuple(w for w in known if w.span_ns <= _LONGEST_METRICS_WINDOW_NS)})
        text = f"is not among windows; write one of {', '.join(w.label for w in known)}, or add it to windows"
        refuse((f"{w.label} {text}", (("windows",),)) for w in metrics.windows if w not in known)
        return metrics

    @field_validator("servers")
    @classmethod
    def _servers_differ(cls, servers: tuple[ServerSettings, ...]) -> tuple[ServerSettings, ...]:
        refuse(duplicates([(s.name, s.url) for s in servers]))
        return named(servers)


def _ordered(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """Ascending. The same window twice is refused."""
    found: list[Found] = []
    for i, w in enumerate(windows):
        if w in windows[:i]:
            found.append((f"{w.label} is given twice; remove one of the two", ((i,),)))
    refuse(found)
    return tuple(sorted(windows, key=lambda w: w.span_ns))
