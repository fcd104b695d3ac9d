"""How a command fails."""


class Failure(Exception):
    """A command cannot do what it was asked for: the text says why, in one line for people. The exit status is 1."""
