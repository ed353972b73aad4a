"""The one table of ops and options that the tests of this folder run over."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import scav_kernels
from scav_kernels import reference

from . import plain


@dataclass(frozen=True, eq=False)
class Case:
    """An op with one choice of options, in each of its forms."""

    name: str
    metric: str
    options: dict[str, Any] = field(default_factory=dict)
    # Options under which the gradient is that of the value: Sinkhorn's is exact at convergence only.
    converged: dict[str, Any] = field(default_factory=dict)
    # Whether steps have weights of their own.
    weighted: bool = False

    def __str__(self) -> str:
        return self.name

    def all_options(self) -> dict[str, Any]:
        """Defaults included."""
        parameters = inspect.signature(getattr(scav_kernels, self.metric)).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        return {**defaults, **self.options}

    def weights(self, x: Tensor, y: Tensor, *_: Tensor | None) -> dict[str, Any]:
        return {"x_weights": step_weights(x), "y_weights": step_weights(y)} if self.weighted else {}

    def kernel(self, *sequences: Tensor | None, paired: bool = False, **options: Any) -> Tensor:
        options = {**self.weights(*sequences), **self.options, **options}
        if paired:
            return scav_kernels.pairwise_distance(*sequences, metric=self.metric, **options)
        return getattr(scav_kernels, self.metric)(*sequences, **options)

    def reference(self, *sequences: Tensor | None, **options: Any) -> Tensor:
        return getattr(reference, self.metric)(*sequences, **{**self.weights(*sequences), **self.options, **options})

    def plain(self, *sequences: Tensor | None, **options: Any) -> Tensor:
        return getattr(plain, self.metric)(*sequences, **{**self.weights(*sequences), **self.options, **options})


def step_weights(steps: Tensor) -> Tensor:
    """(B, N, D) -> (B, N): 1, 2 or 3 by the number of the step, and 0 for every fourth."""
    place = torch.arange(steps.shape[-2], device=steps.device)
    return ((1 + 2 * place % 3) * (place % 4 != 3)).to(steps.dtype).expand(steps.shape[:-1])


CONVERGED = {"epsilon": 0.5, "max_iterations": 2000, "tolerance": 1e-13}

# One of each op, with its defaults.
CORE = [
    Case("interpolated_euclidean", "interpolated_euclidean"),
    Case("dtw", "dtw"),
    Case("soft_dtw", "soft_dtw"),
    Case("sinkhorn", "sinkhorn", converged=CONVERGED),
    Case("chamfer", "chamfer"),
    Case("interpolated_cosine", "interpolated_cosine"),
]
VARIANTS = [
    Case("interpolated_euclidean-squared", "interpolated_euclidean", {"squared": True}),
    Case("interpolated_euclidean-y", "interpolated_euclidean", {"resample": "y"}),
    Case("interpolated_euclidean-shorter", "interpolated_euclidean", {"resample": "shorter"}),
    Case("interpolated_euclidean-y-squared", "interpolated_euclidean", {"resample": "y", "squared": True}),
    Case("interpolated_euclidean-shorter-squared", "interpolated_euclidean", {"resample": "shorter", "squared": True}),
    Case("dtw-sqeuclidean", "dtw", {"cost": "sqeuclidean"}),
    Case("dtw-cosine", "dtw", {"cost": "cosine"}),
    Case("dtw-band-0", "dtw", {"band": 0}),
    Case("dtw-band-2", "dtw", {"band": 2}),
    Case("dtw-sqeuclidean-band-1", "dtw", {"cost": "sqeuclidean", "band": 1}),
    Case("dtw-symmetric2", "dtw", {"diagonal_weight": 2.0}),
    Case("dtw-open", "dtw", {"open_begin": True, "open_end": True}),
    Case("dtw-open-end-steps", "dtw", {"open_end": True, "step_penalty": 0.25, "normalize": "steps"}),
    Case("dtw-open-begin-path", "dtw", {"open_begin": True, "band": 2, "diagonal_weight": 0.5, "normalize": "path"}),
    Case("soft_dtw-sharp", "soft_dtw", {"gamma": 0.01}),
    Case("soft_dtw-open", "soft_dtw", {"open_begin": True, "open_end": True}),
    Case("soft_dtw-open-end-band-1", "soft_dtw", {"gamma": 0.1, "open_end": True, "band": 1}),
    Case("soft_dtw-euclidean", "soft_dtw", {"gamma": 0.1, "cost": "euclidean"}),
    Case("soft_dtw-cosine", "soft_dtw", {"gamma": 0.1, "cost": "cosine"}),
    Case("soft_dtw-band-0", "soft_dtw", {"band": 0}),
    Case("soft_dtw-band-2", "soft_dtw", {"gamma": 0.1, "band": 2}),
    Case("sinkhorn-fixed", "sinkhorn", {"max_iterations": 20, "tolerance": 0.0}, CONVERGED),
    Case("sinkhorn-one-iteration", "sinkhorn", {"max_iterations": 1, "tolerance": 0.0}, CONVERGED),
    Case("sinkhorn-blurred", "sinkhorn", {"epsilon": 1.0, "tolerance": 1e-5}, CONVERGED),
    Case("sinkhorn-sqeuclidean", "sinkhorn", {"epsilon": 0.2, "cost": "sqeuclidean"}, CONVERGED),
    Case("sinkhorn-cosine", "sinkhorn", {"cost": "cosine"}, CONVERGED),
    Case("sinkhorn-weighted", "sinkhorn", {}, CONVERGED, weighted=True),
    Case("sinkhorn-weighted-fixed", "sinkhorn", {"max_iterations": 5, "tolerance": 0.0}, CONVERGED, weighted=True),
    Case("sinkhorn-scaling", "sinkhorn", {"scaling": 0.5}, {**CONVERGED, "scaling": 0.9}),
    Case("chamfer-y", "chamfer", {"direction": "y"}),
    Case("chamfer-both", "chamfer", {"direction": "both"}),
    Case("chamfer-sqeuclidean", "chamfer", {"cost": "sqeuclidean"}),
    Case("chamfer-both-cosine", "chamfer", {"cost": "cosine", "direction": "both"}),
    Case("interpolated_cosine-y", "interpolated_cosine", {"resample": "y"}),
    Case("interpolated_cosine-shorter", "interpolated_cosine", {"resample": "shorter"}),
    Case("interpolated_cosine-nearest", "interpolated_cosine", {"mode": "nearest"}),
    Case("interpolated_cosine-shorter-nearest", "interpolated_cosine", {"resample": "shorter", "mode": "nearest"}),
]
# Not ops of their own: made of the op in their name.
DIVERGENCES = [
    Case("soft_dtw_divergence", "soft_dtw_divergence"),
    Case("soft_dtw_divergence-band-2", "soft_dtw_divergence", {"gamma": 0.1, "band": 2}),
    Case("soft_dtw_divergence-open", "soft_dtw_divergence", {"open_begin": True, "open_end": True}),
    Case("sinkhorn_divergence", "sinkhorn_divergence", converged=CONVERGED),
    Case("sinkhorn_divergence-cosine", "sinkhorn_divergence", {"cost": "cosine"}, CONVERGED),
    Case("sinkhorn_divergence-weighted", "sinkhorn_divergence", {"scaling": 0.5}, CONVERGED, weighted=True),
]
# One of each distance of sequences.
PUBLIC = [*CORE, *(case for case in DIVERGENCES if not case.options)]
OPS = CORE + VARIANTS
CASES = OPS + DIVERGENCES


def crossed(cases: Sequence[Case], sizes: Sequence[Any]) -> list[Any]:
    """Return every case with every size, as parameters.

    `make test` takes every second size with the defaults of an op and one size with each of its options, in turn; `make
    check` takes the rest.
    """

    def quick(case: Case, number: int, place: int) -> bool:
        return place % 2 == number % 2 if case in CORE else place == number % len(sizes)

    return [
        pytest.param(
            case,
            size,
            id=f"{case}-{size}",
            marks=[] if quick(case, number, place) else [pytest.mark.slow],
        )
        for number, case in enumerate(cases)
        for place, size in enumerate(sizes)
    ]
