"""Each setting of a run changes what it says."""

import sys
import threading
import types
from dataclasses import replace

import pytest
import torch
from torch import nn

from scav_model import checkpoint
from scav_model.config import CheckpointConfig, Config, RetrievalConfig, from_dict
from scav_model.data import collate
from scav_model.objectives import Objective
from scav_model.training import BEST, CHECKPOINT, train
from scav_model.training.launch import launch
from scav_model.training.loading import Loader
from scav_model.training.run import Run


def changed(config: Config, section: str, **settings) -> Config:
    return replace(config, **{section: replace(getattr(config, section), **settings)})


@pytest.fixture
def plain(tiny) -> Config:
    """Without dropout, evaluation and loggers."""
    return replace(changed(tiny, "model", dropout=0.0), tensorboard=False, retrieval=RetrievalConfig(every=0))


def start(config: Config, features) -> Run:
    torch.manual_seed(config.seed)
    model = replace(config.model, visual_input=features.video_dim, audio_input=features.audio_dim)
    return Run(replace(config, model=model), features, launch(config))


def test_accumulated_gradients_are_the_batches_mean(plain, train_features):
    accumulating = start(changed(plain, "optim", batch_size=8, accumulate=3, gradient_clip=0.0), train_features)
    clips = list(range(24))
    losses = accumulating.take_step(clips)
    single = start(plain, train_features)
    expected = []
    for first in (0, 8, 16):
        loss = single.objective(single.encode, collate(train_features, clips[first : first + 8]))["contrast"]
        (loss / 3).backward()
        expected.append(loss.item())
    assert losses["contrast"].item() == pytest.approx(sum(expected) / 3, rel=1e-6)
    for one, other in zip(accumulating.parameters, single.parameters, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert accumulating.steps == 2


def test_more_batches_a_step_than_there_are_clips_is_an_error(plain, train_features):
    with pytest.raises(ValueError, match=r"the clips of one step, .* = 64, or more, got 48; lower optim.accumulate"):
        train(changed(plain, "optim", accumulate=4), train_features, progress=False)


def test_the_running_mean_is_what_is_searched_and_saved(plain, train_features, tmp_path):
    run = start(changed(plain, "optim", ema=0.75), train_features)
    expected = None
    for _ in range(3):
        run.take_step(list(range(16)))
        weight = run.model.visual.norm.weight.detach()
        expected = weight.clone() if expected is None else 0.75 * expected + 0.25 * weight
    torch.testing.assert_close(run.trained.visual.norm.weight, expected)
    assert not torch.equal(expected, weight)

    result = train(changed(plain, "optim", ema=0.75), train_features, out=tmp_path, progress=False)
    loaded, _ = checkpoint.load_model(tmp_path / CHECKPOINT)
    state = checkpoint.load(tmp_path / CHECKPOINT)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, result.model.state_dict()[name])
    assert any(not torch.equal(value, state["model"][name]) for name, value in loaded.state_dict().items())


def test_bfloat16_is_close_and_gives_float32_steps(plain, train_features):
    half = start(changed(plain, "compute", precision="bfloat16"), train_features)
    full = start(plain, train_features)
    batch = collate(train_features, range(16))
    video, audio = half.encode(batch)
    expected, _ = full.encode(batch)
    assert video.steps.dtype == audio.steps.dtype == torch.float32
    error = (video.steps - expected.steps).norm(dim=-1).max().item()
    assert 1e-5 < error < 0.05
    histories = [
        train(config, train_features, progress=False).history
        for config in (plain, changed(plain, "compute", precision="bfloat16", chunk=5))
    ]
    assert histories[1][-1]["loss"] == pytest.approx(histories[0][-1]["loss"], rel=0.05)
    assert histories[1][-1]["loss"] != histories[0][-1]["loss"]


def test_batches_are_read_ahead_and_in_any_order(train_features):
    read = []

    class Recording:
        def __getattr__(self, name):
            return getattr(train_features, name)

        def clip(self, index):
            read.append((index, threading.current_thread().name))
            if index == 40:
                raise ValueError("no such clip")
            return train_features.clip(index)

    loader = Loader(Recording(), torch.device("cpu"))
    loader.expect([[1, 2], (3,), [5], [40]])
    assert loader.load((1, 2)).ids == [train_features.ids[index] for index in (1, 2)]
    assert loader.load([7]).ids == [train_features.ids[7]]
    assert loader.load([3]).ids == [train_features.ids[3]]
    assert loader.load([5]).ids == [train_features.ids[5]]
    with pytest.raises(ValueError, match="no such clip"):
        loader.load([40])
    loader.close()
    assert sorted(index for index, _ in read) == [1, 2, 3, 5, 7, 40]
    assert {index for index, thread in read if thread == "MainThread"} == {7}


def test_gradients_are_clipped_together(plain, train_features):
    run = start(changed(plain, "optim", gradient_clip=1e-3), train_features)
    run.take_step(list(range(16)))
    norm = torch.stack([parameter.grad.norm() for parameter in run.parameters]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_what_a_run_switches_is_switched_back(plain, train_features, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    seen = []
    take_step = Run.take_step

    def looked_at(run, clips):
        seen.append((torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()))
        return take_step(run, clips)

    monkeypatch.setattr(Run, "take_step", looked_at)
    before = torch.get_float32_matmul_precision()
    train(changed(plain, "compute", deterministic=True, matmul="high"), train_features, progress=False)
    assert set(seen) == {(True, "high")}
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch's own modules, as it imports them
def test_compiled_encoders_train_alike(plain, train_features, monkeypatch):
    """Graphs and their gradients, in chunks; no code is generated, which would take a minute."""
    compiled = []

    def compile_(model):
        compiled.append(model)
        return torch_compile(model, backend="aot_eager")

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile_)
    plain = changed(changed(plain, "model", visual_blocks=1, position="rotary"), "optim", epochs=1)
    whole = train(plain, train_features, progress=False)
    again = train(changed(plain, "compute", compile=True, chunk=8), train_features, progress=False)
    assert len(compiled) == 1
    assert again.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=1e-4)
    assert list(again.model.state_dict()) == list(whole.model.state_dict())


class TwoLosses(Objective):
    """The contrast twice, the second on a batch of its own, and a parameter beside the model's."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, encode, batch):
        video, audio = encode(batch)
        again = self.contrast(*encode(batch)) * self.weight
        return {"first": self.contrast(video, audio), "second": again}


def test_several_losses_are_summed_and_each_is_shown(plain, train_features, tmp_path, monkeypatch, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("scav_model.training.run.Objective", TwoLosses)
    result = train(replace(changed(plain, "compute", chunk=5), tensorboard=True), train_features, out=tmp_path)
    for record in result.history:
        assert record["loss"] == pytest.approx(record["loss first"] + record["loss second"], rel=1e-6)
    assert result.objective.weight.item() != 1.0
    assert ", first " in capsys.readouterr().err
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "loss/first", "loss/second"}
    assert [event.step for event in events.Scalars("loss/second")] == list(range(1, 10))


def test_earlier_checkpoints_are_kept_as_asked(tiny, train_features, eval_features, tmp_path):
    kept = CheckpointConfig(keep=2, best="R@1 sequence v2a")
    config = replace(tiny, tensorboard=False, checkpoints=kept, retrieval=RetrievalConfig(every=1))
    result = train(config, train_features, eval_features, out=tmp_path, progress=False)
    assert {path.name for path in tmp_path.glob("*.pt")} == {CHECKPOINT, BEST, "epoch-0002.pt", "epoch-0003.pt"}
    assert [checkpoint.load(tmp_path / f"epoch-000{epoch}.pt")["epoch"] for epoch in (2, 3)] == [2, 3]
    recalls = [record["R@1 sequence v2a"] for record in result.history]
    assert checkpoint.load(tmp_path / BEST)["epoch"] == 1 + recalls.index(max(recalls))
    with pytest.raises(ValueError, match=r"checkpoints.best needs clips to evaluate on"):
        train(config, train_features, out=tmp_path / "other", progress=False)


def test_weights_and_biases_gets_every_loss(plain, train_features, tmp_path, monkeypatch):
    shown, opened = [], []

    class FakeRun:
        def log(self, values, step):
            shown.append((step, *values))

        def finish(self):
            shown.append("finished")

    fake = types.ModuleType("wandb")
    fake.init = lambda **options: opened.append(options) or FakeRun()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    train(replace(plain, wandb="project"), train_features, out=tmp_path, progress=False)
    assert opened[0]["project"] == "project"
    assert opened[0]["resume"] == "allow"
    assert shown == [*((step, "loss") for step in range(1, 10)), "finished"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"pip install 'scav-kernels\[wandb\]'"):
        train(replace(plain, wandb="project"), train_features, out=tmp_path / "other", progress=False)


def test_settings_that_cannot_be_are_refused():
    for wrong, message in (
        ({"compute": {"precision": "float16"}}, "compute.precision must be float32 or bfloat16"),
        ({"compute": {"chunk": -1}}, "compute.chunk must be at least 0"),
        ({"checkpoints": {"best": "R@7"}}, "checkpoints.best must be R@1 mean v2a or"),
        ({"optim": {"ema": 1.0}}, "optim.ema must be at least 0 and below 1"),
        ({"optim": {"accumulate": 0}}, "optim.accumulate must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            from_dict(Config, wrong)


def test_a_gpu_that_is_not_there_is_named(plain, train_features, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="device is cuda, but PyTorch finds no CUDA GPU here; use cpu"):
        train(replace(plain, device="cuda"), train_features, progress=False)
