"""docs/probe.md says what the stored results say."""

import re
from pathlib import Path

import pytest

from scav_model.experiments.probes.results import load
from scav_model.experiments.tables import mean_of_directions

ROOT = Path(__file__).parents[3]
STORED = ROOT / "benchmarks" / "results" / "probe"
SYSTEMS = {
    "CAV": "cav",
    "SCAV-Euclidean": "scav_euclidean",
    "SCAV-DTW": "scav_dtw",
    "SCAV-Sinkhorn": "scav_wasserstein",
}
LENGTHS = {"as it is": (1.0, 1), "steps/2": (1.0, 2), "steps/4": (1.0, 4)}
LENGTHS |= {"first half": (0.5, 1), "first half, steps/2": (0.5, 2)}
LENGTHS |= {"first quarter": (0.25, 1), "first quarter, steps/4": (0.25, 4)}


def tables():
    """The page's tables as dicts, a line each, by the head that its first column has."""
    found = {}
    for block in re.findall(r"(?:^\|.*\|\n)+", (ROOT / "docs" / "probe.md").read_text(encoding="utf-8"), re.MULTILINE):
        head, _, *lines = [[cell.strip(" `") for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        found.setdefault(head[0], []).append([dict(zip(head, line, strict=True)) for line in lines])
    return found


def temporal(name):
    return mean_of_directions(load(STORED / f"{name}.json")["rows"], ("transformation", "strength", "metric"))


def stated(line):
    """(transformation, strength) and what a line of a temporal table says of it."""
    for head, cell in line.items():
        if head == "as it is":
            yield ("shift", 0.0), cell
        elif re.fullmatch(r"[a-z]+ [\d.]+", head):
            transformation, strength = head.split()
            yield (transformation, float(strength)), cell


def test_temporal_tables():
    checked = 0
    of_models = [table for table in tables()["model"] if "changed" not in table[0]]
    for line in [line for table in of_models for line in table]:
        recall = temporal(f"{SYSTEMS[line['model']]}-temporal")
        for cell, said in stated(line):
            assert said == f"{recall[(*cell, line['searched by'])]:.1f}"
            checked += 1
    for line in tables()["searched by"][0]:
        recall = temporal("scav_dtw-temporal" + ("-encoded" if line["disturbed"] == "encoded" else ""))
        for cell, said in stated(line):
            assert said == f"{recall[(*cell, line['searched by'])]:.1f}"
            checked += 1
    assert checked == 2 * 4 * 11 + 8 * 7


def test_ablation_tables():
    (table,) = [table for table in tables()["model"] if "changed" in table[0]]
    assert len(table) == 8
    for line in table:
        rows = load(STORED / f"{SYSTEMS[line['model']]}-ablation.json")["rows"]
        recall = mean_of_directions(rows, ("where", "length", "factor", "metric", "resample"))
        metric = line["searched by"]
        resample = "x" if metric == "interpolated_euclidean" else None
        for head, cell in LENGTHS.items():
            assert line[head] == f"{recall[(line['changed'], *cell, metric, resample)]:.1f}"
    rows = load(STORED / "scav_euclidean-ablation-coarse-video.json")["rows"]
    recall = mean_of_directions(rows, ("video_steps", "distance"))
    said = {(line["video steps"], name): line[name] for line in tables()["video steps"][0] for name in list(line)[2:]}
    assert said == {(f"{steps:.1f}", name): f"{value:.1f}" for (steps, name), value in recall.items()}


@pytest.mark.parametrize("name", sorted(path.stem for path in STORED.glob("*.json")))
def test_stored_results_are_whole(name):
    found = load(STORED / f"{name}.json")
    assert found["settings"]["gallery"] == 256
    assert all(0 <= row["R@1"] <= row["R@5"] <= row["R@10"] <= 100 for row in found["rows"])
