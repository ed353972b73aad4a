"""Load models from a run's folder, a checkpoint, a folder that `save_pretrained` wrote, or the Hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scav_model.config import Config, from_dict, to_dict
from scav_model.encoders.weights import weights_sha256
from scav_model.extras import needed_by
from scav_model.storage.checkpoint_file import load
from scav_model.storage.files import make_folder, replacing, write_text

with needed_by("reading models"):
    from safetensors import safe_open
    from safetensors.torch import save

CHECKPOINT = "checkpoint.pt"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Entries of the metadata of model.safetensors.
WEIGHTS_SHA256, CONFIG_SHA256 = "weights_sha256", "config_sha256"
KINDS = (
    f"a run's folder with {CHECKPOINT}, a checkpoint file, a folder that save_pretrained wrote, or a repository of the "
    "Hugging Face Hub as owner/name"
)


@dataclass(frozen=True)
class SavedModel:
    """The config of a training run, and the weights that it left."""

    config: Config
    weights: Mapping[str, Tensor]
    source: str  # file of the weights, for errors
    settings: str  # where the config is, for errors
    damage: str | None = None  # how the config differs from that saved with the weights

    def fill(self, model: nn.Module) -> None:
        """Sets the weights of a model that was made from the config."""
        set_weights(model, self.weights, f"{self.source} does not hold the weights of the model in {self.settings}")
        if self.damage is not None:
            raise ValueError(self.damage)
        check_finite_weights(self.weights, self.source)


def find(name: str | Path, **hub: Any) -> SavedModel:
    """The model of that name, one of `KINDS`; `hub` are `download`'s arguments.

    Raises:
        FileNotFoundError: there is none; the message says what was looked for.
        ValueError: it is damaged, or no model.
    """
    path = Path(name)
    if path.is_dir():
        if (path / CONFIG).exists() or (path / WEIGHTS).exists() or not (path / CHECKPOINT).exists():
            return read_folder(path)
        path = path / CHECKPOINT
    if path.exists():
        return read_checkpoint(path)
    # The name of a file in a folder that is here is no repository's.
    here = path.parent != Path() and path.parent.is_dir()
    if here or path.suffix in (".pt", ".safetensors") or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        raise FileNotFoundError(
            f"no checkpoint at {path}: tried a file and a folder of that name, and it is no owner/name of the Hub; "
            f"expected {KINDS}"
        )
    return read_folder(download(str(name), **hub))


def read_checkpoint(path: Path) -> SavedModel:
    state = load(path)
    for part in ("config", "model"):
        if not isinstance(state.get(part), Mapping):
            raise ValueError(f"{path} has no {part}: it is no checkpoint of a training run; name another one")
    return SavedModel(as_config(state["config"], path), state.get("average", state["model"]), str(path), "its config")


def read_folder(folder: Path) -> SavedModel:
    settings = read_settings(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}; weights of other kinds are not read")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except Exception as error:
        # Damage makes the library raise errors of many kinds.
        raise ValueError(f"{path} does not hold the weights of the model in {CONFIG}: {one_line(error)}") from error
    if metadata.get(WEIGHTS_SHA256) not in (None, weights_sha256(weights)):
        raise ValueError(
            f"{path} is damaged: its weights are not those that were saved, by their checksum; copy it again"
        )
    damage = None
    if metadata.get(CONFIG_SHA256) not in (None, settings_sha256(settings)):
        damage = (
            f"{folder / CONFIG} is not what was saved with the weights, by its checksum; copy it again, or save the "
            "model anew with the config that it should have"
        )
    return SavedModel(as_config(settings, folder / CONFIG), weights, str(path), CONFIG, damage)


def write_folder(folder: Path, config: Config, weights: Mapping[str, Tensor]) -> None:
    """Writes what `read_folder` reads."""
    settings = to_dict(config)
    metadata = {
        "format": "pt",
        WEIGHTS_SHA256: weights_sha256(weights),
        CONFIG_SHA256: settings_sha256(settings),
    }
    make_folder(folder)
    with replacing(folder / WEIGHTS) as file:
        file.write(save(dict(weights), metadata=metadata))
    write_text(folder / CONFIG, json.dumps(settings, indent=2) + "\n")


def read_settings(folder: Path) -> Any:
    """Read config.json."""
    path = folder / CONFIG
    if not path.is_file():
        below = sorted(file.parent.name for file in folder.glob(f"*/{CHECKPOINT}"))
        runs = f"; there are runs in its folders {', '.join(below)}" if below else ""
        raise FileNotFoundError(
            f"{folder} has no {CONFIG}; expected a folder that save_pretrained wrote, or a run's folder, with "
            f"{CHECKPOINT}{runs}"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def settings_sha256(settings: Any) -> str:
    """SHA-256 of settings, whatever their order and the spaces between them."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def as_config(settings: Any, source: Path) -> Config:
    """The config that `to_dict` made settings of."""
    try:
        if not isinstance(settings, Mapping):
            raise TypeError(f"expected settings by name, got {type(settings).__name__}")
        return from_dict(Config, settings)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{source} holds no config of this version: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def set_weights(module: nn.Module, weights: Any, fault: str) -> None:
    """Loads a state_dict of the same names and shapes; a ValueError that begins with `fault` where it is another."""
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{fault}: expected tensors by name")
    try:
        module.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        # One line says it; PyTorch has another for each tensor.
        raise ValueError(f"{fault}: {' '.join(str(error).split(chr(10) + chr(9))[:2])}") from error


def nonfinite(weights: Mapping[str, Tensor]) -> str | None:
    """Name the first tensor with NaN or infinity, and how many tensors have some; None where all are finite."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return f"{name} has {int((~tensor.isfinite()).sum())} of {tensor.numel()} numbers that are NaN or infinite"
    return None


def check_finite_weights(weights: Mapping[str, Tensor], source: str) -> None:
    if found := nonfinite(weights):
        raise ValueError(f"{source}: {found}; name an earlier checkpoint, or train again with a lower learning rate")


def download(
    name: str,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a repository's config and weights, downloaded where they are not yet."""
    with needed_by(f"{name} is no file or folder here; to look on the Hugging Face Hub, scav_model"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=[CONFIG, WEIGHTS],
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"no model {name}: tried a file and a folder of that name, then the Hub's repository, which cannot be had "
            f"({one_line(error)}); expected {KINDS}"
        ) from error
    return Path(folder)
