"""Models as folders and repositories."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch

from scav_model.checkpoint import load_model
from scav_model.cli import main
from scav_model.config import Config, LossConfig, ModelConfig
from scav_model.model import AudioVisualModel

TINY = ModelConfig(
    visual_input=6, audio_input=5, dim=16, visual_blocks=1, audio_blocks=1, heads=2, conv_kernel=4, conv_groups=4
)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.fixture
def model():
    return AudioVisualModel(TINY)


def test_a_folder_gives_the_same_model(model, tmp_path):
    model.save_pretrained(tmp_path / "mine", Config(loss=LossConfig(metric="dtw")))
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"config.json", "model.safetensors"}
    again = AudioVisualModel.from_pretrained(tmp_path / "mine")
    assert not again.training
    assert again.config == TINY
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    _, config = load_model(tmp_path / "mine")
    assert config == Config(model=TINY, loss=LossConfig(metric="dtw"))


def test_a_folder_can_be_searched_with(model, tmp_path, feature_files, capsys):
    model.save_pretrained(tmp_path)
    assert main(["evaluate", f"--checkpoint={tmp_path}", f"--features={feature_files[1]}"]) == 0
    assert capsys.readouterr().out.startswith("retrieval")


def test_pickled_weights_are_refused_and_run_nothing(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.save_pretrained(tmp_path / "mine")
    weights = tmp_path / "mine" / "model.safetensors"
    weights.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ValueError, match=r"does not hold the weights of the model in config.json"):
        AudioVisualModel.from_pretrained(tmp_path / "mine")
    weights.rename(tmp_path / "mine" / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"has no model.safetensors; weights of other kinds are not read"):
        AudioVisualModel.from_pretrained(tmp_path / "mine")
    assert not (tmp_path / "pwned").exists()


def test_what_is_missing_or_does_not_fit_is_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config.json; expected a folder that save_pretrained wrote"):
        AudioVisualModel.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"]["dim"] = 32
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"does not hold the weights of the model in config.json: .* size mismatch"):
        AudioVisualModel.from_pretrained(tmp_path)
    config["model"]["dims"] = config["model"].pop("dim")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"ModelConfig has no field dims, did you mean dim\?"):
        AudioVisualModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        AudioVisualModel.from_pretrained(tmp_path)
    with pytest.raises(
        FileNotFoundError, match="no model owner/none: tried a file and a folder of that name, then the Hub"
    ):
        AudioVisualModel.from_pretrained("owner/none", local_files_only=True, cache_dir=tmp_path / "cache")


def test_a_repository_is_asked_for_two_files_alone(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    asked = {}

    def snapshot_download(name, **options):
        asked.update(name=name, **options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    again = AudioVisualModel.from_pretrained("owner/name", revision="v1")
    assert again.config == TINY
    assert (asked["name"], asked["revision"]) == ("owner/name", "v1")
    assert asked["allow_patterns"] == ["config.json", "model.safetensors"]


def test_pushing_uploads_what_saving_writes(model, monkeypatch, tmp_path):
    seen = {}

    class Api:
        def __init__(self, token):
            seen["token"] = token

        def create_repo(self, name, private, exist_ok):
            seen.update(private=private, exist_ok=exist_ok)
            return type("Url", (), {"repo_id": name})

        def upload_folder(self, repo_id, folder_path, revision, commit_message):
            AudioVisualModel.from_pretrained(folder_path).save_pretrained(tmp_path)
            seen.update(repo_id=repo_id, files=sorted(path.name for path in Path(folder_path).iterdir()))
            return type("Commit", (), {"commit_url": "https://hub/commit"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert model.push_to_hub("owner/name", replace(Config(), seed=3), private=True) == "https://hub/commit"
    assert seen == {
        "token": None, "private": True, "exist_ok": True, "repo_id": "owner/name",
        "files": ["config.json", "model.safetensors"],
    }  # fmt: skip
    assert AudioVisualModel.from_pretrained(tmp_path).config == TINY


def test_a_repository_in_the_cache_is_a_model(model, tmp_path, feature_files, capsys, monkeypatch):
    """The cache is laid out as huggingface_hub does it; nothing is downloaded."""
    cache = tmp_path / "cache"
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / "models--owner--name"
    model.save_pretrained(repository / "snapshots" / commit, Config(loss=LossConfig(metric="dtw")))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    again = AudioVisualModel.from_pretrained("owner/name", cache_dir=cache, local_files_only=True)
    assert not again.training
    assert (again.loaded_from.name, again.loaded_from.config.loss.metric) == ("owner/name", "dtw")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    with pytest.raises(FileNotFoundError, match=r"no model owner/other: tried a file and a folder of that name, then"):
        AudioVisualModel.from_pretrained("owner/other", cache_dir=cache, local_files_only=True)
    # A command takes the same name.
    download = huggingface_hub.snapshot_download

    def snapshot_download(name, **options):
        return download(name, **{**options, "cache_dir": cache, "local_files_only": True})

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert main(["evaluate", "--checkpoint=owner/name", f"--features={feature_files[1]}"]) == 0
    assert capsys.readouterr().out.startswith("retrieval")
