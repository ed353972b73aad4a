"""Config files: bases, packaged ones, and what a typo is answered with."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from scav_model.cli import main
from scav_model.cli.words import arranged
from scav_model.config import Config, from_dict, to_dict
from scav_model.config_files import CONFIGS, load, packaged, read
from scav_model.distances import Sequences, retrieval_distance
from scav_model.fields import nearest, section
from scav_model.losses import ContrastiveLoss
from tests.small_features import walks

ROWS = ("cav", "scav_euclidean", "scav_dtw", "scav_wasserstein")


@pytest.mark.parametrize("dataset", ["vggsound", "music"])
@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_paper_has_a_short_config(dataset, row):
    config = load(f"{dataset}/{row}")
    assert config.optim.batch_size == 32
    assert (config.model.dim, config.model.visual_blocks, config.model.audio_blocks) == (512, 8, 2)
    metrics = config.loss.metric, retrieval_distance(config).metric
    assert (
        metrics
        == {
            "cav": ("pooled_cosine", "interpolated_euclidean"),
            "scav_euclidean": ("interpolated_euclidean", "interpolated_euclidean"),
            "scav_dtw": ("soft_dtw", "dtw"),
            "scav_wasserstein": ("sinkhorn", "sinkhorn"),
        }[row]
    )
    assert len((CONFIGS / dataset / f"{row}.yaml").read_text().splitlines()) <= 8


def test_packaged_configs_are_the_rows_and_their_base():
    others = ["base", "fate", "small"]
    assert packaged() == sorted([*others, *(f"{data}/{row}" for data in ("music", "vggsound") for row in ROWS)])


def test_fate_is_the_mean_cosine_of_nearest_steps_at_a_fixed_temperature():
    config = load("fate")
    video, audio = torch.randn(3, 4, 8), torch.randn(3, 9, 8)
    lengths = torch.full((3,), 4), torch.full((3,), 9)
    loss = ContrastiveLoss(config.loss)
    frames = F.interpolate(video.mT, size=9, mode="nearest").mT
    logits = F.cosine_similarity(frames[:, None], audio[None], dim=-1).mean(-1) / 0.07
    right = torch.arange(3)
    expected = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    torch.testing.assert_close(loss(Sequences(video, lengths[0]), Sequences(audio, lengths[1])), expected)
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert (retrieval_distance(config).metric, retrieval_distance(config).options) == (
        "interpolated_cosine",
        {"mode": "nearest"},
    )
    assert load("base", {"loss": to_dict(config)["loss"]}) == config


def test_fate_is_trained_and_searched_as_other_configs_are(tmp_path, capsys):
    walks(16, seed=1).save(tmp_path / "features.safetensors")
    settings = {"model": {"dim": 8, "visual_blocks": 1, "audio_blocks": 1, "heads": 2, "conv_groups": 4}}
    arguments = [f"--train_features={tmp_path / 'features.safetensors'}", f"--out={tmp_path / 'run'}"]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(settings))
    small = [f"--config={tmp_path / 'small.yaml'}", "--epochs=1", "--batch-size=8", "--tensorboard=false"]
    assert main(["train", "--config=fate", *small, *arguments]) == 0, capsys.readouterr().err
    saved = read(tmp_path / "run" / "config.yaml")["loss"]
    assert (saved["metric"], saved["options"], saved["learn_scale"]) == (
        "interpolated_cosine",
        {"mode": "nearest"},
        False,
    )
    found = [f"--features={tmp_path / 'features.safetensors'}", f"--output={tmp_path / 'found.json'}"]
    assert main(["evaluate", f"--checkpoint={tmp_path / 'run'}", *found]) == 0, capsys.readouterr().err


def test_the_base_is_the_defaults():
    assert read("base") == to_dict(Config())


def test_what_the_paper_does_not_state_is_marked_in_the_files():
    """In every file, by the word at the end of its line; in the code, by the field's metadata."""
    sections = {entry.name: section(entry) for entry in fields(Config)}
    for path in set(CONFIGS.rglob("*.yaml")) - {CONFIGS / "fate.yaml"}:  # whose paper is another
        inside = Config
        for line in path.read_text().splitlines():
            name = line.partition(":")[0]
            if not name.strip() or name.startswith(("#", "base")):
                continue
            if not name.startswith(" "):
                inside = sections[name] or Config
                if sections[name]:
                    continue
            entry = next(entry for entry in fields(inside) if entry.name == name.strip())
            row_choice = path.stem in ("scav_dtw", "scav_wasserstein") and inside.__name__ == "LossConfig"
            assert line.endswith("# assumed") == (entry.metadata["assumption"] or row_choice), (path, line)


def test_a_file_changes_its_base_and_its_bases_base(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "first.yaml").write_text("base: vggsound/scav_dtw\noptim: {batch_size: 8, epochs: 2}\n")
    (tmp_path / "second.yaml").write_text("base: mine/first.yaml\noptim: {epochs: 3}\nloss: {options: {gamma: 1.0}}\n")
    config = load(tmp_path / "second.yaml", {"seed": 7})
    assert (config.optim.batch_size, config.optim.epochs, config.seed) == (8, 3, 7)
    # A metric's options are one value: those of the base would be another metric's.
    assert config.loss.options == {"gamma": 1.0}
    assert config.retrieval.metric == "dtw"


def test_bases_in_a_circle_and_files_that_are_none_are_named(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ValueError, match=r"a circle: .*a.yaml → .*b.yaml → .*a.yaml"):
        read(tmp_path / "a.yaml")
    with pytest.raises(FileNotFoundError, match=r"did you mean vggsound/scav_dtw\? packaged are base, fate, music/cav"):
        read("vgsound/scav_dtw")
    (tmp_path / "c.yaml").write_text("base: [")
    with pytest.raises(ValueError, match="is not YAML"):
        read(tmp_path / "c.yaml")
    (tmp_path / "d.yaml").write_text("- 3")
    with pytest.raises(ValueError, match="must hold settings by name, got list"):
        read(tmp_path / "d.yaml")


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"modle": {}}, "Config has no field modle, did you mean model?"),
        ({"model": {"dims": 3}}, "ModelConfig has no field dims, did you mean dim?"),
        ({"learning_rate": 1.0}, "Config has no field learning_rate, did you mean optim.learning_rate?"),
        ({"optim": {"xyzzy": 1}}, "OptimConfig has no field xyzzy; its fields are epochs,"),
        ({"optim": 3}, "Config.optim must be a mapping of settings, got 3"),
    ],
)
def test_typos_in_settings_are_answered_with_the_nearest_name(settings, hint):
    with pytest.raises(ValueError, match=hint.replace("?", r"\?")):
        from_dict(Config, settings)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("train", "--modle.dim=3"), "did you mean --model.dim?"),
        (("train", "--learnign_rate=3"), "did you mean --optim.learning_rate?"),
        (("train", "--train_feature=x"), "did you mean --train_features?"),
        (("train", "--model.dim=3", "--config={file}"), "option 'model.haeds', did you mean model.heads?"),
        (("train", "--config=vggsound/scav_dtv"), "did you mean vggsound/scav_dtw?"),
        (("evaluate", "--checkpoint=x", "--features=y", "--hybridk=3"), "did you mean --hybrid_k?"),
        (("reproduce", "vggsound", "--features=x", "--row=[cav]"), "did you mean --rows?"),
        (("trian",), "did you mean train?"),
    ],
)
def test_typos_on_the_command_line_are_answered_with_the_nearest_name(arguments, hint, capsys, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: base\nmodel: {haeds: 4}\n")
    if arguments[0] == "train":
        arguments = (*arguments, "--train_features=x")
    with pytest.raises(SystemExit) as stopped:
        main([argument.format(file=file) for argument in arguments])
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert hint in message
    assert message.count("\n") == 1


def test_nothing_is_suggested_where_nothing_is_near():
    assert nearest("xyzzy", ["model.dim", "optim.epochs"]) == ""


def test_packages_hold_the_configs():
    setup = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"configs/**/*.yaml"' in setup
    assert all(yaml.safe_load(path.read_text()) for path in CONFIGS.rglob("*.yaml"))


def test_an_old_name_of_a_setting_is_read_and_warns(tmp_path):
    """In a file, in a checkpoint's config and on the command line."""
    (tmp_path / "old.yaml").write_text("negatives: {source: bank, neighbours: 3}\n")
    with pytest.warns(DeprecationWarning, match=r"^NegativesConfig.neighbours is now neighbors$"):
        assert load(tmp_path / "old.yaml").negatives.neighbors == 3
    saved = to_dict(Config())
    saved["negatives"]["neighbours"] = 2 + saved["negatives"].pop("neighbors")
    with pytest.warns(DeprecationWarning, match=r"^NegativesConfig.neighbours is now neighbors$"):
        assert from_dict(Config, saved).negatives.neighbors == 3
    assert arranged(["train", "--negatives.neighbours", "3"]) == ["train", "--negatives.neighbors=3"]
