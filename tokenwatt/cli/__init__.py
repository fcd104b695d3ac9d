"""The commands. Each is a module of its own, imported only when it is the one that runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from tokenwatt.cli.errors import Failure

FAILURE: Final = 1
USAGE: Final = 2
_INTERRUPTED: Final = 130  # as shells tell of SIGINT
_BROKEN_PIPE: Final = 141  # and of SIGPIPE


class Command(NamedTuple):
    """One entry of the table. ``module`` has ``add_arguments(parser)`` and ``main(args) -> int``."""

    name: str
    help: str
    module: str


COMMANDS: Final = (
    Command("run", "run the meter: sample, serve /metrics and the REST API", "tokenwatt.cli.run"),
    Command("demo", "run the meter on a simulated node", "tokenwatt.cli.demo"),
    Command("snapshot", "take one reading, print it and exit", "tokenwatt.cli.snapshot"),
    Command("proxy", "meter a server without counters (Ollama, LM Studio) from in front of it", "tokenwatt.cli.proxy"),
    Command("health", "tell by the exit status whether the meter that runs here is healthy", "tokenwatt.cli.health"),
    Command("config", "check the settings, or show those in force", "tokenwatt.cli.config"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 fine, 1 a failure said on stderr, 2 usage.

    With TOKENWATT_DEBUG set, a failure shows its traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(words)
        sys.stdout.flush()  # here, so that a reader that left is met below and not at exit
        return status
    except SystemExit as e:  # argparse has said what is wrong
        return e.code if isinstance(e.code, int) else USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # What is left in the buffer has no reader: let the flush at exit have one.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE


def _run(words: list[str]) -> int:
    if not words:
        _parser().print_help(sys.stderr)
        return USAGE
    name = words[0]
    if name.startswith("-"):
        _parser().parse_args(words[:1])  # ends here with --help, with --version, and with an option that there is not
        return USAGE
    command = next((c for c in COMMANDS if c.name == name), None)
    return _run_command(command, words[1:]) if command else _unknown(name)


def _run_command(command: Command, words: list[str]) -> int:
    from tokenwatt.settings.problems import SettingsError

    description = f"{command.help[0].upper()}{command.help[1:]}."
    parser = argparse.ArgumentParser(f"tokenwatt {command.name}", description=description, allow_abbrev=False)
    module = importlib.import_module(command.module)
    module.add_arguments(parser)
    args = parser.parse_args(words)
    try:
        return int(module.main(args))
    except BrokenPipeError:
        raise
    except (Failure, SettingsError, OSError) as e:
        if os.environ.get("TOKENWATT_DEBUG"):
            raise
        for line in _told(e):
            print(f"tokenwatt: {line}", file=sys.stderr)
        return FAILURE


def _told(error: Exception) -> list[str]:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return [f"{where}{error.strerror.lower()}"]
    return str(error).splitlines() or [type(error).__name__]


def _parser() -> argparse.ArgumentParser:
    from tokenwatt import __version__

    width = max(len(c.name) for c in COMMANDS)
    commands = "\n".join(f"  {c.name:<{width}}  {c.help}" for c in COMMANDS)
    parser = argparse.ArgumentParser(
        "tokenwatt",
        usage="tokenwatt COMMAND [OPTION ...]",
        description="The meter for AI inference: tokens per joule and cost per token.",
        epilog=f"commands:\n{commands}\n\ntokenwatt COMMAND --help tells the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tokenwatt {__version__}")
    return parser


def _unknown(name: str) -> int:
    from tokenwatt.settings.values import nearest, shown

    names = [c.name for c in COMMANDS]
    near = nearest(name, names)
    right = f"did you mean '{near}'?" if near else f"the commands are: {', '.join(names)}"
    print(f"tokenwatt: there is no command {shown(name)}; {right}", file=sys.stderr)
    return USAGE
