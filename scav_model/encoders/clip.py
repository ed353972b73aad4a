"""CLIP's image tower by open_clip: any of its models, a step per frame."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scav_model.data.encoder import Array
from scav_model.data.pictures import Picture
from scav_model.devices import to_device
from scav_model.encoders.encoder import EncoderError, check_batch_frames, choose_precision, encode_frames, unchanged
from scav_model.encoders.weights import looks_untrained, read_checkpoint, weights_sha256
from scav_model.extras import needed_by
from scav_model.storage.files import file_sha256

FEATURES = ("pooled", "cls+patches")
PICKLED = (".pt", ".pth", ".bin")
SPEC = "clip:MODEL:WEIGHTS (a tag of open_clip or a file), clip:FOLDER, or clip:hf-hub:ORGANIZATION/NAME"


def import_open_clip() -> Any:
    with needed_by("CLIP", "open_clip", "extract with --visual patches, which does not need it"):
        import open_clip
    return open_clip


@dataclass
class ClipPicture:
    """The model's own resizing and cropping, up to and without the division by 255 and the normalization.

    Those two are done on the device: bytes are a quarter of what floats take on the way there.
    """

    preprocessing: dict[str, Any]  # open_clip's PreprocessCfg, as a dict
    _steps: list[Callable[..., Any]] | None = field(default=None, repr=False, compare=False)

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        if self._steps is None:
            transform = import_open_clip().transform
            whole = transform.image_transform_v2(transform.PreprocessCfg(**self.preprocessing), is_train=False)
            # The last two are ToTensor and Normalize in each of open_clip's resize modes.
            self._steps = list(whole.transforms[:-2])
        picture: Any = frame.to_image()
        for step in self._steps:
            picture = step(picture)
        return np.asarray(picture)

    def __reduce__(self) -> tuple[type[ClipPicture], tuple[dict[str, Any]]]:
        return ClipPicture, (self.preprocessing,)


class ClipEncoder:
    """A frozen image tower.

    Args:
        spec: what follows `clip:`: `MODEL:WEIGHTS`, where WEIGHTS is a tag of open_clip or a checkpoint's path;
            a folder with open_clip_config.json and weights; or `hf-hub:ORGANIZATION/NAME`.
        features: `pooled` is the tower's output, in CLIP's joint space; `cls+patches` is the class token beside the
            mean of the patch tokens, both after the last layer norm and before the projection: 1024 + 1024 features for
            ViT-L/14, which is how we read the 2048 of arXiv 2407.05782.
        device: where the tower runs, as torch names it.
        precision: of the products: auto, float32 or bfloat16.
        batch_frames: frames that go through the tower at a time.
    """

    def __init__(
        self,
        spec: str,
        *,
        features: str = "cls+patches",
        device: str = "cpu",
        precision: str = "auto",
        batch_frames: int = 256,
    ) -> None:
        if features not in FEATURES:
            raise EncoderError(f"expected CLIP features to be one of {', '.join(FEATURES)}, got {features!r}")
        check_batch_frames(batch_frames)
        self.spec, self.features = spec, features
        self.device = to_device(device)
        self.precision = choose_precision(precision, self.device)
        self.batch_frames = batch_frames
        self._tower, self._preprocessing, self._file = _load(spec)
        if features == "cls+patches" and not _has_tokens(self._tower):
            raise EncoderError(
                f"clip:{spec} has no class token beside its patch tokens, so no cls+patches; ask for pooled"
            )
        self._weights = {
            "weights_sha256": weights_sha256(self._tower.state_dict()),
            "untrained": looks_untrained(self._tower),
        }
        # The same weights mean something else with the other of the two, and nothing in a file tells which it was.
        quick = any(type(layer).__name__ == "QuickGELU" for layer in self._tower.modules())
        self._activation = "QuickGELU" if quick else "GELU"
        self._tower.eval().requires_grad_(False).to(self.device)
        mean, std = (torch.tensor(self._preprocessing[name], device=self.device) for name in ("mean", "std"))
        self._mean, self._std = mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)
        size = self._preprocessing["size"]
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        self.dim = self._features(torch.zeros(1, height, width, 3, dtype=torch.uint8)).shape[1]

    @property
    def picture(self) -> Picture:
        return ClipPicture(self._preprocessing)

    @property
    def prepare(self) -> Callable[[NDArray[np.uint8]], Array]:
        return unchanged

    def encode(self, clips: Sequence[Array]) -> list[Tensor]:
        return encode_frames(clips, self.batch_frames, self._features)

    def _features(self, frames: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 to (B, dim) float32."""
        pixels = frames.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        pixels = (pixels - self._mean) / self._std
        reduced = self.precision != torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=self.precision, enabled=reduced):
            if self.features == "pooled":
                return self._tower(pixels).float()
            tokens = _last_tokens(self._tower, pixels)
            patches = tokens["image_intermediates"][-1].float().mean(1)  # (B, width)
            return torch.cat((tokens["image_intermediates_prefix"][-1][:, 0].float(), patches), dim=1)

    def describe(self) -> dict[str, Any]:
        from open_clip.version import __version__

        known: dict[str, Any] = {"encoder": "clip", "model": self.spec, "features": self.features, **self._weights}
        # A file's or a folder's place is no part of what it holds.
        if self._file is not None:
            known["model"] = self.spec.replace(str(self._file), self._file.name)
            known["weights_file_sha256"] = file_sha256(self._file)
        elif Path(self.spec).is_dir():
            known["model"] = Path(self.spec).resolve().name
        return {
            **known,
            "activation": self._activation,
            "precision": str(self.precision).removeprefix("torch."),
            "preprocessing": self._preprocessing,
            "versions": {"open_clip": __version__},
        }


def _load(spec: str) -> tuple[Any, dict[str, Any], Path | None]:
    """The image tower, its preprocessing and the file that was named, if one was."""
    open_clip = import_open_clip()
    name, weights = _parse(spec)
    file: Path | None = None
    options: dict[str, Any] = {}
    if weights is not None:
        if name.replace("/", "-") not in open_clip.list_models():
            raise EncoderError(f"open_clip has no model {name!r}; open_clip.list_models() names those it has")
        tags = open_clip.list_pretrained_tags_by_model(name.replace("/", "-"))
        if weights in tags:
            # Weights trained with OpenAI's quick approximation of GELU are wrong with the exact one.
            config = open_clip.get_pretrained_cfg(name.replace("/", "-"), weights)
            options["force_quick_gelu"] = bool(config.get("quick_gelu", False))
        elif Path(weights).is_file():
            file = Path(weights)
        else:
            raise EncoderError(
                f"expected {weights!r} to be a checkpoint file or a tag of {name}; "
                f"there is no such file, and its tags are {', '.join(tags) or 'none'}"
            )
    for checkpoint in _pickled_files(name, file):
        read_checkpoint(checkpoint)
    try:
        model = open_clip.create_model(name, pretrained=weights, require_pretrained=True, weights_only=True, **options)
    except (RuntimeError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise EncoderError(f"clip:{spec} could not be loaded: {error}") from error
    return model.visual, dict(open_clip.get_model_preprocess_cfg(model)), file


def _parse(spec: str) -> tuple[str, str | None]:
    """open_clip's model name and, where the name does not imply them, weights."""
    if spec.startswith(("hf-hub:", "local-dir:")):
        return spec, None
    if Path(spec).is_dir():
        return f"local-dir:{spec}", None
    name, _, weights = spec.partition(":")
    if not name or not weights:
        raise EncoderError(f"expected {SPEC}, got 'clip:{spec}'")
    return name, weights


def _pickled_files(name: str, file: Path | None) -> list[Path]:
    """Files named by the user that open_clip may unpickle."""
    if file is not None:
        return [file] if file.suffix not in (".safetensors", ".npz", ".npy") else []
    if name.startswith("local-dir:"):
        return [path for path in Path(name.removeprefix("local-dir:")).iterdir() if path.suffix in PICKLED]
    return []


def _has_tokens(tower: Any) -> bool:
    from open_clip.transformer import VisionTransformer

    if isinstance(tower, VisionTransformer):
        return tower.attn_pool is None
    return bool(getattr(getattr(tower, "trunk", None), "num_prefix_tokens", 0))


def _last_tokens(tower: Any, pixels: Tensor) -> dict[str, list[Tensor]]:
    """Patch tokens (B, P, width) and class token (B, 1, width) of the last block, normed."""
    return tower.forward_intermediates(
        pixels,
        indices=1,
        normalize_intermediates=True,
        intermediates_only=True,
        output_fmt="NLC",
        output_extra_tokens=True,
    )
