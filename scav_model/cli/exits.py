"""The program's name, its exit codes, and the line with which a stopped command ends."""

import sys

PROGRAM = "scav"
FAILURE, INTERRUPTED, UNREAD, TERMINATED = 1, 130, 141, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the command ends as it does after Ctrl-C."""


def interrupted(command: str, stop: KeyboardInterrupt, advice: str = "") -> int:
    """Say in one line that a command was stopped; return the exit code."""
    terminated = isinstance(stop, Terminated)
    print(f"{command}: {'terminated' if terminated else 'interrupted'}{advice}", file=sys.stderr)
    return TERMINATED if terminated else INTERRUPTED
