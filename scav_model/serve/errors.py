"""Errors that say what is wrong with a request, beyond those of the library."""


class NotFoundError(LookupError):
    """The requested thing does not exist; the message says why."""


class BusyError(RuntimeError):
    """The server has too much to do; the message says to try again."""
