"""What the REST API answers, as models: the OpenAPI document is made from them.

Every key is always there; null is "cannot be known". Units are in the names. Instants are RFC 3339 in UTC, with milliseconds.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from tokenwatt.export.text import encodable
from tokenwatt.types import Cached, Method, Scope, Split, Update

Text = Annotated[str, BeforeValidator(encodable)]
Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


class Answer(BaseModel):
    """What all answers share. NaN and infinities, which JSON does not have, are null."""

    model_config = ConfigDict(
        extra="forbid", ser_json_inf_nan="null", use_attribute_docstrings=True, populate_by_name=True, serialize_by_alias=True
    )


class EnergyByState(Answer):
    """Joules by state."""

    active: float | None
    idle: float | None
    unobserved: float | None


class TokensByKind(Answer):
    """Tokens by kind. Kinds are disjoint."""

    generation: int | None
    prompt_computed: int | None
    prompt_cached: int | None
    unsplit: int | None


class RateByKind(Answer):
    """Tokens a second by kind."""

    generation: float | None
    prompt_computed: float | None
    prompt_cached: float | None
    unsplit: float | None


class PerToken(Answer):
    """A figure for each way to count tokens: processed is prompt_computed and generation, total is all."""

    generation: float | None
    processed: float | None
    total: float | None


class EfficiencyItem(Answer):
    """One model of one server over one window."""

    server: Text
    model: Text
    from_: Annotated[Instant, Field(alias="from")]
    """Where its figures begin: a window before ``to``, or the server's first reading where that is later."""
    to: Instant
    """Where this server's window ends: the end of its last closed interval."""
    coverage_ratio: float
    """The part of the window that observed intervals fill."""
    tokens: TokensByKind
    energy_j: EnergyByState
    power_w: float | None
    tokens_per_second: RateByKind
    tokens_per_joule: PerToken
    joules_per_token: PerToken
    update: Update | None
    """When the server's generation counter moves."""
    cached: Cached | None
    """Whether the server tells cached prompt tokens apart."""


class Efficiency(Answer):
    """Tokens and joules over one trailing window, at boundary gpu, idle energy included."""

    window_s: int | float
    to: Instant
    simulated: bool
    items: list[EfficiencyItem]


class Counts(Answer):
    """How many there are."""

    gpus: int
    gpus_up: int
    servers: int
    servers_up: int


class Totals(Answer):
    """Energy since the meter first saw each board.

    gpu_energy_j = energy_j + unattributed_energy_j + pending_energy_j, to the microjoule.
    """

    gpu_energy_j: float
    """Of all boards."""
    energy_j: float
    """Of all servers' closed intervals."""
    unattributed_energy_j: float
    """That no server owns."""
    pending_energy_j: float
    """Measured, of intervals not closed yet."""


class Status(Answer):
    """The meter itself."""

    version: Text
    python: Text
    ring: Text
    simulated: bool
    started: Instant
    time: Instant
    """Of the snapshot that all figures are from."""
    uptime_s: float
    snapshot_age_s: float
    ready: bool
    """Energy was sampled and every configured server was asked once."""
    problems: list[Text]
    """What is wrong now: one sentence each."""
    windows: list[Text]
    counts: Counts
    totals: Totals


class GpuProcessItem(Answer):
    """A process with a compute context on a board."""

    pid: int
    memory_bytes: int | None


class GpuHolder(Answer):
    """Who had a part of the board's energy at the last tick. ``server`` null: processes of no server."""

    server: Text | None
    method: Method | None
    share_ratio: float


class PowerStatisticsItem(Answer):
    """A board's power over the last minute, in steps of 1 s."""

    minimum_w: float
    p50_w: float
    p95_w: float
    maximum_w: float


class GpuItem(Answer):
    """One board."""

    index: int
    """Only for people: it moves when a board goes. The uuid is the key."""
    uuid: Text
    name: Text
    driver: Text
    pci_bus_id: Text
    up: bool
    reason: Text | None
    """Why it is not up."""
    source: Text
    """Where its energy comes from: counter (hardware) or integral (of power)."""
    scope: Scope
    energy_j: float | None
    unattributed_energy_j: float | None
    last_sample: Instant | None
    resets: int
    rejected_readings: int
    samples_missed: int
    agreement_ratio: float | None
    """Energy by the counter over energy by the integral of power."""
    power_w: float | None
    power_instant_w: float | None
    power_limit_w: float | None
    power_limit_max_w: float | None
    power_statistics: PowerStatisticsItem | None
    utilization_ratio: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: int | None
    sm_clock_hz: int | None
    clock_events: list[Text] | None
    """Reasons that hold the clocks down now."""
    processes: list[GpuProcessItem] | None
    holders: list[GpuHolder]
    split: Split | None
    """How its energy was divided at the last tick."""


class Gpus(Answer):
    """All boards."""

    time: Instant
    simulated: bool
    items: list[GpuItem]


class HeldGpu(Answer):
    """A board that a server holds, and how that is known."""

    index: int
    uuid: Text
    method: Method


class ModelItem(Answer):
    """One model of one server: totals since the meter first saw it."""

    model: Text
    energy_j: EnergyByState
    tokens: TokensByKind


class ServerWindowItem(Answer):
    """One server over one trailing window, all its models together."""

    window: Text
    window_s: int | float
    coverage_ratio: float
    idle_energy_ratio: float | None


class ServerItem(Answer):
    """One inference server."""

    name: Text
    url: Text
    engine: Text
    version: Text
    up: bool
    reason: Text | None
    """Why it is not up."""
    update: Update | None
    cached: Cached | None
    scope: Text
    """whole, or partial for a member of a server that spans nodes."""
    group: Text | None
    """The server that spans nodes which it is a member of."""
    asleep: bool | None
    """Whether it put its model away until the next request."""
    resolution_s: float | None
    """The time its counters need: figures per token are null in shorter windows. 0: they move at each step."""
    requests_running: int | None
    requests_waiting: int | None
    last_sample: Instant | None
    scrape_duration_s: float | None
    scrape_bytes: int | None
    resets: int
    rejected_readings: int
    pending_energy_j: float
    gpus: list[HeldGpu]
    models: list[ModelItem]
    windows: list[ServerWindowItem]


class Servers(Answer):
    """All servers."""

    time: Instant
    simulated: bool
    items: list[ServerItem]


class Live(Answer):
    """The data of one event of the stream: all of it from the same snapshot."""

    status: Status
    gpus: Gpus
    servers: Servers
    efficiency: dict[str, Efficiency]
    """By window: 10s, 1m, ..."""


class Problem(Answer):
    """Why there is no answer, in one sentence."""

    detail: str = Field(examples=["There is no window '7m'. There are: 10s, 1m, 5m, 1h, 24h."])
