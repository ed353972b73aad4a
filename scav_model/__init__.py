"""Audio-visual training and search on top of `scav_kernels`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scav_model.data.decode import read_clip as read_clip

__all__ = ["read_clip"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: PyAV is not needed by all who import the package.
    if name == "read_clip":
        from scav_model.data.decode import read_clip

        return read_clip
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
