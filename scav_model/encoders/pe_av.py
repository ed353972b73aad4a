"""PE-AV's audio and video encoders by transformers: the hidden states of their last layer, a step each.

PE-AV is the audio-visual model of "Pushing the Frontier of Audiovisual Perception with Large-Scale Multimodal
Correspondence Learning" (arXiv 2512.19687). Its video encoder puts a transformer over the embeddings of frames, a step
per frame; its audio encoder puts one over the features of a codec, 25 steps a second of 48 kHz sound. Steps are taken
after the last norm and the output layer, without the class token: what FATE and PE-AV themselves align.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scav_model.data.encoder import Array
from scav_model.data.pictures import Picture
from scav_model.devices import to_device
from scav_model.encoders.encoder import EncoderError, check_batch_frames, choose_precision, unchanged
from scav_model.encoders.weights import looks_untrained, weights_sha256
from scav_model.extras import needed_by

SPEC = "pe-av:FOLDER (a checkpoint of PE-AV in the format of transformers)"
# Steps; longer clips go through in windows, for attention is quadratic in them. 30 seconds of sound.
WINDOW = 750
# Windows that go through an encoder at a time: the codec of the audio encoder has 64 channels at 48 kHz.
BATCH = 8
# What would have timm read other files than the checkpoint, or the network.
FOREIGN = {"cache_dir", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"}


class PeVideoEncoder:
    """A frozen video encoder of PE-AV, a step per frame.

    Args:
        path: folder with config.json, safetensors and video_preprocessor_config.json.
        device: where the encoder runs, as torch names it.
        precision: of the products: auto, float32 or bfloat16.
        batch_frames: frames that go through the image model at a time.
    """

    def __init__(
        self, path: Path | str, *, device: str = "cpu", precision: str = "auto", batch_frames: int = 256
    ) -> None:
        self._encoder = _Encoder(path, "video", device, precision)
        self.dim = self._encoder.dim
        processor = self._encoder.processor
        size = processor.size
        if not (processor.do_resize and size.get("height") and size.get("width")) or processor.do_center_crop:
            raise EncoderError(
                f"expected the video processor of {path} to scale frames to one height and width, without a crop; "
                "take the checkpoint's own video_preprocessor_config.json"
            )
        self._size = (int(size["height"]), int(size["width"]))
        self._resample = int(processor.resample)
        scale = processor.rescale_factor if processor.do_rescale else 1.0
        mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
        embedder = self._encoder.model.embedder
        embedder.vision_model = _Frames(embedder.vision_model, batch_frames, scale, mean, std).to(self._encoder.device)
        self._preprocessing = {
            "size": list(self._size),
            "resample": self._resample,
            "scale": scale,
            "mean": list(mean),
            "std": list(std),
            "frames": getattr(processor, "num_frames", None),
        }

    @property
    def picture(self) -> Picture:
        return ResizedPicture(self._size, self._resample)

    @property
    def prepare(self) -> Callable[[NDArray[np.uint8]], Array]:
        return unchanged

    def encode(self, clips: Sequence[Array]) -> list[Tensor]:
        """Encode frames (N, height, width, 3) uint8 of each clip to steps (N, dim) float32."""

        def inputs(frames: Tensor) -> dict[str, Tensor]:
            return {"pixel_values_videos": frames.permute(0, 1, 4, 2, 3).contiguous()}  # (B, N, 3, height, width)

        return self._encoder.in_windows(clips, 1, inputs)

    def describe(self) -> dict[str, Any]:
        return {**self._encoder.describe(), "preprocessing": {**self._preprocessing, "window_steps": WINDOW}}


class PeAudioEncoder:
    """A frozen audio encoder of PE-AV: 25 steps a second.

    Args:
        path: folder with config.json, safetensors and preprocessor_config.json.
        device: where the encoder runs, as torch names it.
        precision: of the products: auto, float32 or bfloat16. The codec's convolutions are products too.
    """

    def __init__(self, path: Path | str, *, device: str = "cpu", precision: str = "auto") -> None:
        self._encoder = _Encoder(path, "audio", device, precision)
        self.dim = self._encoder.dim
        self.sample_rate = int(self._encoder.processor.sampling_rate)
        self.hop = int(self._encoder.model.config.dac_config.hop_length)
        said = int(self._encoder.processor.hop_length)
        if said != self.hop:
            raise EncoderError(
                f"{path}: preprocessor_config.json says {said} samples a step, and the encoder has {self.hop}; take "
                "the checkpoint's own files"
            )

    @property
    def rate_hz(self) -> float:
        return self.sample_rate / self.hop

    @property
    def prepare(self) -> Callable[[NDArray[np.float32]], Array]:
        return ReflectedEnd(self.hop)

    def encode(self, clips: Sequence[Array]) -> list[Tensor]:
        """Encode samples (M · hop,) float32 of each clip to steps (M, dim) float32."""
        return self._encoder.in_windows(clips, self.hop, lambda samples: {"input_values": samples[:, None]})

    def describe(self) -> dict[str, Any]:
        about = {"sample_rate": self.sample_rate, "hop": self.hop, "padding": "reflect", "window_steps": WINDOW}
        return {**self._encoder.describe(), "preprocessing": about}


class _Encoder:
    """One side of a checkpoint on a device, with the processor of its input."""

    def __init__(self, path: Path | str, side: str, device: str, precision: str) -> None:
        self.path, self.side = Path(path), side
        self.device = to_device(device)
        self.precision = choose_precision(precision, self.device)
        self.model, self.processor = load(self.path, side)
        self._weights = {
            "weights_sha256": weights_sha256(self.model.state_dict()),
            "untrained": looks_untrained(self.model),
        }
        self.model.eval().requires_grad_(False).to(self.device)
        self.dim = int(self.model.config.hidden_size)

    def in_windows(
        self, clips: Sequence[Array], hop: int, inputs: Callable[[Tensor], dict[str, Tensor]]
    ) -> list[Tensor]:
        """Encode clips of `hop` rows a step, in windows of one grid.

        Windows of one length go together, without padding: a clip's features do not depend on its batch.
        """
        windows: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, clip in enumerate(clips):
            steps = len(clip) // hop
            for first in range(0, steps, WINDOW):
                windows[min(WINDOW, steps - first)].append((number, first))
        parts: list[dict[int, Tensor]] = [{} for _ in clips]
        reduced = self.precision != torch.float32
        batches = [
            (length, places[start : start + BATCH])
            for length, places in windows.items()
            for start in range(0, len(places), BATCH)
        ]
        for length, places in batches:
            rows = [clips[number][first * hop : (first + length) * hop] for number, first in places]
            batch = torch.from_numpy(np.stack(rows)).to(self.device)
            with torch.inference_mode(), torch.autocast(self.device.type, dtype=self.precision, enabled=reduced):
                found = self.model(**inputs(batch)).last_hidden_state.float().cpu()  # (B, length, dim)
            for (number, first), steps_of in zip(places, found, strict=True):
                parts[number][first] = steps_of
        return [torch.cat([part[first] for first in sorted(part)]) for part in parts]

    def describe(self) -> dict[str, Any]:
        return {
            "encoder": "pe-av",
            "model": self.path.resolve().name,
            "features": "last_hidden_state",
            **self._weights,
            "precision": str(self.precision).removeprefix("torch."),
            "versions": {name: metadata.version(name) for name in ("transformers", "timm")},
        }


class _Frames(nn.Module):
    """The image model of a video encoder, on at most `count` frames at a time.

    Frames come in bytes, a quarter of the room of floats, and are scaled and normalized here.
    """

    def __init__(self, model: nn.Module, count: int, scale: float, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        check_batch_frames(count)
        self.model, self.count, self.scale = model, count, scale
        self.mean = nn.Buffer(torch.tensor(mean).view(3, 1, 1))
        self.std = nn.Buffer(torch.tensor(std).view(3, 1, 1))

    def forward(self, frames: Tensor) -> SimpleNamespace:
        """Return the logits (B, features) of frames (B, 3, height, width) uint8."""
        pieces = ((some.float() * self.scale - self.mean) / self.std for some in frames.split(self.count))
        return SimpleNamespace(logits=torch.cat([self.model(pixels).logits for pixels in pieces]))


class ResizedPicture:
    """Scales a frame to (height, width) pixels as the checkpoint's video processor does, in bytes."""

    def __init__(self, size: tuple[int, int], resample: int) -> None:
        self.size, self.resample = size, resample

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        with needed_by("PE-AV", "torchvision", "extract with --visual patches, which does not need it"):
            from torchvision.transforms.v2 import functional
        # Bytes of numpy's own: a torch tensor would travel between processes by file descriptor.
        pixels = torch.from_numpy(np.ascontiguousarray(frame.to_ndarray(format="rgb24"))).permute(2, 0, 1)
        mode = functional.InterpolationMode(INTERPOLATIONS[self.resample])
        scaled = functional.resize(pixels, list(self.size), interpolation=mode, antialias=True)
        return scaled.permute(1, 2, 0).contiguous().numpy()


# torchvision's names of Pillow's filters.
INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}


class ReflectedEnd:
    """Fills sound to whole steps of `hop` samples with its own end, reversed."""

    def __init__(self, hop: int) -> None:
        self.hop = hop

    def __call__(self, samples: NDArray[np.float32]) -> Array:
        missing = -len(samples) % self.hop
        if not len(samples):
            return np.zeros(self.hop, dtype=np.float32)
        return np.pad(samples, (0, missing), "reflect" if len(samples) > 1 else "edge")


def load(path: Path, side: str) -> tuple[Any, Any]:
    """Return the encoder of one side, video or audio, on the CPU in float32, and the processor of its input.

    Nothing is downloaded, and only safetensors are read, which no reader can be made to run.

    Raises:
        EncoderError: no checkpoint of PE-AV, or an incomplete one.
    """
    if not (path / "config.json").is_file():
        raise EncoderError(
            f"no checkpoint of PE-AV at {path}: expected a folder with config.json; download one with "
            "hf download facebook/pe-av-small --local-dir FOLDER"
        )
    with needed_by("PE-AV", "transformers", "extract with --visual patches --audio log_mel, which do not need it"):
        import timm
        from transformers import (
            PeAudioEncoder,
            PeAudioFeatureExtractor,
            PeAudioVideoConfig,
            PeVideoEncoder,
            PeVideoVideoProcessor,
        )
    try:
        kind = PeAudioVideoConfig.get_config_dict(path, local_files_only=True)[0].get("model_type")
        if kind != PeAudioVideoConfig.model_type:
            raise EncoderError(f"expected {path} to be a checkpoint of {PeAudioVideoConfig.model_type}, got {kind}")
        sides: Any = PeAudioVideoConfig.from_pretrained(path, local_files_only=True).audio_video_config
        if side == "video":
            vision = sides.video_config.vision_config
            if not timm.is_model(vision.architecture) or FOREIGN & set(vision.model_args or {}):
                raise EncoderError(
                    f"{path}: expected an image model that timm has, and no other files for it, got "
                    f"{vision.architecture!r}; take the checkpoint's own config.json"
                )
            kinds: tuple[Any, Any] = PeVideoEncoder, PeVideoVideoProcessor
        else:
            kinds = PeAudioEncoder, PeAudioFeatureExtractor
        with _silent():
            encoder, report = kinds[0].from_pretrained(
                path,
                config=sides.video_config if side == "video" else sides.audio_config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
            processor = kinds[1].from_pretrained(path, local_files_only=True)
    except EncoderError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise EncoderError(f"{path} could not be loaded as a checkpoint of PE-AV: {reason}; copy it again") from error
    if lacking := [*report["missing_keys"], *report["mismatched_keys"]]:
        raise EncoderError(
            f"{path} lacks weights of its {side} encoder, or has them in other sizes, such as {lacking[0]}; "
            "copy it again"
        )
    return encoder, processor


@contextmanager
def _silent() -> Iterator[None]:
    """Keep transformers from listing the weights of the encoders that are left out."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
