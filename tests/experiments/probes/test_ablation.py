import json

import pytest
import torch

import scav_kernels
from scav_model.experiments.probes import ablation
from scav_model.experiments.probes.ablation import (
    coarsen,
    coarsened,
    coarsening,
    run_ablation,
    shorten,
    shortened,
    shortening,
)
from scav_model.experiments.probes.experiment import MEASURES, Experiment
from scav_model.retrieval import recalls

SETTINGS = {
    "metrics": ("pooled_cosine", "interpolated_euclidean", "dtw"),
    "options": {},
    "lengths": (1.0, 0.5),
    "factors": (1, 3),
    "resample": ("x", "y", "shorter"),
    "where": ("encoded", "features"),
    "reduction": "average",
    "coarsen": "both",
}


def run(experiment, out, **changes):
    return run_ablation(experiment, **{**SETTINGS, **changes}, out=out)


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    """A finished ablation; not to be changed."""
    out = tmp_path_factory.mktemp("ablation") / "out"
    return out, run(Experiment.load(*files, clips=None, batch_size=10, device="cpu"), out)


def test_shortening_keeps_the_start():
    steps = torch.arange(10.0)[:, None]
    assert shorten(steps, 0.3).flatten().tolist() == [0, 1, 2]
    assert torch.equal(shorten(steps, 1.0), steps)
    assert shorten(steps, 0.01).flatten().tolist() == [0]


def test_coarsening_averages_or_skips():
    steps = torch.tensor([[0.0], [1.0], [5.0], [7.0], [9.0]])
    assert coarsen(steps, 2, "average").flatten().tolist() == [0.5, 6.0, 9.0]
    assert coarsen(steps, 2, "subsample").flatten().tolist() == [0.0, 5.0, 9.0]
    assert coarsen(steps, 9, "average").flatten().tolist() == [pytest.approx(4.4)]
    for reduction in ("average", "subsample"):
        assert torch.equal(coarsen(steps, 1, reduction), steps)


def test_lengths_are_as_announced():
    for total in range(1, 30):
        steps = torch.randn(total, 2)
        for length in (1.0, 0.6, 0.25, 0.01):
            assert len(shorten(steps, length)) == shortened(total, length) == shortening(length).length(total)
        for factor in (1, 2, 3, 50):
            for reduction in ("average", "subsample"):
                change = coarsening(factor, reduction)
                assert len(change.apply(steps, "id")) == coarsened(total, factor) == change.length(total)


def test_the_grid_is_whole(finished):
    out, rows = finished
    distances = [
        ("pooled_cosine", None),
        *(("interpolated_euclidean", way) for way in ("x", "y", "shorter")),
        ("dtw", None),
    ]
    keys = [
        (row["where"], row["length"], row["factor"], row["metric"], row["resample"], row["direction"]) for row in rows
    ]
    assert keys == [
        (where, length, factor, *distance, direction)
        for where in ("encoded", "features")
        for length in (1.0, 0.5)
        for factor in (1, 3)
        for distance in distances
        for direction in ("v2a", "a2v")
    ]
    for row in rows:
        assert row["setting"] == ("as trained" if (row["length"], row["factor"]) == (1.0, 1) else "test time")
    assert json.loads((out / "results.json").read_text())["rows"] == rows
    assert (out / "recall.png").read_bytes().startswith(b"\x89PNG")
    lines = (out / "table.md").read_text().splitlines()
    assert sum(line.startswith(("| 0.5 |", "| 1 |")) for line in lines) == 8
    assert "interpolated_euclidean (shorter)" in lines[4]


def test_the_untouched_cell_is_the_same_everywhere(finished):
    _, rows = finished
    untouched = [row for row in rows if row["setting"] == "as trained"]
    half = len(untouched) // 2
    assert [[row[name] for name in MEASURES] for row in untouched[:half]] == [
        [row[name] for name in MEASURES] for row in untouched[half:]
    ]


def test_steps_are_counted(finished, experiment):
    video = experiment.features.video_lengths
    audio = experiment.features.audio_lengths
    for row in finished[1]:
        for side, lengths in (("video_steps", video), ("audio_steps", audio)):
            expected = [-(-max(1, round(row["length"] * n)) // row["factor"]) for n in lengths.tolist()]
            assert row[side] == pytest.approx(sum(expected) / len(expected))


def test_a_cell_is_what_its_name_says(finished, experiment):
    """The first half of each clip, three steps averaged, videos the other way round: written out for encoded clips."""
    video, audio = experiment.encode(experiment.features)
    halves = []
    for side in (video, audio):
        clips = []
        for steps, length in zip(side.steps, side.lengths.tolist(), strict=True):
            kept = steps[: round(length / 2)]
            clips.append(torch.stack([kept[start : start + 3].mean(0) for start in range(0, len(kept), 3)]))
        halves.append(clips)
    matrix = torch.stack(
        [
            torch.cat(
                [
                    scav_kernels.pairwise_distance(a[None], b[None], metric="interpolated_euclidean", resample="y")
                    for b in halves[1]
                ]
            )
            for a in halves[0]
        ]
    )
    truth = matrix.diag()
    rank = 1 + (matrix < truth[:, None]).sum(1)
    cell = ("encoded", 0.5, 3, "interpolated_euclidean", "y", "v2a")
    names = ("where", "length", "factor", "metric", "resample", "direction")
    row = next(row for row in finished[1] if tuple(row[name] for name in names) == cell)
    expected = recalls(rank)
    assert {name: row[name] for name in ("R@1", "R@5", "R@10")} == pytest.approx(
        {name: expected[name] for name in ("R@1", "R@5", "R@10")}, abs=100 / 24
    )


def test_one_side_alone_can_be_coarsened(experiment, tmp_path):
    rows = run(experiment, tmp_path, coarsen="video", lengths=(1.0,), metrics=("dtw",))
    coarse = next(row for row in rows if row["factor"] == 3)
    whole = next(row for row in rows if row["factor"] == 1)
    assert coarse["video_steps"] < whole["video_steps"] / 2
    assert coarse["audio_steps"] == whole["audio_steps"]


def test_directions_of_interpolation_differ(experiment, tmp_path):
    rows = run(experiment, tmp_path, coarsen="video", lengths=(1.0,), metrics=("interpolated_euclidean",))
    ranks = {row["resample"]: row["MeanR"] for row in rows if (row["factor"], row["direction"]) == (3, "v2a")}
    assert ranks["x"] != ranks["y"]


def test_an_interrupted_ablation_goes_on_to_the_same_rows(finished, experiment, tmp_path, monkeypatch):
    calls = 0
    search = ablation.search

    def stopped(*arguments):
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt
        return search(*arguments)

    monkeypatch.setattr(ablation, "search", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path)
    calls = 100
    assert run(experiment, tmp_path, resume=True) == finished[1]
    assert calls - 100 == len(finished[1]) // 2 - 11
    with pytest.raises(ValueError, match="reduction: there 'average', now 'subsample'"):
        run(experiment, tmp_path, resume=True, reduction="subsample")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": (0.5, 0.0)}, "lengths must be shares above 0 and up to 1, got 0.0"),
        ({"lengths": ()}, "lengths must be .*, got none"),
        ({"factors": (0,)}, "factors must be whole and at least 1, got 0"),
        ({"resample": ("x", "z")}, "resample must be of x, y, shorter, got z"),
        ({"where": ("inside",)}, "where must be of features, encoded, got inside"),
        ({"reduction": "median"}, "reduction must be of average, subsample, got median"),
        ({"coarsen": "none"}, "coarsen must be of video, audio, both, got none"),
        ({"metrics": ("edr",)}, "edr"),
    ],
)
def test_bad_settings_are_refused_before_any_work(experiment, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(experiment, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()
