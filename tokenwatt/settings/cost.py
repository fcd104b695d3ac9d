"""What electricity, hardware and carbon cost: settings that are checked in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tokenwatt.settings import values
from tokenwatt.settings.fields import (
    EMPTY_LIST,
    EMPTY_SECTION,
    Currency,
    Found,
    Label,
    Price,
    Section,
    SourceUrl,
    Text,
    TimeOfDay,
    Timezone,
    duration,
    number,
    refuse,
)

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _month(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 12:
        return value
    raise ValueError(f"{values.shown(value)} is not a month; write a number of 1 to 12")


def _word(*known: str) -> Any:
    return BeforeValidator(values.choice(*known))


class Period(Section):
    """A part of a tariff: the price in some months, on some days, from ``start`` to ``end``. What is left out means all."""

    months: tuple[Annotated[int, BeforeValidator(_month)], ...] = tuple(range(1, 13))
    days: tuple[Annotated[str, _word(*DAYS)], ...] = DAYS
    start_minutes: TimeOfDay = Field(default=0, alias="start")
    end_minutes: TimeOfDay = Field(default=24 * 60, alias="end")
    price: Price = Field(examples=["0.25"])

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        found: list[Found] = [
            (f"is empty; name at least one of the {key}, or leave the key out for all", ((key,),))
            for key, given in (("months", self.months), ("days", self.days))
            if not given
        ]
        if self.start_minutes == self.end_minutes:
            found.append(("is also the start, so that the period has no length; write a later time", (("end",), ("start",))))
        refuse(found)
        return self


class Tariff(Section):
    """Prices by time of use."""

    timezone: Timezone = Field(examples=["Europe/Berlin"])
    periods: tuple[Period, ...] = Field(examples=["[{price: 0.25}]"])

    @model_validator(mode="after")
    def _has_periods(self) -> Self:
        if not self.periods:
            refuse([("is empty; write at least one period, for example {price: 0.25}", (("periods",),))])
        return self


class Source(Section):
    """A figure read from an HTTP endpoint: a place in its JSON, or a query to a Prometheus."""

    url: SourceUrl = Field(examples=["https://example.org/price.json"])
    json_path: Text | None = None
    prometheus: Text | None = None
    every_ns: Annotated[int, *duration("10s", "7d")] = Field(default=values.duration_ns("15m"), alias="every")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.json_path and self.prometheus:
            refuse([("cannot go with json_path; keep one of the two", (("prometheus",),))])
        if not self.json_path and not self.prometheus:
            refuse([("does not say what to read; add json_path, or prometheus with a query", ((),))])
        return self


class GpuPurchase(Section):
    """What a GPU cost to buy, how long it serves, and what it is worth then."""

    price: Annotated[float, *number(0, above=True, example="30000")] = Field(examples=["30000"])
    life_years: Annotated[float, *number(0, 50, above=True, example="4")] = Field(examples=["4"])
    residual_value: Price = 0.0

    @model_validator(mode="after")
    def _loses_value(self) -> Self:
        if self.residual_value > self.price:
            refuse([(f"{self.residual_value:g} is more than the price; write at most {self.price:g}", (("residual_value",),))])
        return self


class Cost(Section):
    """Prices. There are no default prices: without one there is no cost. Prices are per unit of ``currency``."""

    currency: Currency = "USD"
    energy_price_per_kwh: Price | None = None
    tariff: Tariff | None = None
    source: Source | None = None
    demand_charge_per_kw_month: Price | None = None
    pue: Annotated[float, *number(1, 10, example="1.2")] = 1.0
    host_watts: Annotated[float, *number(0, 1_000_000, above=True, example="400")] | None = None
    gpu_hourly: Annotated[Mapping[Label, Price], EMPTY_SECTION] = Field(default_factory=dict)
    gpu_purchase: Annotated[Mapping[Label, GpuPurchase], EMPTY_SECTION] = Field(default_factory=dict)
    gpu_hourly_includes: Annotated[tuple[Annotated[Literal["energy", "host"], _word("energy", "host")], ...], EMPTY_LIST] = ()

    @model_validator(mode="after")
    def _one_price(self) -> Self:
        ways = [key for key in ("energy_price_per_kwh", "tariff", "source") if getattr(self, key) is not None]
        found: list[Found] = [(f"cannot go with {ways[0]}; keep one of the two", ((key,),)) for key in ways[1:]]
        found += [
            ("has an hourly rate in gpu_hourly too; keep one of the two", (("gpu_purchase", model),))
            for model in self.gpu_purchase
            if model in self.gpu_hourly
        ]
        refuse(found)
        return self


class Carbon(Section):
    """Grams of CO2 equivalent per kWh, and what they count: generation only (direct) or the whole life of the plants (lifecycle)."""

    intensity_grams_per_kwh: Annotated[float, *number(0, 5000, example="350")] | None = None
    factor: Annotated[Literal["direct", "lifecycle"], _word("direct", "lifecycle")] = "direct"
    source: Source | None = None

    @model_validator(mode="after")
    def _one_intensity(self) -> Self:
        if self.intensity_grams_per_kwh is not None and self.source is not None:
            refuse([("cannot go with intensity_grams_per_kwh; keep one of the two", (("source",),))])
        return self
