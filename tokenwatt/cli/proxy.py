"""``tokenwatt proxy``: meter a server that has no counters, from in front of it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tokenwatt.cli.errors import Failure

log = logging.getLogger("tokenwatt.proxy")

DEFAULT_LISTEN: Final = "127.0.0.1:28901"
DEFAULT_REPORT_TO: Final = "http://127.0.0.1:28900"
_GC_THRESHOLD: Final = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whom to meter, where to listen, whom to tell."""
    from tokenwatt.proxy.addresses import upstream_url
    from tokenwatt.settings.addresses import listen_address, server_url
    from tokenwatt.settings.values import name

    parser.add_argument("--upstream", metavar="URL", type=_read(upstream_url), required=True, help="the server, for example http://127.0.0.1:11434")
    parser.add_argument("--listen", metavar="ADDRESS", type=_read(listen_address), default=DEFAULT_LISTEN,
                        help=f"where clients connect, host:port (default {DEFAULT_LISTEN})")  # fmt: skip
    parser.add_argument("--report-to", metavar="URL", type=_read(server_url), default=DEFAULT_REPORT_TO,
                        help=f"the meter that is told of tokens (default {DEFAULT_REPORT_TO})")  # fmt: skip
    parser.add_argument("--token-file", metavar="FILE", type=Path, help="a file with the bearer token that the meter asks for")
    parser.add_argument("--server", metavar="NAME", type=_read(name), help="the server's name at the meter (default generic-PORT)")


def main(args: argparse.Namespace) -> int:
    """Pass bytes through and report tokens until SIGTERM.

    Raises:
        Failure: the address cannot be listened on, or the token file cannot be read.
    """
    from tokenwatt import logs
    from tokenwatt.cli import USAGE
    from tokenwatt.listening import ListenError
    from tokenwatt.proxy.addresses import endpoint, same_place
    from tokenwatt.proxy.post import Post, TokenFileError
    from tokenwatt.proxy.reporter import Reporter
    from tokenwatt.proxy.service import Proxy, allow_files, serve

    if same_place(args.listen, args.upstream):
        print(f"tokenwatt: --upstream {args.upstream} is where this proxy listens itself; name the server's own address", file=sys.stderr)
        return USAGE
    try:
        post = Post(args.report_to, args.token_file)
    except TokenFileError as e:
        raise Failure(str(e)) from None
    logs.setup("INFO")
    allow_files()
    gc.set_threshold(_GC_THRESHOLD)
    server = args.server or f"generic-{endpoint(args.upstream).port}"

    async def run() -> None:
        reporter = Reporter(post, server=server, url=args.upstream)
        await serve(Proxy(args.upstream, reporter), args.listen, lambda port: _greet(args, server, port))
        log.info("%s", reporter.tally.summary())

    try:
        asyncio.run(run())
    except ListenError as e:
        raise Failure(str(e)) from None
    return 0


def _greet(args: argparse.Namespace, server: str, port: int) -> None:
    host = args.listen.rpartition(":")[0]
    log.info(
        "Listening on http://%s:%d: point clients there instead of to %s. Tokens go to %s as server '%s'.",
        host, port, args.upstream, args.report_to, server,
    )  # fmt: skip


def _read(reader: Callable[[str], str]) -> Callable[[str], str]:
    """``reader`` for argparse, which shows only the words of an error of its own."""

    def read(value: str) -> str:
        try:
            return reader(value)
        except ValueError as e:
            raise argparse.ArgumentTypeError(str(e)) from None

    return read
