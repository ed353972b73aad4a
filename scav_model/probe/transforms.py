"""Deprecated name of scav_model.experiments.probes.transforms."""

from scav_model.moved import forward

__getattr__ = forward(__name__, "scav_model.experiments.probes.transforms")
