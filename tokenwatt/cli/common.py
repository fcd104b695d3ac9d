"""What the commands that read settings have in common."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pydantic and PyYAML take 0.25 s of CPU: health, which runs again and again, does without
    from tokenwatt.settings.load import Loaded

log = logging.getLogger("tokenwatt.settings")


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--listen``."""
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="the settings, a YAML file (also TOKENWATT_CONFIG); without one the defaults hold"
    )
    parser.add_argument("--listen", metavar="ADDRESS", help="where the meter listens, host:port (default 127.0.0.1:28900)")


def settings_path(args: argparse.Namespace) -> Path | None:
    """The settings file: ``--config``, else TOKENWATT_CONFIG, else none."""
    given: Path | None = args.config
    variable = os.environ.get("TOKENWATT_CONFIG")
    return given or (Path(variable) if variable else None)


def load_settings(args: argparse.Namespace, *, log_level: str | None = None) -> Loaded:
    """The settings in force for a command with :func:`add_settings_arguments`.

    With ``log_level``, logging is set up, and what the settings warn of is logged.

    Raises:
        SettingsError: they are wrong. The command line says it, one line a problem.
    """
    from tokenwatt.settings.load import load

    flags = {"listen": args.listen} if args.listen is not None else {}
    loaded = load(settings_path(args), os.environ, flags)
    if log_level is not None:
        from tokenwatt import logs

        logs.setup(log_level)
        for warning in loaded.warnings:
            log.warning("%s", warning)
    return loaded
