"""``tokenwatt config``: check the settings, or show those in force."""

from __future__ import annotations

import argparse
import sys

from tokenwatt.cli.common import add_settings_arguments, load_settings, settings_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and with which settings."""
    parser.add_argument(
        "action",
        choices=("check", "show"),
        help="check: tell all that is wrong. show: print the settings in force, with the origin of what is not a default",
    )
    add_settings_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Exit status 0 where the settings can be used; warnings go to stderr."""
    loaded = load_settings(args)
    for warning in loaded.warnings:
        print(f"tokenwatt: warning: {warning}", file=sys.stderr)
    if args.action == "check":
        path = settings_path(args)
        print(f"{path}: fine" if path else "no settings file, the defaults hold: fine")
    else:
        from tokenwatt.settings.show import show

        print(show(loaded.settings, loaded.origins), end="")
    return 0
