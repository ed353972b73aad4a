"""The dispatcher's library of ops, `torch.ops.scav`."""

import torch

LIBRARY = torch.library.Library("scav", "FRAGMENT")


def find_op(name: str) -> torch._ops.OpOverload:
    """Return the op of a name, "dtw" or "scav::dtw"."""
    return getattr(torch.ops.scav, name.removeprefix("scav::")).default
