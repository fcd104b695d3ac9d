"""docs/metrics.md, from the table of families: ``python -m tokenwatt.export.docs > docs/metrics.md``."""

from __future__ import annotations

import sys
from typing import Final

from tokenwatt.export.families import FAMILIES, Family, nothing

_HEAD: Final = """# Metrics

What `/metrics` shows. Names, types and labels are stable. (This page is made from `tokenwatt/export/families.py` by
`python -m tokenwatt.export.docs`.)

A figure that cannot be known is absent, never 0. A family without samples still shows its HELP and TYPE. When the last snapshot is older
than 10 seconds, `/metrics` answers 503.

Counters of one server are always from the same instant, so the ratio of their increases is right at any scrape interval:

```promql
sum by (server, model) (rate(tokenwatt_tokens_total{kind="generation"}[5m]))
  / sum by (server, model) (rate(tokenwatt_energy_joules_total[5m]))
```

A server whose counters move only when a request ends says nothing while it runs. Windows shorter than the time that its requests take
(`resolution_s` in `/api/v1/servers`) have no figures of tokens.

Energy is kept in whole microjoules. What a sample holds is the nearest double: exact to the microjoule up to 8.5 GJ.
"""

_EMPTY: Final = """## Always empty in this version

Their names are fixed, so that dashboards may use them. Nothing in this version measures or prices what they are for.
"""

_COLUMNS: Final = "| name | labels | what it says |\n|---|---|---|"


def page() -> str:
    """The whole page, in Markdown."""
    filled = [f for f in FAMILIES if f.collect is not nothing]
    counters = [_row(f) for f in filled if f.type == "counter"]
    gauges = [_row(f) for f in filled if f.type == "gauge"]
    empty = [_row(f) for f in FAMILIES if f.collect is nothing]
    parts = [_HEAD, "## Counters", "", _COLUMNS, *counters, "", "## Gauges", "", _COLUMNS, *gauges, ""]
    return "\n".join([*parts, _EMPTY, _COLUMNS, *empty, ""])


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.name}` | {labels} | {family.help} |"


if __name__ == "__main__":
    sys.stdout.write(page())
