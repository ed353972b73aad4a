"""Checkpoints and saved models that are damaged, malformed or not finite: an error, or the same state."""

import json
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from scav_model import checkpoint
from scav_model.checkpoint import load_model
from scav_model.cli import main
from scav_model.model import AudioVisualModel
from scav_model.storage import checkpoint_file
from scav_model.training import CHECKPOINT, train
from scav_model.training.run import PARTS, Run


@pytest.fixture(scope="module")
def run(tmp_path_factory, train_features):
    """A run's folder, with a running mean; not to be changed."""
    from scav_model.config import Config, LossConfig, ModelConfig, OptimConfig

    folder = tmp_path_factory.mktemp("run")
    config = Config(
        model=ModelConfig(dim=8, visual_blocks=1, audio_blocks=1, heads=1, conv_kernel=4, conv_groups=4),
        loss=LossConfig(metric="pooled_cosine"),
        optim=OptimConfig(epochs=2, batch_size=16, ema=0.9),
        tensorboard=False,
    )
    train(config, train_features, out=folder, progress=False)
    return folder, config


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return one == other


def outcome(load, path):
    """Return the loaded object, or None and the error's message."""
    try:
        return load(path), ""
    except ValueError as error:
        return None, str(error)


def mutations(content: bytes, count: int, draw: random.Random):
    """Flipped bits, other bytes, cut ends, parts of zeros, exchanged and doubled parts; most in all of the file."""
    # The last parts of an archive say where the others are.
    for place in range(1, 200, 7):
        yield content[:-place]
        yield content[:-place] + bytes([content[-place] ^ 1 << draw.randrange(8)]) + content[len(content) - place + 1 :]
    for _ in range(count):
        place = draw.randrange(len(content))
        changed = bytearray(content)
        match draw.randrange(6):
            case 0 | 1 | 2:
                changed[place] ^= 1 << draw.randrange(8)
            case 3:
                changed[place] = draw.randrange(256)
            case 4:
                changed[place : place + 64] = bytes(len(changed[place : place + 64]))
            case 5:
                del changed[place : place + draw.choice([1, 4, 64])]
        if changed != content:
            yield bytes(changed)


def test_no_mutated_checkpoint_gives_another_state(run, tmp_path):
    path = tmp_path / CHECKPOINT
    content = (run[0] / CHECKPOINT).read_bytes()
    whole = checkpoint.load(run[0] / CHECKPOINT)
    assert whole["format"] == 4
    assert {"model", "average", "optimizer", "random"} <= whole.keys()
    refused = 0
    for number, mutated in enumerate(mutations(content, 300, random.Random(1))):
        path.write_bytes(mutated)
        found, message = outcome(checkpoint.load, path)
        assert message.count("\n") == 0
        assert str(path) in message if found is None else same(found, whole), (number, message)
        refused += found is None
    assert refused > 300


def test_no_mutated_folder_gives_another_model(run, tmp_path):
    model, config = load_model(run[0])
    model.save_pretrained(tmp_path, config)
    for name in ("model.safetensors", "config.json"):
        content = (tmp_path / name).read_bytes()
        for number, mutated in enumerate(mutations(content, 200, random.Random(2))):
            (tmp_path / name).write_bytes(mutated)
            found, message = outcome(load_model, tmp_path)
            assert message.count("\n") == 0
            if found is not None:
                assert same(dict(found[0].state_dict()), dict(model.state_dict())), (name, number)
                assert found[1] == config, (name, number)
        (tmp_path / name).write_bytes(content)
    assert load_model(tmp_path)[1] == config


def as_version_3(state, path: Path) -> None:
    """Write a checkpoint as version 0.5.0 did."""
    torch.save({**state, "format": 3}, path)


def test_checkpoints_of_version_3_load_resume_and_are_checked_by_their_parts(run, train_features, tmp_path):
    folder, config = run
    state = checkpoint.load(folder / CHECKPOINT)
    path = tmp_path / CHECKPOINT
    as_version_3(state, path)
    assert same(checkpoint.load(path), {**state, "format": 3})
    again = train(config, train_features, out=tmp_path, resume=True, progress=False)
    assert same(dict(again.model.state_dict()), dict(load_model(folder)[0].state_dict()))
    content = path.read_bytes()
    numbers = state["average"]["visual.projection.0.weight"].numpy().tobytes()
    place = content.index(numbers)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(ValueError, match="is damaged: its content is not what was written, by its checksum"):
        checkpoint.load(path)


def test_a_checkpoint_is_an_archive_that_pytorch_reads(run):
    found = torch.load(run[0] / CHECKPOINT, weights_only=True)
    assert same(found, checkpoint.load(run[0] / CHECKPOINT))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", ["checkpoint", "folder"])
def test_weights_that_are_not_finite_are_refused_by_name(kind, number, run, train_features, tmp_path):
    state = checkpoint.load(run[0] / CHECKPOINT)
    name = "audio.blocks.0.qkv.weight"
    if kind == "checkpoint":
        state["average"][name][3, 1] = number
        checkpoint.save(tmp_path / CHECKPOINT, state)
    else:
        model, config = load_model(run[0])
        with torch.no_grad():
            model.audio.blocks[0].qkv.weight[3, 1] = number
        model.save_pretrained(tmp_path, config)
    for load in (load_model, AudioVisualModel.from_pretrained):
        with pytest.raises(ValueError, match=f"{name} has 1 of 192 numbers that are NaN or infinite"):
            load(tmp_path)
    if kind == "checkpoint":
        with pytest.raises(ValueError, match=f"{name} has 1 of 192 numbers that are NaN or infinite"):
            train(run[1], train_features, out=tmp_path, resume=True, progress=False)


def test_weights_that_become_nan_are_not_saved(run, train_features, tmp_path, monkeypatch):
    step = Run.take_step

    def broken(self, clips):
        losses = step(self, clips)
        if self.steps_done == 5:
            with torch.no_grad():
                self.model.visual.norm.bias[0] = torch.nan
        return losses

    monkeypatch.setattr(Run, "take_step", broken)
    with pytest.raises(RuntimeError, match=r"after step 6, visual.norm.bias has 1 of 8 numbers .* not saved"):
        train(run[1], train_features, out=tmp_path, progress=False)
    assert checkpoint.load(tmp_path / CHECKPOINT)["epoch"] == 1
    load_model(tmp_path)


def without(state, *path):
    """A copy of nested dicts without an entry."""
    head, *rest = path
    copy = dict(state)
    if rest:
        copy[head] = without(state[head], *rest)
    else:
        del copy[head]
    return copy


def changed(state, value, *path):
    head, *rest = path
    return {**state, head: changed(state[head], value, *rest) if rest else value}


MODEL_FAULTS = [
    lambda state: without(state, "config"),
    lambda state: without(without(state, "average"), "model"),
    lambda state: changed(state, 3, "config"),
    lambda state: changed(state, {3: 4}, "config"),
    lambda state: changed(state, "x", "config", "optim", "epochs"),
    lambda state: changed(state, None, "config", "model"),
    lambda state: changed(state, 2.5, "config", "model", "dim"),
    lambda state: changed(state, 8, "config", "modle"),
    lambda state: changed(state, 8, "config", "model", "dims"),
    lambda state: changed(state, 16, "config", "model", "dim"),
    lambda state: changed(state, [1, 2], "average"),
    lambda state: changed(state, {"a": "b"}, "average"),
    lambda state: changed(state, 3, "average", "visual.norm.bias"),
    lambda state: changed(state, torch.zeros(2), "average", "visual.norm.bias"),
    lambda state: without(state, "average", "visual.norm.bias"),
    lambda state: changed(state, torch.zeros(2), "average", "more"),
]


@pytest.mark.parametrize("fault", range(len(MODEL_FAULTS)))
def test_malformed_checkpoints_are_named_in_one_line(fault, run, tmp_path):
    state = MODEL_FAULTS[fault](checkpoint.load(run[0] / CHECKPOINT))
    checkpoint.save(tmp_path / CHECKPOINT, state)
    with pytest.raises(ValueError, match=str(tmp_path)) as caught:
        load_model(tmp_path / CHECKPOINT)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("part", [*PARTS, "model", "objective", "average", "averaged"])
@pytest.mark.parametrize("value", [None, "x", *(pytest.param(v, marks=pytest.mark.slow) for v in ([], {}))])
def test_malformed_runs_are_not_resumed(part, value, run, train_features, tmp_path):
    state = checkpoint.load(run[0] / CHECKPOINT)
    if value is None:
        del state[part]
    else:
        state[part] = value
    checkpoint.save(tmp_path / CHECKPOINT, state)
    if (part, value) == ("readings", {}):
        return  # as after an epoch
    with pytest.raises(ValueError, match=r".") as caught:
        train(run[1], train_features, out=tmp_path, resume=True, progress=False)
    assert len(str(caught.value).splitlines()) == 1


def test_all_kinds_of_names_give_the_model(run, tmp_path, monkeypatch, capsys):
    expected, config = load_model(run[0] / CHECKPOINT)
    expected.save_pretrained(tmp_path / "saved", config)
    (tmp_path / "link.pt").symlink_to(run[0] / CHECKPOINT)
    (tmp_path / "runs").symlink_to(run[0])
    monkeypatch.setattr("scav_model.saved_model.download", lambda name, **hub: tmp_path / "saved")
    for name in (run[0], str(run[0]), tmp_path / "link.pt", tmp_path / "runs", tmp_path / "saved", "owner/name"):
        model, found = load_model(name)
        assert found == config
        for other in (model, AudioVisualModel.from_pretrained(name)):
            assert same(dict(other.state_dict()), dict(expected.state_dict()))


def test_what_is_no_model_is_named_and_does_not_hang(run, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "demo" / "cav").mkdir(parents=True)
    (tmp_path / "demo" / "cav" / CHECKPOINT).write_bytes(b"")
    for name, kind, message in (
        ("fifo", ValueError, "is no regular file"),
        ("loop", FileNotFoundError, "no checkpoint at"),
        ("none.pt", FileNotFoundError, "expected a run's folder with checkpoint.pt, a checkpoint file, a folder that"),
        ("none", FileNotFoundError, "a repository of the Hugging Face Hub as owner/name"),
        ("demo", FileNotFoundError, "there are runs in its folders cav"),
        ("demo/cav", ValueError, "is not a checkpoint of this program, or is damaged"),
    ):
        for load in (load_model, AudioVisualModel.from_pretrained):
            with pytest.raises(kind, match=message) as caught:
                load(tmp_path / name)
            assert len(str(caught.value).splitlines()) == 1


def test_a_folder_of_other_programs_needs_no_checksum(run, tmp_path):
    model, config = load_model(run[0])
    model.save_pretrained(tmp_path, config)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["visual.norm.bias"] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    assert torch.equal(load_model(tmp_path)[0].visual.norm.bias, model.visual.norm.bias + 1)


def test_settings_changed_by_hand_are_refused(run, tmp_path, capsys):
    model, config = load_model(run[0])
    model.save_pretrained(tmp_path, replace(config, seed=1))
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings))
    load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**settings, "seed": 2}))
    assert main(["evaluate", f"--checkpoint={tmp_path}", "--features=none"]) == 1
    assert "config.json is not what was saved with the weights, by its checksum" in capsys.readouterr().err


def test_a_checkpoint_without_the_checksum_that_its_format_has_is_damaged(tmp_path):
    torch.save({"format": checkpoint_file.FORMAT}, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.load(tmp_path / CHECKPOINT)
