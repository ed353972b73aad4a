"""The command `scav`. Everything heavy is imported by the command that needs it, so that help is quick.

`models`, `combinations`, `data`, `probe` and `search` have the commands as functions, `tree` says by which words they
are called, and `parser` makes options of their parameters. `terminal` lets Ctrl-C end each of them.
"""

from scav_model.cli.parser import main

__all__ = ["main"]
