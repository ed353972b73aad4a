"""Reading checkpoints without running what is in them, naming them by hash, and telling trained from untrained."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scav_model.encoders.encoder import EncoderError

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def read_checkpoint(path: Path | str) -> Any:
    """Read a `.pt` file with PyTorch's restricted reader: tensors and plain containers, never code.

    Raises:
        EncoderError: no such file, not a checkpoint, or one that asks for more than tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise EncoderError(f"no checkpoint at {path}; name a file that is there")
    archive = zipfile.is_zipfile(path)
    if archive and _is_torchscript(path):
        raise EncoderError(
            f"{path} is a TorchScript archive, which carries code; save its state_dict() as safetensors and name that"
        )
    try:
        # Only the archive format can be mapped instead of read.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[-1] if str(error) else "it is not a checkpoint"
        raise EncoderError(
            f"{path} holds more than weights, which could run code when read, or is no checkpoint ({reason}); "
            "it was not loaded: get the official file, or a safetensors one"
        ) from error
    except (RuntimeError, EOFError, OSError, UnicodeDecodeError, KeyError) as error:
        raise EncoderError(f"{path} is not a readable checkpoint, or damaged: {error}; copy it again") from error


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and values, in the order of the names: alike whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def looks_untrained(module: nn.Module) -> bool:
    """Return whether every normalization layer still has its initial gains and offsets, exactly one and zero.

    One optimizer step moves practically all of them, so trained weights cannot look so; weights that were initialized
    and never loaded or trained always do.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, NORMS) and layer.weight is not None]
    return bool(norms) and all(
        bool((layer.weight == 1).all()) and (layer.bias is None or not bool(layer.bias.any())) for layer in norms
    )
