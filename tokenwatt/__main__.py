"""``python -m tokenwatt``: the same as the command ``tokenwatt``."""

import sys

from tokenwatt.cli import main

if __name__ == "__main__":
    sys.exit(main())
