"""Draw docs/sinkhorn-error.png, the error of Sinkhorn after 100 iterations.

`python -m benchmarks.sinkhorn_error`: for epsilons from half of the mean cost to a two-hundredth of it, on pairs of
random walks of 64 steps, in float64.
"""

from pathlib import Path
from typing import Any

import matplotlib.figure
import torch
from torch import Tensor

import scav_kernels

PICTURE = Path(__file__).parents[1] / "docs" / "sinkhorn-error.png"
RATIOS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
CHOICES: dict[str, dict[str, Any]] = {
    "100 iterations (default)": {"max_iterations": 100},
    "100 iterations, scaling=0.5": {"max_iterations": 100, "scaling": 0.5},
    "100 iterations, scaling=0.9": {"max_iterations": 100, "scaling": 0.9},
    "1000 iterations": {"max_iterations": 1000},
}
CONVERGED = {"max_iterations": 50_000, "tolerance": 1e-6, "scaling": 0.9}


def sequences(seed: int) -> Tensor:
    """(4, 64, 3)"""
    drawn = torch.randn(4, 64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return drawn.cumsum(1) / 8


def errors() -> dict[str, list[tuple[float, float]]]:
    """By choice, of every ratio: the mean relative error of the distances, and the mean marginal error."""
    x, y = sequences(0), sequences(1)
    mean = torch.cdist(x[:, None], y[None]).mean().item()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CHOICES}
    for ratio in RATIOS:
        exact = scav_kernels.sinkhorn(x, y, epsilon=ratio * mean, **CONVERGED)
        for name, options in CHOICES.items():
            value, ended = scav_kernels.sinkhorn(
                x, y, epsilon=ratio * mean, tolerance=0.0, return_convergence=True, **options
            )
            found[name].append((((value - exact).abs() / exact).mean().item(), ended.marginal_error.mean().item()))
    return found


def main() -> None:
    found = errors()
    figure = matplotlib.figure.Figure(figsize=(9, 3.6), layout="constrained")
    for axes, label, part in zip(
        figure.subplots(1, 2), ("relative error of the distance", "marginal error"), (0, 1), strict=True
    ):
        for name, measured in found.items():
            axes.loglog(RATIOS, [max(of[part], 1e-12) for of in measured], marker="o", label=name)
        axes.set(xlabel="epsilon / mean cost", ylabel=label, ylim=(1e-9, 1))
        axes.grid(alpha=0.3)
    # The default tolerance.
    axes.axhline(1e-3, color="gray", linestyle=":")
    axes.legend(fontsize="small")
    figure.savefig(PICTURE, dpi=90)
    for name, measured in found.items():
        print(
            name,
            *(
                f"{ratio}: {value:.1e} {marginal:.1e}"
                for ratio, (value, marginal) in zip(RATIOS, measured, strict=True)
            ),
        )


if __name__ == "__main__":
    main()
