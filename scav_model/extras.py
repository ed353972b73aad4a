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
    "fastapi": "model,serve",
    "starlette": "model,serve",
    "uvicorn": "model,serve",
    "h5py": "importers",
    "datasets": "model,mteb",
    "mteb": "model,mteb",
    "ray": "ray",
    "sklearn": "model,probe",
}


class MissingPackageError(ImportError):
    """A package is missing; the message names the extra that installs it."""


@contextmanager
def needed_by(user: str, package: str | None = None, instead: str = "") -> Iterator[None]:
    """Explain the error of an import in its block.

    Args:
        user: who needs the package, the subject of the message.
        package: one of `EXTRAS`, to name where another is missing that it needs itself, or where it cannot load its own
            libraries; None explains no such error.
        instead: how to do without, the end of the message.

    Raises:
        MissingPackageError: a package of `EXTRAS`, or one that `package` needs, is missing, or does not fit torch.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if package is None:
            raise
        without = f", or {instead}" if instead else ""
        raise MissingPackageError(
            f"{user} needs {package}, which cannot load its libraries with this torch ({error.__cause__ or error}); "
            f"install the build of {package} for this torch, from where torch came{without}",
            name=package,
        ) from error
    except ImportError as error:
        explained = explain(error, user, package, instead)
        if explained is error:
            raise
        raise explained from error


def explain(error: ImportError, user: str, package: str | None = None, instead: str = "") -> ImportError:
    """Return the error that names the extra to install; `error` itself where it is explained, or of no extra."""
    missing = (error.name or "").partition(".")[0]
    if missing not in EXTRAS and package is not None:
        missing = package
    if isinstance(error, MissingPackageError) or missing not in EXTRAS:
        return error
    advice = f"pip install 'scav-kernels[{EXTRAS[missing]}]'" + (f", or {instead}" if instead else "")
    return MissingPackageError(f"{user} needs {missing} ({error}); {advice}", name=error.name)
