"""`scav reproduce --check`: what is missing or wrong is named, with what to do, and nothing is written."""

import shutil
from dataclasses import replace

import pytest
import torch
import yaml

from scav_model.cli import main
from scav_model.config import Config, LossConfig, ModelConfig, OptimConfig
from scav_model.data import FeatureSet, FeatureStore
from scav_model.data.store import Entry, StoreHeader, StoreWriter
from scav_model.experiments.reproduce import check, cost
from scav_model.experiments.reproduce.cost import RowCost, measure

MODEL = {"dim": 16, "visual_blocks": 1, "audio_blocks": 1, "heads": 2, "conv_kernel": 4, "conv_groups": 4}
SETTINGS = {"tensorboard": False, "model": MODEL, "optim": {"epochs": 2, "batch_size": 16}}


@pytest.fixture
def command(train_features, eval_features, tmp_path):
    """Arguments of a check of one row, on a folder of two splits."""
    train_features.save(tmp_path / "features" / "train.safetensors")
    eval_features.save(tmp_path / "features" / "test.safetensors")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
    return [
        "reproduce", "vggsound", f"--features={tmp_path / 'features'}", f"--settings={tmp_path / 'small.yaml'}",
        f"--out={tmp_path / 'out'}", "--hybrid_k=[2]", "--rows=[cav]", "--check",
    ]  # fmt: skip


def checked(command, capsys, *more):
    """Return the exit code and the lines of a check, by what was checked."""
    code = main([*command, *more])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_a_good_folder_is_ready_and_nothing_is_written(command, tmp_path, capsys):
    before = sorted(path.name for path in tmp_path.rglob("*"))
    code, lines, err = checked(command, capsys, "--rows=[cav,scav_dtw]")
    assert code == 0, err
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    text = "\n".join(lines)
    assert "problem" not in text
    assert any(line.startswith("list, train") and "64 clips, SHA-256 of their ids" in line for line in lines)
    assert "list, test   warning: 24 clips, where about 15400 were published" in text
    assert "features, video warning: 10 to 16 steps of 6 features" in text
    assert "the paper has 2048 features by clip, 5 steps a second" in text
    assert any(line.startswith("time, scav_dtw SCAV, DTW: about ") and " for 8 steps, then " in line for line in lines)
    assert lines[-1] == "ready: the same command without --check starts"


def test_clips_in_both_splits_are_a_problem(command, train_features, eval_features, tmp_path, capsys):
    both = FeatureSet(
        [train_features.ids[0], *eval_features.ids], [*train_features.video[:1], *eval_features.video],
        [*train_features.audio[:1], *eval_features.audio],
    )  # fmt: skip
    both.save(tmp_path / "features" / "test.safetensors")
    code, lines, err = checked(command, capsys)
    assert code == 1
    assert err == "scav reproduce: error: found 1 problem, listed above\n"
    assert any("problem: clips in both splits: 1, such as clip1-0; take them out" in line for line in lines)


def test_videos_in_both_splits_are_a_warning(train_features, eval_features):
    def named(features, names):
        return FeatureSet(names, features.video[:2], features.audio[:2])

    splits = {"train": named(train_features, ["a_000010", "b_000000"]), "test": named(eval_features, ["a_000020", "c"])}
    (found,) = check.check_lists("music", splits, [1])
    assert (found.state, found.found) == ("warning", "videos with clips in both splits: 1, such as a")


def test_each_missing_split_is_named(command, tmp_path, capsys):
    (tmp_path / "features" / "test.safetensors").unlink()
    code, lines, _ = checked(command, capsys)
    assert code == 1
    assert any(line.startswith("list, test   problem: ") and "scav extract" in line for line in lines)
    FeatureSet([], [], []).save(tmp_path / "features" / "test.safetensors")
    assert any("problem: no clip in" in line for line in checked(command, capsys)[1])


def test_damaged_values_and_other_sizes_are_problems(command, train_features, eval_features, tmp_path, capsys):
    wider = [torch.cat((steps, steps), 1) for steps in eval_features.video]
    wider[3] = wider[3].clone()
    wider[3][0, 0] = float("nan")
    FeatureSet(eval_features.ids, wider, eval_features.audio).save(tmp_path / "features" / "test.safetensors")
    code, lines, _ = checked(command, capsys)
    assert code == 1
    text = "\n".join(lines)
    assert f"values, test problem: video: NaN or infinite in 1 clips: {eval_features.ids[3]}; extract these" in text
    assert "problem: training and test clips differ: dim 6 and 12; extract both alike" in text


def test_a_store_says_what_it_lacks(tmp_path, capsys):
    side = {"encoder": "clip", "model": "ViT", "dim": 2048, "rate_hz": 5.0, "untrained": True}
    header = StoreHeader(side, {"encoder": "beats", "dim": 768, "rate_hz": 6.25})
    generator = torch.Generator().manual_seed(0)
    with StoreWriter(tmp_path / "store", header) as writer:
        for index, split in enumerate(("train", "train", "test", "test")):
            video, audio = torch.randn(50, 2048, generator=generator), torch.randn(62, 768, generator=generator)
            writer.add(Entry(f"clip{index}", split=split, seconds=10.0), video, audio)
        # Left unfinished.
    store = FeatureStore.open(tmp_path / "store")
    splits = {split: store.select(split) for split in ("train", "test")}
    states = {finding.state: finding for finding in check.check_lists("music", splits, [1])}
    assert states["problem"].advice == "repeat its scav extract"
    (values,) = check.check_values("train", splits["train"])
    assert values.found == "2 clips read: finite, changing, as long as they should be"
    video, audio = check.check_features(splits["train"], splits["test"])
    assert (video.state, audio.state) == ("problem", "ok")
    assert video.found.endswith("by clip ViT: its weights are untrained")
    assert audio.found == "62 to 62 steps of 768 features, 6.25 steps a second, by beats"


def test_the_folder_of_another_run_is_a_problem(command, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    code, lines, _ = checked(command, capsys)
    assert code == 1
    assert any("holds something else: it has no reproduce.json; name another folder" in line for line in lines)


def test_a_finished_run_can_be_resumed(command, tmp_path, capsys):
    run = [argument for argument in command if argument != "--check"]
    assert main(run) == 0
    capsys.readouterr()
    assert any("holds an earlier run" in line for line in checked(command, capsys)[1])
    code, lines, _ = checked(command, capsys, "--resume")
    assert code == 0
    assert any("holds an earlier part of this run" in line for line in lines)


def test_too_little_room_is_a_problem(tmp_path, monkeypatch):
    configs = {"cav": Config()}
    costs = {"cav": RowCost(1, 1.0, 1.0, checkpoint=10**9)}
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(check.shutil, "disk_usage", lambda path: usage._replace(free=2 * 10**9 - 1))
    # The new checkpoint is written before the old one goes.
    found = check.check_disk(tmp_path / "not" / "there", configs, costs)
    assert (found.state, found.found.split(" for")[0]) == ("problem", "2.00 GB")
    monkeypatch.setattr(check.shutil, "disk_usage", lambda path: usage._replace(free=2 * 10**9))
    assert check.check_disk(tmp_path, configs, costs).state == "ok"


def test_memory_is_that_of_the_encoded_test_clips(eval_features, monkeypatch):
    config = Config(model=ModelConfig(dim=64))
    longest = int(eval_features.video_lengths.max() + eval_features.audio_lengths.max())
    needed = 4 * 64 * longest * len(eval_features)
    for free, state in ((needed, "ok"), (needed - 1, "problem")):
        monkeypatch.setattr(check, "available_memory", lambda free=free: free)
        (found,) = check.check_memory(config, eval_features)
        assert found.state == state


def test_cost_counts_all_steps_pairs_and_bytes(train_features, eval_features, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: float(next(ticks)))
    config = Config(
        model=ModelConfig(**MODEL), optim=OptimConfig(epochs=3, batch_size=16, ema=0.9), loss=LossConfig(metric="dtw")
    )
    found = measure(config, {"train": train_features, "test": eval_features}, [2, 500])
    assert found.steps == 3 * 4
    # Everything that is timed takes a second: a step, the encoding of all 24 test clips, and all of their pairs.
    assert found.train == 12.0
    assert found.search == pytest.approx(1 + (24**2 + 2 * 24 * 2) / 24**2)
    weights, rest = divmod(found.checkpoint, 16)
    assert rest == 0
    assert weights > 1000
    without = measure(
        replace(config, optim=replace(config.optim, ema=0.0)), {"train": train_features, "test": eval_features}, []
    )
    assert without.checkpoint == 12 * weights


def test_durations_and_sizes():
    assert [check.duration(seconds) for seconds in (1, 119, 180, 9_000, 200_000)] == [
        "1.0 s", "119.0 s", "3.0 minutes", "2.5 hours", "2.3 days",
    ]  # fmt: skip
    assert (check.size(5e5), check.size(2.5e9)) == ("0.50 MB", "2.50 GB")
