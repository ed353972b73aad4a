"""Write the pictures and the table of docs/which-distance.md.

python -m benchmarks.which_distance
"""

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import scav_kernels
from benchmarks.machine import ROOT

DOCS = ROOT / "docs"
STEPS, FEATURES = 64, 8
# (event, time of its peak as a share of the sequence)
EVENTS = ((0, 0.2), (1, 0.45), (2, 0.7))
METRICS: dict[str, dict[str, Any]] = {
    "interpolated_euclidean": {},
    "interpolated_cosine": {},
    "dtw": {},
    "soft_dtw_divergence": {"gamma": 0.1},
    "sinkhorn_divergence": {"epsilon": 0.05, "max_iterations": 5000},
    "chamfer": {},
}
MARK = "<!-- What follows is made by benchmarks/which_distance.py -->"


def sequence(events: tuple[tuple[int, float], ...], warp: float = 1.0) -> Tensor:
    """(STEPS, FEATURES): a bump of one feature for each event; `warp` bends time, 1 leaves it."""
    time = torch.linspace(0, 1, STEPS)[:, None] ** warp
    steps = torch.zeros(STEPS, FEATURES)
    for event, peak in events:
        steps[:, event] += torch.exp(-(((time[:, 0] - peak) / 0.05) ** 2))
    return steps


def changes() -> dict[str, Tensor]:
    """Return changed copies of the sequence of `EVENTS`."""
    noise = torch.randn(STEPS, FEATURES, generator=torch.Generator().manual_seed(0))
    return {
        "noise": sequence(EVENTS) + 0.05 * noise,
        "later": sequence(tuple((event, peak + 0.1) for event, peak in EVENTS)),
        "other speed": sequence(EVENTS, warp=1.5),
        "order swapped": sequence(((1, 0.2), (0, 0.45), (2, 0.7))),
        "other events": sequence(tuple((event + 4, peak) for event, peak in EVENTS)),
    }


def shares() -> dict[str, dict[str, float]]:
    """Return, by metric and change, the distance as a share of that to a sequence of other events."""
    original, changed = sequence(EVENTS), changes()
    copies = torch.stack(list(changed.values()))
    rows = {"mean of the steps": (copies.mean(1) - original.mean(0)).norm(dim=-1)}
    rows |= {
        metric: scav_kernels.cdist(original[None], copies, metric=metric, **options)[0]
        for metric, options in METRICS.items()
    }
    return {metric: dict(zip(changed, (values / values[-1]).tolist(), strict=True)) for metric, values in rows.items()}


def table(found: dict[str, dict[str, float]]) -> str:
    names = list(changes())
    lines = ["| distance | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    lines += [
        f"| `{metric}` | " + " | ".join(f"{100 * row[name]:.0f} %" for name in names) + " |"
        for metric, row in found.items()
    ]
    return "\n".join(lines)


def draw_changes(path: Path) -> None:
    pictures = {"original": sequence(EVENTS)} | changes()
    figure = Figure(figsize=(11, 2.2), layout="constrained")
    for axes, (name, steps) in zip(figure.subplots(1, len(pictures), sharey=True), pictures.items(), strict=True):
        axes.imshow(steps.mT.numpy(), aspect="auto", cmap="magma", vmin=0, vmax=1, interpolation="nearest")
        axes.set(title=name, xlabel="step")
    figure.axes[0].set_ylabel("feature")
    figure.savefig(path, dpi=110)


def draw_smoothing(path: Path) -> None:
    x, y = sequence(EVENTS), sequence(EVENTS, warp=1.5)
    figure = Figure(figsize=(9, 9), layout="constrained")
    grid = figure.subplots(3, 4)
    for axes, gamma in zip(grid[0], (0.001, 0.01, 0.1, 1.0), strict=True):
        axes.imshow(scav_kernels.soft_dtw_alignment(x, y, gamma=gamma).numpy(), cmap="magma", vmin=0, vmax=1)
        axes.set_title(f"soft-DTW, gamma = {gamma:g}", fontsize=9)
    for axes, epsilon in zip(grid[1], (0.01, 0.05, 0.2, 1.0), strict=True):
        plan = scav_kernels.sinkhorn_plan(x, y, epsilon=epsilon, max_iterations=5000)
        axes.imshow(plan.numpy(), cmap="magma")
        axes.set_title(f"Sinkhorn, epsilon = {epsilon:g}", fontsize=9)
    cost = torch.cdist(x, y)
    for axes, band in zip(grid[2], (0, 5, 10, None), strict=True):
        path_cells = scav_kernels.dtw_path(x, y, band=band)
        axes.imshow(cost.numpy(), cmap="magma")
        axes.plot(path_cells[:, 1], path_cells[:, 0], color="cyan")
        axes.set_title(f"DTW, band = {band}", fontsize=9)
    for axes in figure.axes:
        axes.set(xticks=[], yticks=[])
    figure.supxlabel("step of y")
    figure.supylabel("step of x")
    figure.savefig(path, dpi=100)


def main() -> None:
    draw_changes(DOCS / "which-distance-changes.png")
    draw_smoothing(DOCS / "which-distance-smoothing.png")
    page = DOCS / "which-distance.md"
    before, mark, rest = page.read_text(encoding="utf-8").partition(MARK)
    _, _, after = rest.partition("\n\n*")
    page.write_text(f"{before}{mark}\n\n{table(shares())}\n\n*{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
