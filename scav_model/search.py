"""Deprecated name of scav_model.index."""

from scav_model.moved import forward

__getattr__ = forward(__name__, "scav_model.index")
