"""One thread here, too."""

from ops.conftest import threads

__all__ = ["threads"]
