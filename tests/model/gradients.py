"""Losses and gradients of one batch, and losses of a run, as a file: by one process or by several under torchrun, which
must agree.

Arguments: where to write, and per case a metric and the number of clips.
"""

import atexit
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from scav_model import parallel
from scav_model.config import ComputeConfig, Config, LossConfig, ModelConfig, OptimConfig
from scav_model.data import collate
from scav_model.losses import ContrastiveLoss
from scav_model.model import AudioVisualModel
from scav_model.training import train
from scav_model.training.encoding import Encoding
from scav_model.training.launch import launch
from tests.small_features import walks

TINY = ModelConfig(
    visual_input=6, audio_input=5, dim=16, visual_blocks=1, audio_blocks=1, heads=2, feedforward=2.0, dropout=0.0,
    conv_kernel=4, conv_groups=4,
)  # fmt: skip
OPTIONS = {"soft_dtw": {"gamma": 0.5}, "sinkhorn": {"epsilon": 0.1}}


def gradients(metric: str, clips: int, fabric: Fabric, chunk: int = 0) -> dict[str, torch.Tensor]:
    """By parameter, and the losses; float64. A second loss is the mean over a process's own clips alone."""
    torch.manual_seed(0)
    model = AudioVisualModel(TINY).double()
    contrast = ContrastiveLoss(LossConfig(metric=metric, options=OPTIONS.get(metric, {}), scale=5.0)).double()
    head = nn.Linear(TINY.dim, 1).double()
    features = walks(clips, seed=3)
    batch = collate(features, parallel.share(range(clips)))
    batch.video, batch.audio = batch.video.double(), batch.audio.double()
    video, audio = Encoding(model, fabric, ComputeConfig(chunk=chunk))(batch)
    everyone = parallel.gather(audio)
    # Each video on its own, and beside audios of other processes; both as a mean of all clips.
    own = parallel.gather_rows(head(video.steps[:, 0])).square().mean()
    loss = contrast(video, audio) + own + head(everyone.steps[:, 0]).pow(3).mean()
    loss.backward()
    modules = {"model": model, "contrast": contrast, "head": head}
    named = {f"{part}.{name}": p for part, module in modules.items() for name, p in module.named_parameters()}
    parallel.average_gradients(named.values())
    return {"loss": loss.detach()} | {name: parameter.grad for name, parameter in named.items()}


def history() -> list[float]:
    """Losses of a run without dropout, in batches of 15, of which shares and chunks differ in size."""
    config = Config(
        model=TINY,
        loss=LossConfig(metric="soft_dtw", options={"gamma": 0.5}),
        optim=OptimConfig(epochs=3, batch_size=15, learning_rate=3e-3),
        compute=ComputeConfig(chunk=3),
    )
    return [record["loss"] for record in train(config, walks(48, seed=1), progress=False).history]


def gloo_threads() -> int:
    """Threads of this process that wait for others."""
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return sum("gloo" in name for name in names)


def main() -> None:
    torch.set_num_threads(1)
    out, *cases = sys.argv[1:]
    # Before what `launch` registers, and so after it.
    atexit.register(lambda: print(f"left: {gloo_threads()}"))
    fabric = launch(Config())
    pairs = zip(cases[::2], map(int, cases[1::2]), strict=True)
    found = {f"{metric} {clips}": gradients(metric, clips, fabric, chunk=2) for metric, clips in pairs}
    found["history"] = history()
    if Path("/proc/self/task").exists():
        assert gloo_threads() > 0
    assert sorted(parallel.from_all(parallel.rank())) == list(range(parallel.world_size()))
    if parallel.rank() == 0:
        torch.save(found, Path(out))


if __name__ == "__main__":
    main()
