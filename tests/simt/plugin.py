"""A pytest plugin, `-p tests.simt.plugin`: the ops under test are the GPU's kernels, run by the shim.

The sanitizers' runtime must come before everything else in the process: test_simt.py says how.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

import scav_kernels  # noqa: F401  (registers what the shim's ops replace)
from tests.simt.build import LIBRARY

torch.ops.load_library(os.environ.get("SCAV_SIMT_LIBRARY", LIBRARY))


@contextmanager
def settings(**values: object) -> Iterator[None]:
    """Of the shim, which reads them at each launch."""
    names = {f"SCAV_SIMT_{name}": str(value) for name, value in values.items()}
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
