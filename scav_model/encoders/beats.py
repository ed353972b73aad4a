"""BEATs by SpeechBrain, from the official checkpoints: 6.25 steps a second, 62 in ten seconds.

The model sees 25 ms spectra every 10 ms, 128 bands, cut into patches of 16 spectra × 16 bands: eight frequency patches
(low to high) every 160 ms, which it puts out time-major, (8·M, D) for M steps.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from scav_model.data.encoder import Array
from scav_model.devices import to_device
from scav_model.encoders.encoder import EncoderError, choose_precision
from scav_model.encoders.weights import looks_untrained, read_checkpoint, weights_sha256
from scav_model.extras import needed_by
from scav_model.storage.files import file_sha256, write_whole

FREQUENCY = ("mean", "keep")
SAMPLE_RATE = 16_000  # samples/s
STEP = 2_560  # samples between steps: 16 spectra of 160
OVERLAP = 240  # samples by which a spectrum's 400 exceed the 160 to the next
BANDS = 8  # frequency patches of a step
WINDOW = 64  # steps: longer sound goes through in windows, for attention is quadratic in them. 10.24 s.


class BeatsEncoder:
    """A frozen BEATs; a fine-tuned one yields features too, its classifier being left out.

    Args:
        path: official checkpoint, `.pt` ({'cfg', 'model'}), or what `convert` made of one, `.safetensors`.
        frequency: `mean` averages the eight frequency patches of a step: (M, D); `keep` leaves them one after the
            other, low to high: (8·M, D), 50 a second.
        device: where the model runs, as torch names it.
        precision: of the products: auto, float32 or bfloat16; spectra are float32 always.
        batch_windows: windows of sound, 10.24 s at most, that go through the model at a time.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        path: Path | str,
        *,
        frequency: str = "mean",
        device: str = "cpu",
        precision: str = "auto",
        batch_windows: int = 16,
    ) -> None:
        if frequency not in FREQUENCY:
            raise EncoderError(f"expected BEATs' frequency patches to be one of {', '.join(FREQUENCY)}: {frequency!r}")
        if batch_windows < 1:
            raise EncoderError(f"expected batch_windows to be at least 1, got {batch_windows}")
        self.path, self.frequency, self.batch_windows = Path(path), frequency, batch_windows
        self.device = to_device(device)
        self.precision = choose_precision(precision, self.device)
        config, state = read_beats(self.path)
        self._model = _build(config, state)
        self._weights = {"weights_sha256": weights_sha256(state), "untrained": looks_untrained(self._model)}
        self._model.requires_grad_(False).to(self.device)
        self.dim = int(self._model.cfg.encoder_embed_dim)

    @property
    def rate_hz(self) -> float:
        return SAMPLE_RATE / STEP * (BANDS if self.frequency == "keep" else 1)

    @property
    def prepare(self) -> Callable[[NDArray[np.float32]], Array]:
        return whole_steps

    def encode(self, clips: Sequence[Array]) -> list[Tensor]:
        # Windows of one length go together, without padding: a clip's features do not depend on its batch.
        windows: dict[int, list[tuple[int, int]]] = defaultdict(list)
        found: dict[tuple[int, int], Tensor] = {}
        for number, clip in enumerate(clips):
            steps = (len(clip) - OVERLAP) // STEP
            for first in range(0, steps, WINDOW):
                windows[min(WINDOW, steps - first)].append((number, first))
        for length, places in windows.items():
            for begin in range(0, len(places), self.batch_windows):
                some = places[begin : begin + self.batch_windows]
                samples = [clips[n][first * STEP : (first + length) * STEP + OVERLAP] for n, first in some]
                for place, steps_of in zip(some, self._features(np.stack(samples)), strict=True):
                    found[place] = steps_of
        parts: list[list[Tensor]] = [[] for _ in clips]
        for number, first in sorted(found):
            parts[number].append(found[number, first])
        return [torch.cat(some) for some in parts]

    def _features(self, samples: NDArray[np.float32]) -> Tensor:
        """(B, steps · STEP + OVERLAP) to (B, M, D), or (B, 8·M, D) where frequencies are kept; float32, on the CPU."""
        sound = torch.from_numpy(samples).to(self.device)
        reduced = self.precision != torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=self.precision, enabled=reduced):
            patches = self._model.extract_features(sound, torch.ones(len(sound), device=self.device))[0].float()
        if self.frequency == "mean":
            patches = patches.unflatten(1, (-1, BANDS)).mean(2)
        return patches.cpu()

    def describe(self) -> dict[str, Any]:
        return {
            "encoder": "beats",
            "model": self.path.name,
            "weights_file_sha256": file_sha256(self.path),
            **self._weights,
            "frequency": self.frequency,
            "patches_per_step": BANDS if self.frequency == "keep" else 1,
            "precision": str(self.precision).removeprefix("torch."),
            "preprocessing": {
                "sample_rate": SAMPLE_RATE,
                "spectrum_ms": 25,
                "spectrum_shift_ms": 10,
                "bands": 128,
                "fbank_mean": 15.41663,
                "fbank_std": 6.55582,
                "window_steps": WINDOW,
            },
            "versions": {"speechbrain": metadata.version("speechbrain")},
        }


def whole_steps(samples: NDArray[np.float32]) -> Array:
    """The sound up to its last whole step, all that the model would look at; filled with silence to one step."""
    steps = max(1, (len(samples) - OVERLAP) // STEP)
    length = steps * STEP + OVERLAP
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def read_beats(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of a checkpoint, its classifier left out, read without running anything in it."""
    path = Path(path)
    if path.suffix == ".safetensors":
        config, state = _read_safetensors(path)
    else:
        checkpoint = read_checkpoint(path)
        if not isinstance(checkpoint, dict) or not {"cfg", "model"} <= set(checkpoint):
            keys = ", ".join(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
            raise EncoderError(f"expected {path} to be a BEATs checkpoint, {{'cfg', 'model'}}, got {keys[:200]}")
        config, state = dict(checkpoint["cfg"]), dict(checkpoint["model"])
    config["finetuned_model"] = False
    return config, {name: value for name, value in state.items() if not name.startswith("predictor")}


def convert(source: Path | str, target: Path | str) -> None:
    """Write a checkpoint's weights and configuration as safetensors, which no reader can be made to run."""
    config, state = read_beats(source)
    tensors = {name: value.contiguous().clone() for name, value in state.items()}
    write_whole(Path(target), save(tensors, metadata={"cfg": json.dumps(config)}))


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise EncoderError(f"no checkpoint at {path}; name a file that is there")
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {})["cfg"])
            return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise EncoderError(
            f"expected {path} to hold BEATs' weights and, as metadata, its cfg ({error}); "
            "convert the official checkpoint again"
        ) from error


def speechbrain_beats() -> Any:
    """The module `speechbrain.lobes.models.beats`.

    SpeechBrain leaves stand-ins for its moved modules among the loaded ones, which warn, and import what need not be
    installed, as soon as anything looks at them, such as a debugger that lists modules. They are taken out.
    """
    with needed_by("BEATs", "speechbrain", "extract with --audio log_mel, which does not need it"):
        from speechbrain.lobes.models import beats
        from speechbrain.utils.importutils import LazyModule
    for name, module in list(sys.modules.items()):
        # Not by isinstance, which looks at them.
        if issubclass(type(module), LazyModule):
            del sys.modules[name]
    return beats


def _build(config: dict[str, Any], state: dict[str, Tensor]) -> Any:
    library = speechbrain_beats()

    class Frozen(library.BEATs):  # type: ignore[name-defined]
        """Spectra in float32 whatever the precision of the rest: bfloat16 rounds a band's power by 0.4%."""

        def preprocess(self, source: Tensor, *statistics: float) -> Tensor:
            with torch.autocast(source.device.type, enabled=False):
                return super().preprocess(source, *statistics)

    # The library takes a checkpoint's path alone. It gets one of plain weights, written here, never the user's file.
    with tempfile.TemporaryDirectory(prefix="beats-") as folder:
        path = Path(folder) / "beats.pt"
        torch.save({"cfg": config, "model": state}, path)
        try:
            return Frozen(str(path), freeze=True)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise EncoderError(f"these weights are not those of the BEATs that their cfg describes: {error}") from error
