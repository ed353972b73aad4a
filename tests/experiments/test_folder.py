"""Experiments write settings to their folder, refuse other runs there and keep finished results."""

import json

import pytest

from scav_model.config import Config, ModelConfig, OptimConfig, RetrievalConfig
from scav_model.experiments import folder as module
from scav_model.experiments.folder import prepare_folder, train_once
from scav_model.storage.files import LOCK
from scav_model.train import CHECKPOINT

STAMP = "run.json"
SETTINGS = {"seed": 0, "sizes": (1, 2), "dataset": "music"}


def prepare(path, settings=SETTINGS, resume=False):
    prepare_folder(path, STAMP, settings, resume=resume, anew="remove it")


@pytest.mark.parametrize("resume", [False, True])
def test_a_new_folder_holds_the_settings_as_json(tmp_path, resume):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK).touch()
    prepare(tmp_path / "out", resume=resume)
    prepare(tmp_path / "other", resume=resume)
    for name in ("out", "other"):
        assert json.loads((tmp_path / name / STAMP).read_text()) == {"seed": 0, "sizes": [1, 2], "dataset": "music"}


def test_the_same_settings_are_resumed_and_nothing_else_is_touched(tmp_path):
    prepare(tmp_path)
    (tmp_path / "rows.json").write_text("[]")
    prepare(tmp_path, resume=True)
    with pytest.raises(FileExistsError, match=r"run\.json holds an earlier run; resume it, remove it, or choose"):
        prepare(tmp_path)
    assert (tmp_path / "rows.json").read_text() == "[]"


def test_other_settings_are_listed(tmp_path):
    prepare(tmp_path)
    wanted = {"seed": 1, "sizes": [1, 2], "dataset": "vggsound", "device": "cpu"}
    message = r"\(seed: there 0, now 1; dataset: there 'music', now 'vggsound'; device: there None, now 'cpu'\); repeat"
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, wanted, resume=True)
    assert json.loads((tmp_path / STAMP).read_text())["seed"] == 0


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_something_else_is_refused(tmp_path, resume):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match=r"holds something else: it has no run\.json; choose another folder"):
        prepare(tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "expected a JSON object in .*, got list")])
def test_a_damaged_stamp_is_named(tmp_path, text, message):
    (tmp_path / STAMP).write_text(text)
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, resume=True)


def test_a_model_is_trained_once_and_resumed_from_its_checkpoint(tmp_path, train_features, monkeypatch):
    config = Config(
        tensorboard=False,
        model=ModelConfig(dim=16, visual_blocks=1, audio_blocks=1, heads=2, conv_kernel=4, conv_groups=4),
        optim=OptimConfig(epochs=1, batch_size=16),
        retrieval=RetrievalConfig(every=0),
    )
    calls, announced = [], []
    train = module.train

    def recorded(*arguments, resume, overwrite, **options):
        calls.append((resume, overwrite))
        return train(*arguments, resume=resume, overwrite=overwrite, **options)

    def interrupted(trained):
        raise KeyboardInterrupt

    def run(search=lambda trained: [len(trained.history)], **options):
        clips = train_features.subset(range(16))
        return train_once(tmp_path / "cav" / "rows.json", config, clips, search, lambda: announced.append(1), **options)

    monkeypatch.setattr(module, "train", recorded)
    with pytest.raises(KeyboardInterrupt):
        run(interrupted)
    assert (tmp_path / "cav" / CHECKPOINT).exists()
    assert run() == run() == [1]
    assert run(lambda trained: "anew", resume=False) == "anew"
    assert run() == "anew"
    assert calls == [(False, False), (True, True), (False, True)]
    assert len(announced) == 3
