"""Measure and serve until told to stop: what ``run`` and ``demo`` have in common."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable

from tokenwatt.cli.errors import Failure
from tokenwatt.energy.source import EnergySource, SourceUnavailable
from tokenwatt.export.api import create_app
from tokenwatt.export.publisher import Publisher
from tokenwatt.export.serve import HttpServer
from tokenwatt.listening import ListenError
from tokenwatt.pipeline import Pipeline
from tokenwatt.settings.model import Settings

GC_THRESHOLD = 20_000
"""Snapshots are trees, which go without the collector. At Python's 700 it would walk each of them several times for nothing."""

log = logging.getLogger("tokenwatt")

SWITCH_INTERVAL_S = 0.001
"""How long a thread may keep the others waiting: at Python's 5 ms a power tick would often be late while a page is rendered."""


def serve(
    source: EnergySource,
    settings: Settings,
    *,
    wait_for_gpu: bool = False,
    debug: bool = False,
    on_listening: Callable[[str], None] | None = None,
) -> int:
    """Run the pipeline behind the HTTP server in this thread, until SIGTERM or SIGINT. Returns the exit status.

    Raises:
        Failure: the address cannot be listened on, or there is no GPU.
    """
    publisher = Publisher()
    failed: list[BaseException] = []

    def fail(error: BaseException) -> None:
        failed.append(error)
        http.stop()

    pipeline = Pipeline(source, settings, on_snapshot=publisher.publish, on_failure=fail, debug=debug)
    app = create_app(publisher, simulated=source.simulated, tokens=pipeline.pushed, write_token_file=settings.write_token_file)
    try:
        http = HttpServer(app, settings.listen_host, settings.listen_port)
    except ListenError as e:
        raise Failure(str(e)) from None
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        pipeline.start(wait_for_gpu=wait_for_gpu)
    except SourceUnavailable as e:
        http.close()
        raise Failure(f"{e}; without a GPU, `tokenwatt demo` shows the whole thing on a simulated node") from None
    host = f"[{settings.listen_host}]" if ":" in settings.listen_host else settings.listen_host
    url = f"http://{host}:{http.port}"
    log.info("Listening on %s", url)
    if on_listening is not None:
        on_listening(url)
    # What is loaded by now stays: the collector need not look at it again each time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    try:
        http.run()
    finally:
        pipeline.stop()
        source.close()
    return 1 if failed else 0
