"""The command `scav`. Everything heavy is imported by the command that needs it, so that help is quick.

`models`, `data` and `search` have commands as functions, `imported` takes those of other modules, and options of
functions that commands call; `tree` says by which words they are called, `words` puts a command line into order,
`parser` makes options of the functions' parameters, `places` names what a path is, and `process` has `main`, which ends
every command in one line. `terminal` lets Ctrl-C end a command that waits outside Python.
"""

from scav_model.cli.process import main

__all__ = ["main"]
