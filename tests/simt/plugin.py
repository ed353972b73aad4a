"""A pytest plugin, `-p tests.simt.plugin`: the ops under test are the GPU's kernels, run by the shim.

The sanitizers' runtime must come before everything else in the process: test_simt.py says how.
"""

import torch

import scav_kernels  # noqa: F401  (registers what the shim's ops replace)
from tests.simt.build import LIBRARY

torch.ops.load_library(LIBRARY)
