"""Audio-visual training and search on top of `scav_kernels`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scav_model.data.decode import Media, read_clip
    from scav_model.index import Hit, SearchIndex
    from scav_model.model import AudioVisualModel

__all__ = ["AudioVisualModel", "Hit", "Media", "SearchIndex", "read_clip"]

# Imported when asked for: not all who import the package need PyAV, or torch.
_PLACES = {
    "AudioVisualModel": "scav_model.model",
    "Hit": "scav_model.index",
    "Media": "scav_model.data.decode",
    "SearchIndex": "scav_model.index",
    "read_clip": "scav_model.data.decode",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
