"""Devices by name."""

import pytest
import torch

from scav_model.checkpoint import load, load_model, save
from scav_model.cli import main
from scav_model.devices import parse_device, to_device
from scav_model.encoders import EncoderOptions

WRONG = ["cudaa", "", "cuda:x", "CPU", "cpu:"]


@pytest.mark.parametrize("name", WRONG)
def test_an_unknown_device_is_named(name, tmp_path):
    save(tmp_path / "checkpoint.pt", {})
    for use in (
        to_device,
        parse_device,
        lambda device: load(tmp_path / "checkpoint.pt", device),
        lambda device: load_model(tmp_path, device),
        lambda device: EncoderOptions(device=device),
    ):
        with pytest.raises(ValueError, match="expected a device such as cpu, cuda or cuda:0, got ") as caught:
            use(name)
        assert str(caught.value).endswith(repr(name))
    with pytest.raises(ValueError, match="expected a device that holds data"):
        to_device("meta")


def test_devices_that_are_here_are_given_and_others_named(monkeypatch):
    assert to_device("cpu") == to_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="device is cuda:1, but PyTorch finds no CUDA GPU here; use cpu"):
        to_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert to_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(RuntimeError, match="device is cuda:2, but PyTorch finds 2 here; use cuda:0 to cuda:1, or cpu"):
        to_device("cuda:2")


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--train_features={train}", "--out={out}"],
        ["reproduce", "vggsound", "--features={folder}", "--out={out}"],
        ["evaluate", "--checkpoint={out}", "--features={train}"],
        ["probe", "temporal", "--checkpoint={out}", "--features={train}", "--out={out}"],
        ["probe", "ablation", "--checkpoint={out}", "--features={train}", "--out={out}"],
        ["probe", "efficiency", "--checkpoint={out}", "--features={train}", "--out={out}"],
        ["extract", "{folder}", "--out={out}"],
        ["index", "build", "{out}", "--checkpoint={out}", "--features={train}"],
        ["search", "{out}", "clip-1"],
    ],
)
@pytest.mark.parametrize(
    ("device", "message"),
    [("cudaa", "expected a device such as cpu, cuda or cuda:0, got 'cudaa'"), ("cuda:7", "finds no CUDA GPU here")],
)
def test_commands_name_a_bad_device_in_one_line(command, device, message, feature_files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    names = {"train": feature_files[0], "out": tmp_path / "out", "folder": tmp_path}
    for split in ("train", "test"):
        (tmp_path / f"{split}.safetensors").write_bytes(feature_files[0].read_bytes())
    assert main([*(part.format(**names) for part in command), f"--device={device}"]) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.splitlines()) == 1
