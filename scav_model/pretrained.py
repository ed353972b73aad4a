"""Models that are saved, shared and had again: as folders, here or on the Hugging Face Hub, and from checkpoints.

No code is run from any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from scav_model.config import Config, ModelConfig
from scav_model.devices import to_device
from scav_model.extras import needed_by
from scav_model.saved_model import find, one_line, write_folder

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True)
class Origin:
    """The source that a model was loaded from.

    Attributes:
        name: as it was given to `from_pretrained`.
        config: of the training run.
    """

    name: str
    config: Config


class Pretrained(nn.Module):
    """Save, publish and load a model that has a `config: ModelConfig`.

    huggingface_hub's own mixin also takes pickled weights where a repository has no others; this takes safetensors
    alone.
    """

    config: ModelConfig
    loaded_from: Origin | None = None

    def save_pretrained(self, folder: str | Path, config: Config | None = None) -> None:
        """Writes config.json and model.safetensors. `config` is that of the training run; None takes the one that the
        model was loaded with, if any.

        The metadata of model.safetensors hold the SHA-256 of the weights and of the config, which loading checks.
        """
        if config is None:
            config = Config() if self.loaded_from is None else self.loaded_from.config
        settings = replace(config, model=self.config)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_folder(Path(folder), settings, tensors)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        device: str | torch.device = "cpu",
    ) -> Self:
        """The model of a training run, of a folder, or of a repository of the Hub, in evaluation mode.

        Args:
            name: A run's folder, whose checkpoint.pt is taken; a checkpoint file; a folder that `save_pretrained`
                wrote; or a repository as owner/name.
            revision: Branch, tag or commit of the repository; None takes its main branch.
            token: For a private repository; None takes that of `hf auth login`.
            cache_dir: Folder for what is downloaded; None takes huggingface_hub's.
            local_files_only: Download nothing, take what the cache has.
            device: Where the model shall be.

        Raises:
            FileNotFoundError: no such file, folder or repository, or a folder without config.json or model.safetensors.
            ValueError: a file is damaged, or the weights are not finite, or not those of the config's model; there is
                no such device.
            RuntimeError: this machine lacks the device.
        """
        hub = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        return load_pretrained(cls, name, device, **hub)[0]

    def push_to_hub(
        self,
        name: str,
        config: Config | None = None,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        message: str = "Upload model",
    ) -> str:
        """Uploads what `save_pretrained` writes to a repository of the Hub, made if it is missing; its commit's URL.

        Args:
            name: The repository, as owner/name.
            config: That of the training run, where there was one.
            private: Whether a repository that is made here is private; None takes the owner's default.
            token: None takes that of `hf auth login`.
            revision: Branch; None takes main.
            message: Of the commit.
        """
        with needed_by("push_to_hub"):
            from huggingface_hub import HfApi

        api = HfApi(token=token)
        repository = api.create_repo(name, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, config)
            return str(
                api.upload_folder(
                    repo_id=repository, folder_path=folder, revision=revision, commit_message=message
                ).commit_url
            )


Model = TypeVar("Model", bound=Pretrained)


def load_pretrained(
    cls: type[Model], name: str | Path, device: str | torch.device = "cpu", **hub: Any
) -> tuple[Model, Config]:
    """The model and its config, as `Pretrained.from_pretrained`; `hub` are its arguments that concern repositories."""
    device = to_device(device)
    saved = find(name, **hub)
    try:
        model = cls(saved.config.model)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"{saved.source}: no model can be made from its config: {one_line(error)}") from error
    saved.fill(model)
    model.loaded_from = Origin(str(name), saved.config)
    return model.to(device).eval(), saved.config
