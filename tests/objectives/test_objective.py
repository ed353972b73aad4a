"""The objective as a trainer meets it: unchanged where nothing is asked for, learning, resumable."""

from dataclasses import replace

import pytest
import torch

from scav_model import checkpoint
from scav_model.cli import main
from scav_model.config import Config, LossConfig
from scav_model.data import FeatureSet, collate
from scav_model.distances import POOLED_COSINE, Sequences
from scav_model.losses import ContrastiveLoss
from scav_model.objective_config import SOURCES, NegativesConfig, TasksConfig
from scav_model.objectives import Objective
from scav_model.objectives.tasks import summary
from scav_model.train import CHECKPOINT, train
from scav_model.training.run import Run

TASKS = TasksConfig(speed=1.0, direction=1.0, ordering=1.0, hidden=32)
HEADS = {
    *(("speed", side) for side in ("video", "audio")),
    *(("direction", side) for side in ("video", "audio")),
    *(("ordering", f"{one}-{other}") for one in ("video", "audio") for other in ("video", "audio")),
}


def negatives(source: str, **changes) -> NegativesConfig:
    settings = {"size": 48, "pool": 72, "momentum": 0.9, "candidates": 24, "hard": 8} | changes
    return NegativesConfig(source=source, **settings)


def encoder(model):
    def encode(batch):
        video, audio = model(batch.video, batch.audio, batch.video_lengths, batch.audio_lengths)
        return Sequences(video, batch.video_lengths), Sequences(audio, batch.audio_lengths)

    return encode


def test_by_default_the_objective_is_the_contrast_of_the_batch_bit_for_bit(tiny, model, train_features):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    objective = Objective(tiny, model)
    batch = collate(train_features, range(8))
    losses = objective(encoder(model), batch)
    objective.after_step(model, batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(losses) == ["contrast"]
    assert torch.equal(losses["contrast"], ContrastiveLoss(tiny.loss)(*encoder(model)(batch)))
    assert list(objective.state_dict()) == ["contrast.log_scale"]
    assert objective.task_accuracy(encoder(model), train_features) == []


@pytest.mark.parametrize("source", SOURCES)
def test_gradients_reach_encoders_heads_and_scale_but_no_momentum_copy(source, tiny, model, train_features):
    objective = Objective(replace(tiny, negatives=negatives(source), tasks=TASKS), model)
    # What a source holds comes from earlier steps.
    for start in (0, 24):
        batch = collate(train_features, range(start, start + 24))
        objective(encoder(model), batch)
        objective.after_step(model, batch)
    losses = objective(encoder(model), collate(train_features, range(48, 72)))
    assert list(losses) == ["contrast", "speed", "direction", "ordering"]
    for name, loss in losses.items():
        model.zero_grad()
        objective.zero_grad()
        loss.backward(retain_graph=True)
        for side in (model.visual, model.audio):
            assert all(p.grad is not None and p.grad.isfinite().all() for p in side.parameters())
            assert any(p.grad.abs().sum() > 0 for p in side.parameters())
        for head, module in objective.tasks.heads.items():
            reached = [p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters()]
            assert all(reached) if head.startswith(name) else not any(reached)
        if name == "contrast":
            assert objective.contrast.log_scale.grad.abs() > 0
    if objective.source is not None:
        assert not any(p.requires_grad for p in objective.source.parameters())


class Interrupted(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_resuming_equals_never_stopping(source, tiny, train_features, tmp_path, monkeypatch):
    config = replace(tiny, negatives=negatives(source, every=3), tasks=TASKS)
    train_features = train_features.subset(range(48))
    whole = train(config, train_features, out=tmp_path / "whole", progress=False)
    step = Run.take_step

    def interrupted(run, chosen):
        if run.epoch == 2:
            raise Interrupted
        return step(run, chosen)

    monkeypatch.setattr(Run, "take_step", interrupted)
    with pytest.raises(Interrupted):
        train(config, train_features, out=tmp_path / "parts", progress=False)
    monkeypatch.undo()
    resumed = train(config, train_features, out=tmp_path / "parts", resume=True, progress=False)
    assert [r["loss"] for r in resumed.history] == [r["loss"] for r in whole.history]
    states = [checkpoint.load(tmp_path / name / CHECKPOINT) for name in ("whole", "parts")]
    for part in ("model", "objective"):
        assert list(states[0][part]) == list(states[1][part])
        assert all(torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])
    other = replace(config, negatives=replace(config.negatives, momentum=0.5))
    with pytest.raises(ValueError, match=r"negatives.momentum: checkpoint 0.9, now 0.5"):
        train(other, train_features, out=tmp_path / "parts", resume=True, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("metric", [POOLED_COSINE, "interpolated_euclidean"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_learns_with_either_kind_of_distance(source, metric, tiny, train_features, eval_features):
    config = replace(
        tiny,
        loss=LossConfig(metric=metric),
        negatives=negatives(source),
        optim=replace(tiny.optim, epochs=16),
        retrieval=replace(tiny.retrieval, every=16),
    )
    last = train(config, train_features, eval_features, progress=False).history[-1]
    mode = "mean" if metric == POOLED_COSINE else "sequence"
    # Chance is 2.5 %.
    assert min(last[f"R@1 {mode} v2a"], last[f"R@1 {mode} a2v"]) >= 20


@pytest.mark.slow
def test_every_task_is_learned_beside_the_contrast(tiny, train_features, eval_features):
    config = replace(tiny, tasks=TASKS, optim=replace(tiny.optim, epochs=30, learning_rate=5e-3))
    result = train(config, train_features, progress=False)
    rows = result.objective.task_accuracy(encoder(result.model), eval_features, batch_size=16)
    assert {(row["task"], row["of"]) for row in rows} == HEADS
    for row in rows:
        assert row["chance"] == pytest.approx({"speed": 25, "direction": 50, "ordering": 100 / 3}[row["task"]])
        assert row["clips"] == 40
        assert row["accuracy"] >= row["chance"] + 15, row


def test_held_out_excerpts_are_the_same_for_every_model_and_disturb_no_training(tiny, model, train_features):
    objective = Objective(replace(tiny, tasks=TASKS), model)
    state = torch.get_rng_state()
    first = objective.task_accuracy(encoder(model), train_features)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert objective.task_accuracy(encoder(model), train_features) == first


def test_one_task_alone_has_its_heads_alone(tiny, model, train_features):
    objective = Objective(replace(tiny, tasks=TasksConfig(direction=0.5)), model)
    assert list(objective.tasks.heads) == ["direction video", "direction audio"]
    losses = objective(encoder(model), collate(train_features, range(8)))
    assert list(losses) == ["contrast", "direction"]
    # Half of about log 2.
    assert 0.1 < losses["direction"] < 0.7


def test_a_weight_multiplies_its_loss(tiny, model, train_features):
    found = []
    for weight in (1.0, 3.0):
        torch.manual_seed(0)
        objective = Objective(replace(tiny, tasks=TasksConfig(ordering=weight)), model)
        found.append(objective(encoder(model), collate(train_features, range(8)))["ordering"])
    torch.testing.assert_close(3 * found[0], found[1])


def test_clips_too_short_to_tell_take_no_part(tiny, model, train_features):
    """An eighth of 15 steps is one step, which has no speed."""
    short = FeatureSet(
        train_features.ids[:6],
        [steps[:15] for steps in train_features.video[:6]],
        [steps[:15] for steps in train_features.audio[:6]],
    )
    objective = Objective(replace(tiny, tasks=TasksConfig(speed=1.0)), model)
    assert objective(encoder(model), collate(short, range(6)))["speed"].item() == 0
    assert [row["clips"] for row in objective.task_accuracy(encoder(model), short)] == [0, 0]


def test_what_a_head_sees():
    steps = torch.tensor([[[1.0], [4.0], [2.0], [torch.nan]], [[7.0], [9.0], [9.0], [9.0]]])
    found = summary(Sequences(steps, torch.tensor([3, 1])))[..., 0]
    torch.testing.assert_close(found, torch.tensor([[1.0, 7 / 3, 2.0, 2.5], [7.0, 7.0, 7.0, 0.0]]))


def test_settings_that_cannot_be_are_named():
    with pytest.raises(ValueError, match=r"tasks.speed must be at least 0, got -1.0"):
        TasksConfig(speed=-1.0)
    assert not Config().tasks.any
    assert TasksConfig(ordering=0.1).any


def test_the_command_line_chooses_source_and_tasks(train_features, tmp_path, capsys):
    train_features.subset(range(12)).save(tmp_path / "train.safetensors")
    options = ["--model.dim=16", "--model.visual_blocks=1", "--model.audio_blocks=1", "--model.heads=2"]
    options += ["--model.conv_kernel=5", "--optim.epochs=1", "--optim.batch_size=4", "--tensorboard=false"]
    options += ["--negatives.source=active", "--negatives.size=4", "--negatives.pool=8", "--tasks.direction=1"]
    files = [f"--train_features={tmp_path / 'train.safetensors'}", f"--out={tmp_path / 'run'}"]
    assert main(["train", *options, *files]) == 0
    state = checkpoint.load(tmp_path / "run" / CHECKPOINT)
    assert {"loss contrast", "loss direction"} <= set(state["history"][0])
    assert state["objective"]["source.memory.counters.stored"].tolist() == [8, 4]
    with pytest.raises(SystemExit):
        main(["train", *options, "--negatives.source=moco", *files])
    assert "moco" in capsys.readouterr().err
