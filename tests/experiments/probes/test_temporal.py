import json

import pytest
import torch

from scav_model.cli import main
from scav_model.data import FeatureSet
from scav_model.distances import Distance
from scav_model.experiments.probes import temporal
from scav_model.experiments.probes.experiment import MEASURES, Experiment, search
from scav_model.experiments.probes.temporal import disturbance, run_temporal
from scav_model.experiments.probes.transforms import TRANSFORMATIONS

SETTINGS = {
    "metrics": ("pooled_cosine", "interpolated_euclidean", "dtw"),
    "options": {},
    "transformations": tuple(TRANSFORMATIONS),
    "strengths": (0.5, 1.0),
    "side": "video",
    "where": "features",
    "seed": 0,
}


def run(experiment, out, **changes):
    return run_temporal(experiment, **{**SETTINGS, **changes}, out=out)


def recall(rows, transformation, strength, metric):
    cell = (transformation, strength, metric)
    found = [row["R@1"] for row in rows if (row["transformation"], row["strength"], row["metric"]) == cell]
    assert len(found) == 2
    return sum(found) / 2


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    """A finished experiment; not to be changed."""
    out = tmp_path_factory.mktemp("temporal") / "out"
    return out, run(Experiment.load(*files, clips=None, batch_size=10, device="cpu"), out)


def test_every_cell_has_a_row_each_way(finished):
    out, rows = finished
    keys = [(row["transformation"], row["strength"], row["metric"], row["direction"]) for row in rows]
    assert keys == [
        (transformation, strength, metric, direction)
        for transformation in TRANSFORMATIONS
        for strength in (0.0, 0.5, 1.0)
        for metric in SETTINGS["metrics"]
        for direction in ("v2a", "a2v")
    ]
    stored = json.loads((out / "results.json").read_text())
    assert stored["rows"] == rows
    assert stored["settings"]["gallery"] == 24
    assert stored["settings"]["own_metric"] == "dtw"
    assert (out / "recall.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in out.iterdir()} == {"results.json", "table.md", "recall.png"}


@pytest.mark.parametrize("where", ["features", "encoded"])
def test_strength_0_is_scav_evaluate_to_the_bit(files, experiment, tmp_path, where):
    options = {"soft_dtw": {"gamma": 0.5}}
    metrics = ("pooled_cosine", "dtw", "interpolated_euclidean", "soft_dtw")
    rows = run(experiment, tmp_path / "out", metrics=metrics, options=options, strengths=(0.0,), where=where)
    for metric in metrics:
        arguments = ["evaluate", f"--checkpoint={files[0]}", f"--features={files[1]}", "--batch_size=10"]
        if metric == "pooled_cosine":
            arguments += ["--modes=[mean]"]
        else:
            arguments += ["--modes=[sequence]", f"--metric={metric}"]
        if metric in options:
            arguments += ["--options.gamma=0.5"]
        assert main([*arguments, f"--output={tmp_path / metric}.json"]) == 0
        expected = json.loads((tmp_path / f"{metric}.json").read_text())
        for transformation in TRANSFORMATIONS:
            found = [row for row in rows if (row["transformation"], row["metric"]) == (transformation, metric)]
            assert [{name: row[name] for name in ("direction", *MEASURES)} for row in found] == [
                {name: row[name] for name in ("direction", *MEASURES)} for row in expected
            ]


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_disturbance_of_strength_0_leaves_encoded_clips_to_the_bit(experiment, name):
    encoded = experiment.encode(experiment.features)
    for where in ("features", "encoded"):
        found = temporal.changed(experiment, encoded, [(disturbance(name, 0.0, 3), "video")], where)
        for before, after in zip(encoded, found, strict=True):
            assert torch.equal(before.steps, after.steps)
            assert torch.equal(before.lengths, after.lengths)


@pytest.mark.parametrize("where", ["features", "encoded"])
def test_a_cell_is_what_its_name_says(experiment, tmp_path, where):
    """The audio, half a clip late, before or after encoding: written out."""
    rows = run(experiment, tmp_path, where=where, side="audio", transformations=("roll",), metrics=("dtw",))
    features = experiment.features
    late = [steps.roll(round(len(steps) / 2), 0) for steps in features.audio]
    video, audio = experiment.encode(
        FeatureSet(features.ids, features.video, late) if where == "features" else features
    )
    if where == "encoded":
        for index, length in enumerate(audio.lengths.tolist()):
            audio.steps[index, :length] = audio.steps[index, :length].roll(round(length / 2), 0)
    expected = search(video, audio, Distance("dtw"))
    found = [row for row in rows if row["strength"] == 1.0]
    assert [{name: row[name] for name in ("direction", *MEASURES)} for row in found] == expected


def test_disorder_costs_recall_where_order_counts(finished):
    _, rows = finished
    assert recall(rows, "permute", 0.0, "dtw") > 60
    for transformation in ("permute", "shift", "reverse", "crop"):
        assert recall(rows, transformation, 1.0, "dtw") < recall(rows, transformation, 0.0, "dtw") - 20


def test_what_pools_encoded_steps_sees_no_order(experiment, tmp_path):
    """Nor does optimal transport, whose points have no order; DTW does."""
    metrics = ("pooled_cosine", "sinkhorn", "dtw")
    rows = run(experiment, tmp_path, where="encoded", transformations=("roll", "reverse", "permute"), metrics=metrics)
    for transformation in ("roll", "reverse", "permute"):
        for metric in ("pooled_cosine", "sinkhorn"):
            whole = recall(rows, transformation, 0.0, metric)
            assert recall(rows, transformation, 1.0, metric) == pytest.approx(whole, abs=100 / 24)
        assert recall(rows, transformation, 1.0, "dtw") < recall(rows, transformation, 0.0, "dtw")


def test_draws_hang_on_seed_transformation_and_clip_alone():
    steps = torch.arange(30.0)[:, None]
    first = disturbance("permute", 0.5, 0).apply(steps, "a")
    assert torch.equal(first, disturbance("permute", 0.5, 0).apply(steps, "a"))
    assert not torch.equal(first, disturbance("permute", 0.5, 0).apply(steps, "b"))
    assert not torch.equal(first, disturbance("permute", 0.5, 1).apply(steps, "a"))


def test_an_interrupted_experiment_goes_on_to_the_same_rows(finished, experiment, tmp_path, monkeypatch):
    calls = 0
    search = temporal.search

    def stopped(*arguments):
        nonlocal calls
        calls += 1
        if calls == 14:
            raise KeyboardInterrupt
        return search(*arguments)

    monkeypatch.setattr(temporal, "search", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path)
    # 13 searches: all 9 of the first transformation, 4 of the second, whose strength 0 was searched already.
    assert len(json.loads((tmp_path / "results.json").read_text())["rows"]) == 2 * (13 + 3)
    with pytest.raises(FileExistsError, match="holds an earlier run; resume it, overwrite it"):
        run(experiment, tmp_path)
    calls = 100
    assert run(experiment, tmp_path, resume=True) == finished[1]
    # Once more strength 0, for the transformations left.
    assert calls - 100 == 3 * (1 + 2 * len(TRANSFORMATIONS)) - 13 + 3


def test_resuming_takes_more_cells_but_no_other_settings(experiment, tmp_path):
    few = run(experiment, tmp_path, transformations=("roll",), metrics=("dtw",))
    more = run(experiment, tmp_path, transformations=("warp", "roll"), metrics=("pooled_cosine", "dtw"), resume=True)
    again = [row for row in more if row["transformation"] == "roll" and row["metric"] == "dtw"]
    assert again == few
    assert len(more) == 2 * 2 * 3 * 2
    with pytest.raises(ValueError, match=r"a run with other settings \(seed: there 0, now 1\)"):
        run(experiment, tmp_path, seed=1, resume=True)
    over = run(experiment, tmp_path, seed=1, transformations=("roll",), metrics=("dtw",), overwrite=True)
    assert over == few  # a roll draws nothing
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == over


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strengths": (0.5, 1.5)}, "strengths must be from 0 to 1, got 1.5"),
        ({"transformations": ("shift", "spin")}, "transformations must be some of shift, .*, got spin"),
        ({"transformations": ()}, "transformations must be some of shift, .*, got none"),
        ({"side": "both"}, "side must be video or audio, got 'both'"),
        ({"where": "middle"}, "where must be features or encoded, got 'middle'"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"metrics": ()}, "expected at least one metric"),
        ({"metrics": ("dtv",)}, "dtv"),
        ({"options": {"sinkhorn": {"epsilon": 1.0}}}, "there are options for sinkhorn, not among the metrics"),
        ({"options": {"dtw": {"bandwidth": 1}}}, "bandwidth"),
    ],
)
def test_bad_settings_are_refused_before_any_work(experiment, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(temporal, "search", None)
    with pytest.raises((ValueError, TypeError), match=message):
        run(experiment, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()
