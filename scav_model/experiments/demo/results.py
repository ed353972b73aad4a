"""The demo's numbers: rows of results, their mean over seeds and the printed table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

from scav_model.experiments.tables import Row

KEYS = ("model", "retrieval", "direction")
# Recalls in percent of queries, MedR in ranks, gallery in clips.
MEASURES = ("R@1", "R@5", "R@10", "MedR", "gallery", "train_seconds", "search_seconds")


def average(runs: Sequence[Sequence[Row]]) -> tuple[list[Row], list[Row]]:
    """The mean over seeds of every row, and its standard deviation (0 for one seed); rows come in the same order."""
    means: list[Row] = []
    deviations: list[Row] = []
    for same in zip(*runs, strict=True):
        names = {key: same[0][key] for key in KEYS}
        if any(row[key] != names[key] for row in same for key in KEYS):
            raise ValueError(f"expected the runs' rows in the same order, got {same}")
        means.append(names | {name: mean(row[name] for row in same) for name in MEASURES})
        spread = {name: stdev(row[name] for row in same) if len(same) > 1 else 0.0 for name in MEASURES}
        deviations.append(names | spread)
    for row in means:
        row["gallery"] = round(row["gallery"])
    return means, deviations


def table(runs: Sequence[Sequence[Row]], labels: dict[str, str]) -> str:
    """Both directions side by side; with several seeds, mean ± standard deviation."""
    means, deviations = average(runs)
    several = len(runs) > 1

    def cell(name: str, position: int) -> str:
        text = f"{means[position][name]:.1f}"
        return f"{text} ± {deviations[position][name]:.1f}" if several else text

    measures = ("R@1", "R@5", "R@10", "MedR")
    heads = ["model", "retrieval", *(f"{direction} {name}" for direction in ("v2a", "a2v") for name in measures)]
    lines = [[*heads, "train s", "search s"]]
    by_key = {tuple(row[key] for key in KEYS): position for position, row in enumerate(means)}
    for model, retrieval in dict.fromkeys((row["model"], row["retrieval"]) for row in means):
        positions = [by_key[model, retrieval, direction] for direction in ("v2a", "a2v")]
        line = [labels[model], retrieval]
        line += [cell(name, position) for position in positions for name in measures]
        line.append(f"{means[positions[0]]['train_seconds']:.0f}")
        line.append(f"{sum(means[position]['search_seconds'] for position in positions) / 2:.2f}")
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        "  ".join(text.ljust(width) if place < 2 else text.rjust(width) for place, (text, width) in enumerate(pairs))
        for pairs in ([*zip(line, widths, strict=True)] for line in lines)
    ]
    aligned.insert(1, "-" * len(aligned[0]))
    gallery = means[0]["gallery"]
    note = f"Gallery of {gallery} held-out clips; R@k in % of queries (chance: R@1 {100 / gallery:.1f})"
    note += f"; mean ± standard deviation over {len(runs)} seeds." if several else "."
    return "\n".join([*aligned, note])
