import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy
import pytest
import torch

from scav_model import checkpoint
from scav_model.cli import main
from scav_model.config import Config, LossConfig, ModelConfig, OptimConfig, RetrievalConfig
from scav_model.data import FeatureSet
from scav_model.distances import POOLED_COSINE
from scav_model.train import CHECKPOINT, learning_rate_factor, make_optimizer, train
from scav_model.training.run import Run

TIMES = ("seconds", "clips_per_second")


def untimed(history):
    return [{name: value for name, value in record.items() if name not in TIMES} for record in history]


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


class Interrupted(Exception):
    pass


@pytest.fixture
def interrupt_before_epoch(monkeypatch):
    """Makes training stop in the middle of an epoch, counted from 1."""

    def arrange(epoch: int) -> None:
        take_step = Run.take_step

        def interrupted(run, clips):
            if run.epoch + 1 == epoch and run.step == 1:
                raise Interrupted
            return take_step(run, clips)

        monkeypatch.setattr(Run, "take_step", interrupted)

    return arrange


@pytest.mark.slow
def test_resuming_equals_never_stopping(
    tiny, train_features, eval_features, tmp_path, interrupt_before_epoch, monkeypatch
):
    whole = train(tiny, train_features, eval_features, out=tmp_path / "whole", progress=False)
    interrupt_before_epoch(3)
    with pytest.raises(Interrupted):
        train(tiny, train_features, eval_features, out=tmp_path / "parts", progress=False)
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "parts" / CHECKPOINT)["epoch"] == 2
    torch.rand(7)
    resumed = train(tiny, train_features, eval_features, out=tmp_path / "parts", resume=True, progress=False)
    assert untimed(resumed.history) == untimed(whole.history)
    assert same_weights(resumed.model, whole.model)
    assert same_weights(resumed.objective, whole.objective)
    assert [("R@1 sequence v2a" in record) for record in whole.history] == [False, True, True]


def test_resuming_a_finished_run_returns_it(tiny, train_features, tmp_path):
    whole = train(tiny, train_features, out=tmp_path, progress=False)
    again = train(tiny, train_features, out=tmp_path, resume=True, progress=False)
    assert again.history == whole.history
    assert again.seconds == whole.seconds > 0
    assert same_weights(again.model, whole.model)
    assert not again.model.training


def test_what_training_leaves_behind(tiny, train_features, tmp_path):
    result = train(tiny, train_features, out=tmp_path, progress=False)
    model, config = checkpoint.load_model(tmp_path / CHECKPOINT)
    assert same_weights(model, result.model)
    assert config == result.config
    assert (config.model.visual_input, config.model.audio_input) == (6, 5)
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, "config.yaml", "tensorboard"}
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_same_seed_same_run_and_the_callers_random_state_is_kept(tiny, train_features):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = train(tiny, train_features, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert untimed(train(tiny, train_features, progress=False).history) == untimed(one.history)
    other = train(replace(tiny, seed=1), train_features, progress=False)
    assert other.history[0]["loss"] != one.history[0]["loss"]


def test_checkpoint_of_another_config_names_the_fields(tiny, train_features, tmp_path):
    train(tiny, train_features, out=tmp_path, progress=False)
    other = replace(tiny, seed=1, loss=replace(tiny.loss, metric="dtw"), retrieval=RetrievalConfig(every=0))
    with pytest.raises(ValueError, match="another run") as caught:
        train(other, train_features, out=tmp_path, resume=True, progress=False)
    message = str(caught.value)
    assert "seed: checkpoint 0, now 1" in message
    assert "loss.metric: checkpoint 'interpolated_euclidean', now 'dtw'" in message
    assert "retrieval" not in message


def test_checkpoint_of_other_clips_is_refused(tiny, train_features, eval_features, tmp_path):
    train(tiny, train_features, out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="training clips: checkpoint 48, now 20"):
        train(tiny, eval_features, out=tmp_path, resume=True, progress=False)


def test_a_run_is_not_overwritten_unasked(tiny, train_features, tmp_path):
    train(tiny, train_features, out=tmp_path, progress=False)
    with pytest.raises(FileExistsError, match="resume it, overwrite it, or choose another folder"):
        train(tiny, train_features, out=tmp_path, progress=False)
    train(tiny, train_features, out=tmp_path, overwrite=True, progress=False)


def test_resuming_nothing_is_an_error(tiny, train_features, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        train(tiny, train_features, out=tmp_path, resume=True, progress=False)
    with pytest.raises(ValueError, match="resume needs the folder"):
        train(tiny, train_features, resume=True, progress=False)


def test_an_interrupted_write_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    path = tmp_path / CHECKPOINT
    checkpoint.save(path, {"epoch": 1})

    def write_half(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {"epoch": 2})
    assert checkpoint.load(path)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_checkpoint_are_refused_and_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Malicious:
        def __reduce__(self):
            return os.system, ("touch pwned",)

    path = tmp_path / CHECKPOINT
    torch.save({"format": 3, "model": Malicious()}, path)
    with pytest.raises(ValueError, match="is not a checkpoint of this program, or is damaged"):
        checkpoint.load(path)
    assert not (tmp_path / "pwned").exists()
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match="is not a checkpoint of this program, or is damaged"):
        checkpoint.load(path)
    torch.save({"epoch": 1}, path)
    with pytest.raises(ValueError, match="checkpoint format None, expected 3"):
        checkpoint.load(path)


@pytest.mark.slow
def test_ctrl_c_then_resume(tiny, feature_files, tmp_path):
    """SIGINT while training runs; the checkpoint is whole, and resuming gives what an uninterrupted run gives."""
    config = [
        "--model.dim=16", "--model.heads=2", "--model.conv_groups=4", "--model.conv_kernel=4",
        "--model.visual_blocks=2", "--model.audio_blocks=1", "--optim.batch_size=16", "--optim.epochs=60",
        "--loss.metric=pooled_cosine", "--tensorboard=false", f"--train_features={feature_files[0]}",
    ]  # fmt: skip
    stopped = tmp_path / "stopped"
    command = [sys.executable, "-m", "scav_model.train", *config, f"--out={stopped}"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # As many threads as the runs it is compared with.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # Tests started in the background ignore the signal, and would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not (stopped / CHECKPOINT).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted; --resume keeps what is finished" in errors
    done = checkpoint.load(stopped / CHECKPOINT)["epoch"]
    assert 1 <= done < 60
    assert main(["train", *config, f"--out={stopped}", "--resume"]) == 0
    assert main(["train", *config, f"--out={tmp_path / 'whole'}"]) == 0
    resumed, whole = (checkpoint.load(folder / CHECKPOINT) for folder in (stopped, tmp_path / "whole"))
    assert untimed(resumed["history"]) == untimed(whole["history"])
    assert all(torch.equal(resumed["model"][name], whole["model"][name]) for name in whole["model"])


@pytest.mark.parametrize("metric", ["interpolated_euclidean", POOLED_COSINE])
def test_a_tiny_run_learns(metric, train_features, eval_features):
    config = Config(
        model=ModelConfig(
            dim=32, visual_blocks=1, audio_blocks=1, heads=2, feedforward=2.0, dropout=0.0, conv_kernel=5, conv_groups=4
        ),
        loss=LossConfig(metric=metric),
        optim=OptimConfig(epochs=15, batch_size=24, learning_rate=3e-3),
        retrieval=RetrievalConfig(every=15),
    )
    result = train(config, train_features, eval_features, progress=False)
    first, last = result.history[0], result.history[-1]
    assert last["loss"] < first["loss"] / 2
    mode = "mean" if metric == POOLED_COSINE else "sequence"
    # Chance is 5 %.
    assert min(last[f"R@1 {mode} v2a"], last[f"R@1 {mode} a2v"]) >= 40
    assert last["scale"] != pytest.approx(14.3, abs=1e-3)


def test_learning_rate_rises_then_falls():
    factor = learning_rate_factor(OptimConfig(warmup=0.25, final_rate=0.1), 8)
    rates = [factor(step) for step in range(8)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
    assert learning_rate_factor(OptimConfig(warmup=0.0), 1)(0) == 1.0


def test_only_linear_weights_decay(tiny):
    from scav_model.losses import ContrastiveLoss
    from scav_model.model import AudioVisualModel

    model, loss = AudioVisualModel(tiny.model), ContrastiveLoss()
    decayed, free = make_optimizer(tiny.optim, model, loss).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    assert any(parameter is loss.log_scale for parameter in free["params"])
    count = len(list(model.parameters())) + len(list(loss.parameters()))
    assert len(decayed["params"]) + len(free["params"]) == count


def test_features_that_do_not_fit_are_named(tiny, train_features):
    wrong = replace(tiny, model=replace(tiny.model, audio_input=768))
    with pytest.raises(ValueError, match=r"model.audio_input is 768, but the features have 5 per step"):
        train(wrong, train_features, progress=False)
    one = FeatureSet(train_features.ids[:1], train_features.video[:1], train_features.audio[:1])
    with pytest.raises(ValueError, match="at least 2 clips to contrast, got 1"):
        train(tiny, one, progress=False)


@pytest.mark.parametrize("field", ["loss", "retrieval"])
def test_a_bad_metric_is_refused_before_training(field, tiny, train_features, tmp_path):
    wrong = replace(tiny, **{field: replace(getattr(tiny, field), metric="euclidaen")})
    with pytest.raises(ValueError, match="euclidaen"):
        train(wrong, train_features, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(tiny, train_features, tmp_path):
    poisoned = [clip.clone() for clip in train_features.video]
    poisoned[7][0, 0] = torch.nan
    features = FeatureSet(train_features.ids, poisoned, train_features.audio)
    with pytest.raises(RuntimeError, match=r"the loss became nan in step \d+ \(epoch 1\), on 16 clips: ") as caught:
        train(tiny, features, out=tmp_path, progress=False)
    # The poisoned clip's batch, of which the first eight are named.
    order = numpy.random.default_rng([tiny.seed, 0]).permutation(48).tolist()
    step = order.index(7) // 16
    named = ", ".join(features.ids[index] for index in order[16 * step :][:8])
    assert f"in step {step + 1} (epoch 1), on 16 clips: {named}, …;" in str(caught.value)
    assert not (tmp_path / CHECKPOINT).exists()


def test_progress_names_loss_speed_and_recall(tiny, train_features, eval_features, capsys):
    train(tiny, train_features, eval_features)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("epoch 1/3: loss ")
    assert "clips/s" in lines[0]
    assert "R@1 sequence a2v" in lines[1]
