"""Packages that an extra of scav-kernels installs: the error of a missing one names the extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# The extra that installs a package, by the name that the package is imported by.
EXTRAS = {
    "av": "model",
    "docstring_parser": "model",
    "huggingface_hub": "model",
    "jsonargparse": "model",
    "lightning_fabric": "model",
    "matplotlib": "model",
    "orjson": "model",
    "safetensors": "model",
    "tensorboard": "model",
    "torchaudio": "model",
    "tqdm": "model",
    "yaml": "model",
    "wandb": "wandb",
    "open_clip": "encoders",
    "speechbrain": "encoders",
    "torchvision": "encoders",
    "h5py": "importers",
    "webdataset": "importers",
    "datasets": "mteb",
    "mteb": "mteb",
    "faiss": "search",
    "ray": "ray",
}


class MissingPackageError(ImportError):
    """A package is missing; the message names the extra that installs it."""


@contextmanager
def needed_by(user: str) -> Iterator[None]:
    """Explains the error of an import in its block: `user` is who needs the package, the subject of the message.

    Raises:
        MissingPackageError: a package of `EXTRAS` is missing.
    """
    try:
        yield
    except ImportError as error:
        explained = explain(error, user)
        if explained is error:
            raise
        raise explained from error


def explain(error: ImportError, user: str) -> ImportError:
    """Return the error that names the extra to install; `error` itself where it is explained, or of no extra."""
    package = (error.name or "").partition(".")[0]
    if isinstance(error, MissingPackageError) or package not in EXTRAS:
        return error
    return MissingPackageError(
        f"{user} needs {package} ({error}); pip install 'scav-kernels[{EXTRAS[package]}]'", name=error.name
    )
