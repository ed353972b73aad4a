"""The folder is not called triton: pytest puts tests/ on the path, where it would hide the package."""

import os

from ops.conftest import threads

__all__ = ["threads"]

# Collected by test_interpreted.py, in a process of their own.
collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
