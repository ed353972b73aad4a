"""Training objectives, as named in the config."""

from scav_model.objectives.encoding import Encode
from scav_model.objectives.objective import Objective

__all__ = ["Encode", "Objective"]
