import inspect
import json

import pytest
import torch

from scav_model.cli import main
from scav_model.data import FeatureSet
from scav_model.experiments.probes import compare
from scav_model.experiments.probes.compare import run_compare
from scav_model.experiments.probes.experiment import Experiment, digest
from scav_model.experiments.probes.results import load
from scav_model.experiments.probes.temporal import run_temporal
from scav_model.experiments.probes.transforms import TRANSFORMATIONS
from scav_model.experiments.tables import markdown


@pytest.fixture
def arguments(files):
    return [f"--checkpoint={files[0]}", f"--features={files[1]}"]


@pytest.fixture(scope="module")
def temporal_results(files, tmp_path_factory):
    """The folder that the command leaves; tests do not change it."""
    out = tmp_path_factory.mktemp("command") / "out"
    options = ["--transformations=[shift,warp]", "--strengths=[0.5]", "--metrics=[pooled_cosine,dtw]"]
    assert (
        main(["probe", "temporal", f"--checkpoint={files[0]}", f"--features={files[1]}", f"--out={out}", *options]) == 0
    )
    return out / "results.json"


def test_temporal_writes_results_table_and_picture(temporal_results):
    rows = load(temporal_results)["rows"]
    assert {(row["transformation"], row["strength"], row["metric"]) for row in rows} == {
        (transformation, strength, metric)
        for transformation in ("shift", "warp")
        for strength in (0.0, 0.5)
        for metric in ("pooled_cosine", "dtw")
    }
    table = (temporal_results.parent / "table.md").read_text().splitlines()
    assert table[2:4] == ["| transformation | metric | 0 | 0.5 |", "| --- | --- | ---: | ---: |"]
    assert len(table) == 8


def test_ablation_prints_its_table(arguments, tmp_path, capsys):
    options = ["--lengths=[1]", "--factors=[1,2]", "--where=[encoded]", "--metrics=[sinkhorn]", "--clips=8"]
    options += ["--options={sinkhorn: {epsilon: 0.2}}"]
    assert main(["probe", "ablation", *arguments, f"--out={tmp_path}", *options]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith((tmp_path / "table.md").read_text())
    assert "among 8 clips (chance 12.5)" in printed
    assert load(tmp_path / "results.json")["settings"]["options"] == {"sinkhorn": {"epsilon": 0.2}}


def test_every_transformation_is_offered():
    offered = inspect.signature(run_temporal).parameters["transformations"].default
    assert offered == tuple(TRANSFORMATIONS)


def test_a_second_run_needs_to_be_told_what_to_do_with_the_first(temporal_results, arguments, capsys):
    command = ["probe", "temporal", *arguments, f"--out={temporal_results.parent}"]
    assert main(command) == 1
    assert "results.json holds an earlier run; resume it, overwrite it, or choose" in capsys.readouterr().err
    assert main([*command, "--resume", "--side=audio"]) == 1
    assert "side: there 'video', now 'audio'" in capsys.readouterr().err


def test_features_of_another_front_end_are_refused(files, tmp_path, capsys):
    other = FeatureSet(["a", "b"], [torch.zeros(3, 4)] * 2, [torch.zeros(3, 5)] * 2)
    other.save(tmp_path / "other.safetensors")
    command = ["probe", "temporal", f"--checkpoint={files[0]}", f"--out={tmp_path}/out"]
    assert main([*command, f"--features={tmp_path}/other.safetensors"]) == 1
    assert "trained on video and audio steps of 6 and 5 features" in capsys.readouterr().err
    assert main([*command, f"--features={files[1]}", "--clips=1"]) == 1
    assert "clips must be at least 2" in capsys.readouterr().err


def test_compare_draws_models_by_their_own_metric(temporal_results, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(compare, "plot_disturbances", lambda lines, **rest: drawn.update(lines))
    other = json.loads(temporal_results.read_text())
    other["settings"]["own_metric"] = "pooled_cosine"
    (tmp_path / "cav.json").write_text(json.dumps(other))
    options = [f"--results.CAV={tmp_path}/cav.json", f"--results.SCAV={temporal_results}"]
    assert main(["probe", "compare", *options, f"--out={tmp_path}/all.png"]) == 0
    assert list(drawn) == ["shift", "warp"]
    assert list(drawn["warp"]) == ["CAV, pooled_cosine", "SCAV, dtw"]
    rows = other["rows"]
    at_half = [row["R@1"] for row in rows if list(row.values())[:3] == ["warp", 0.5, "dtw"]]
    assert drawn["warp"]["SCAV, dtw"][0.5] == sum(at_half) / 2
    assert main(["probe", "compare", *options, "--metric=pooled_cosine", f"--out={tmp_path}/all.png"]) == 0
    assert "SCAV, pooled_cosine" in drawn["shift"]


def test_compare_refuses_what_cannot_be_compared(temporal_results, tmp_path):
    other = json.loads(temporal_results.read_text())
    other["settings"]["side"] = "audio"
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(
        ValueError, match=r"first and second are of different experiments \(side: 'video' and 'audio'\)"
    ):
        run_compare({"first": temporal_results, "second": tmp_path / "other.json"}, None, tmp_path / "x.png")
    with pytest.raises(ValueError, match="no search by sinkhorn"):
        run_compare({"first": temporal_results}, "sinkhorn", tmp_path / "x.png")
    with pytest.raises(ValueError, match="at least one"):
        run_compare({}, None, tmp_path / "x.png")
    run_compare({"first": temporal_results}, None, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_not_results_is_refused(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(FileNotFoundError, match="run the experiment first"):
        load(path)
    for text, message in (
        ("{", "is not JSON"),
        ("[]", "has format None, expected 1"),
        ('{"format": 9}', "has format 9"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            load(path)


def test_digests_tell_values_names_and_shapes_apart(files):
    tensor = torch.arange(6.0)
    same = digest({"a": tensor}, ["x"])
    assert same == digest({"a": tensor.clone()}, ["x"])
    others = [digest({"a": tensor + 1}, ["x"]), digest({"a": tensor}, ["y"]), digest({"a": tensor.view(2, 3)}, ["x"])]
    assert len({same, *others}) == 4
    few, all_clips = (Experiment.load(*files, clips=clips, batch_size=8, device="cpu") for clips in (5, None))
    assert len(few.features) == 5
    assert few.settings()["features"] != all_clips.settings()["features"]
    assert few.settings()["model"] == all_clips.settings()["model"]


def test_markdown():
    assert markdown(["name", "R@1"], [["dtw", "3"]], names=1) == "| name | R@1 |\n| --- | ---: |\n| dtw | 3 |"
