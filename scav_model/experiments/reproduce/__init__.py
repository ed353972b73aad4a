"""The paper's table: `scav reproduce`."""

from scav_model.experiments.reproduce.run import reproduce

__all__ = ["reproduce"]
