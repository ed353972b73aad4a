"""Notes that sound, by the network that the package basic-pitch ships (Bittner et al., ICASSP 2022).

`pip install --no-deps basic-pitch`: its network is read from the package's folder and run by onnxruntime. The package
itself is never imported, so that it needs none of the packages that it names.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scav_model.data.encoder import Array
from scav_model.extras import needed_by

MODEL = Path("saved_models/icassp_2022/nmp.onnx")
SAMPLE_RATE = 22_050  # samples/s
HOP = 256  # samples between two frames of the network
WINDOW = 43_844  # samples that it takes
FRAMES = 172  # that it returns
MARGIN = 15  # frames at either end of a window, which see too little around them
STEP_RATE = 12.5  # steps/s
KEYS = 88  # of a piano, from A0
NOTE, ONSET = "StatefulPartitionedCall:1", "StatefulPartitionedCall:2"  # outputs of the network


class NotesEncoder:
    """`notes`: for each key of a piano, the probability that it sounds and that it starts, at most within a step."""

    dim = 2 * KEYS
    rate_hz = STEP_RATE
    sample_rate = SAMPLE_RATE

    def __init__(self) -> None:
        # A missing package is named here, not in a worker process.
        network()

    @property
    def prepare(self) -> Callable[[NDArray[np.float32]], Array]:
        return note_steps

    def encode(self, clips: Sequence[Array]) -> list[Tensor]:
        return [torch.from_numpy(clip) for clip in clips]

    def describe(self) -> dict[str, Any]:
        return {"encoder": "notes", "model": f"basic-pitch {metadata.version('basic-pitch')}"}


@functools.cache
def network() -> Any:
    """Return the process's session of onnxruntime."""
    with needed_by("the front end notes", "basic_pitch"):
        import onnxruntime

        spec = importlib.util.find_spec("basic_pitch")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'basic_pitch'", name="basic_pitch")
    options = onnxruntime.SessionOptions()
    # Worker processes run side by side.
    options.intra_op_num_threads = 1
    path = Path(spec.submodule_search_locations[0]) / MODEL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def note_steps(audio: NDArray[np.float32]) -> Array:
    """Return steps (M, 2 · KEYS) of sound (samples,) at SAMPLE_RATE: notes, then onsets."""
    if audio.ndim != 1:
        raise ValueError(f"expected audio of shape (samples,), got {audio.shape}")
    steps = max(1, int(len(audio) / SAMPLE_RATE * STEP_RATE))
    kept = FRAMES - 2 * MARGIN
    windows = -(-len(audio) // (kept * HOP))
    padded = np.zeros((windows - 1) * kept * HOP + WINDOW, dtype=np.float32)
    lead = MARGIN * HOP
    padded[lead : lead + len(audio)] = audio[: len(padded) - lead]
    session = network()
    (source,) = (entry.name for entry in session.get_inputs())
    found = np.zeros((steps, 2 * KEYS), dtype=np.float32)
    for window in range(windows):
        start = window * kept * HOP
        sides = session.run([NOTE, ONSET], {source: padded[None, start : start + WINDOW, None]})
        frames = np.concatenate([side[0] for side in sides], axis=1)[MARGIN : MARGIN + kept]  # (kept, 2 · KEYS)
        times = (start + HOP * np.arange(kept)) / SAMPLE_RATE
        step = (times * STEP_RATE).astype(np.int64)
        np.maximum.at(found, step[step < steps], frames[step < steps])
    return found
