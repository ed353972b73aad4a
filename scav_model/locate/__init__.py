"""Find where in a long recording a short sound or picture occurs."""

from scav_model.locate.recording import Located, Place, locate

__all__ = ["Located", "Place", "locate"]
