"""One process that reads every board once, for tests of the library that a process finds: prints JSON."""

from __future__ import annotations

import json
import sys

from tokenwatt.energy.nvml import NvmlSource
from tokenwatt.energy.source import SourceUnavailable


def main() -> None:
    source = NvmlSource()
    try:
        gpus = source.open()
    except SourceUnavailable as error:
        json.dump({"unavailable": str(error)}, sys.stdout)
        return
    readings = [source.read(gpu.uuid, want_processes=True)._asdict() for gpu in gpus]
    state = source.state(gpus[0].uuid)
    figures = {} if state is None else {"memory": state.memory_used_bytes, "temperature": state.temperature_celsius}
    events = None if state is None or state.clock_events is None else sorted(state.clock_events)
    source.close()
    json.dump({"readings": readings, "state": figures, "events": events}, sys.stdout)


if __name__ == "__main__":
    main()
