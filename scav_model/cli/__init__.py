"""The command `scav`. Each command imports what it needs, so that help is quick.

models, data, search: commands as functions
imported: commands and options of functions in other modules
tree: the words by which commands are called
words: puts a command line into order
parser: makes options of the parameters of functions
places: names what a path is
process: `main`, which ends every command in one line
terminal: lets Ctrl-C end a command that waits outside Python
"""

from scav_model.cli.process import main

__all__ = ["main"]
