"""``tokenwatt health``: is the meter that runs here healthy? For container checks, which run it again and again."""

from __future__ import annotations

import argparse
import http.client
import os
from pathlib import Path
from typing import Final

from tokenwatt.cli.common import add_settings_arguments, settings_path
from tokenwatt.cli.errors import Failure
from tokenwatt.settings.addresses import DEFAULT_LISTEN, listen_address, split_address
from tokenwatt.settings.values import printable

_TIMEOUT_S: Final = 5.0
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which settings tell where the meter listens."""
    add_settings_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Exit status 0 and "healthy", or 1 and the reason.

    Raises:
        Failure: nothing answers, or it answers that it is not healthy.
        SettingsError: the settings file cannot be read.
    """
    address = _address(args)
    host, port = split_address(address)
    if port == 0:
        raise Failure(f"{address}: the system chose the port; give the one that the log of 'tokenwatt run' names, with --listen")
    status, text = _ask(_LOOPBACK.get(host, host), port, address)
    if status != 200:
        raise Failure(f"http://{address}/-/healthy: not healthy: {status} {text}".rstrip())
    print("healthy")
    return 0


def _address(args: argparse.Namespace) -> str:
    """Where the meter listens, as its settings say.

    The settings are not loaded in full: that takes a quarter of a second of CPU, each few seconds, on a node whose meter uses less than
    that. A file that was broken elsewhere after the start of the meter is also none of a health check's business.
    """
    variable = os.environ.get("TOKENWATT_LISTEN")
    path = settings_path(args)
    if args.listen is not None:
        origin, listen = "--listen", args.listen
    elif variable:
        origin, listen = "TOKENWATT_LISTEN", variable
    elif path:
        origin, listen = _from_file(path)
    else:
        return DEFAULT_LISTEN
    try:
        return listen_address(listen)
    except ValueError as e:
        raise Failure(f"{origin}: listen: {e}") from None


def _from_file(path: Path) -> tuple[str, object]:
    from tokenwatt.settings.document import read

    document = read(path)
    line = document.lines.get(("listen",))
    return f"{document.name}:{line}", document.values.get("listen", DEFAULT_LISTEN)


def _ask(host: str, port: int, address: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/-/healthy")
        response = connection.getresponse()
        return response.status, printable(" ".join(response.read(200).decode("utf-8", "replace").split()))
    except TimeoutError:
        raise Failure(f"http://{address}/-/healthy: no answer within {_TIMEOUT_S:g} s") from None
    except OSError as e:
        raise Failure(f"http://{address}/-/healthy: {(e.strerror or str(e)).lower()}") from None
    except http.client.HTTPException as e:
        raise Failure(f"http://{address}/-/healthy: the answer is not HTTP ({type(e).__name__})") from None
    finally:
        connection.close()
