"""A pytest plugin: loads the toy distance's kernels, which a rebuilt extension would hold."""

import os

import torch

torch.ops.load_library(os.environ["SCAV_SCAFFOLD_LIBRARY"])
