"""Problems for the property tests: a distance with options, and sequences to ask it about.

Every draw is bounded and reproducible: sizes are small, but for at most two at an edge of a vector or a panel, and
sequences come from a seed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.vendor.pretty import RepresentationPrinter
from torch import Tensor

from scav_kernels.reference.ground_cost import ground_cost
from scav_kernels.reference.pairs import valid_steps

from .cases import Case
from .inputs import Answer, Sequences, Shape, answer, sequences

AXES = ("b1", "b2", "n", "m", "d")
EDGES = (15, 16, 17, 33, 65)
DTYPES = (torch.float32, torch.float64)

COSTS = st.sampled_from(("euclidean", "sqeuclidean", "cosine"))
BANDS = st.sampled_from((None, 0, 1, 2, 5, 40))
# Gamma and epsilon are drawn in units of a typical cost. Iterations are counted, and not stopped by a tolerance, which
# another rounding may cross one iteration earlier.
OPTIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "interpolated_euclidean": {"squared": st.booleans(), "resample": st.sampled_from(("x", "y", "shorter"))},
    "dtw": {"cost": COSTS, "band": BANDS},
    "soft_dtw": {"gamma": st.sampled_from((0.01, 0.1, 1.0, 10.0)), "cost": COSTS, "band": BANDS},
    "sinkhorn": {
        "epsilon": st.sampled_from((0.1, 1.0, 10.0)),
        "max_iterations": st.sampled_from((1, 7, 30)),
        "tolerance": st.just(0.0),
        "cost": COSTS,
    },
}
OPTIONS |= {f"{metric}_divergence": OPTIONS[metric] for metric in ("soft_dtw", "sinkhorn")}
METRICS = tuple(OPTIONS)
# Options under which the drawn problems of normal steps converge.
CONVERGED = {"epsilon": st.sampled_from((0.5, 1.0, 10.0)), "max_iterations": 20_000, "tolerance": 1e-9}

# Every property is tried on this many problems, of each distance that it is about: the same ones in every run. How long
# one takes is not judged, and the fixture that sets the number of threads need not run between them.
EXAMPLES = 25
law = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    case: Case
    given: Sequences
    seed: int
    scale: float
    whole: bool  # steps have small whole coordinates times the scale: costs are exact, many coincide, paths tie

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """Print a failing problem so that it can be built again."""
        x, y, x_lengths, y_lengths = self.given
        lengths = [None if side is None else side.tolist() for side in (x_lengths, y_lengths)]
        printer.text(
            f"{self.case.metric}({self.case.options}) of {tuple(x.shape)}, {tuple(y.shape)}, {x.dtype}, "
            f"lengths {lengths}, seed {self.seed}, scale {self.scale}, {'whole' if self.whole else 'normal'}"
        )

    @property
    def cost(self) -> str:
        if self.case.metric == "interpolated_euclidean":
            return "sqeuclidean" if self.case.options["squared"] else "euclidean"
        return self.case.options["cost"]

    @property
    def smoothing(self) -> float:
        """Gamma or epsilon; 0 where there is none."""
        return self.case.options.get("gamma", self.case.options.get("epsilon", 0.0))

    @property
    def decided(self) -> bool:
        """Return True if rounding cannot change the gradient; DTW's follows one of several paths that may tie.

        On a line, sums of distances tie; whole coordinates tie exactly, but for the norms in a cosine.
        """
        if self.case.metric != "dtw":
            return True
        if self.whole:
            return self.cost != "cosine"
        return self.given.x.dtype == torch.float64 and self.given.x.shape[2] > 1

    def asked(self, metric: str | None = None, **options: Any) -> "Problem":
        """The same sequences, asked about with other options; another metric starts with none."""
        case = self.case
        kept = case.options if metric is None else {}
        return replace(self, case=replace(case, metric=metric or case.metric, options={**kept, **options}))

    def of(self, given: Sequences) -> "Problem":
        """The same question about other sequences."""
        return replace(self, given=given)

    def value(self) -> Tensor:
        return self.case.kernel(*self.given)

    def answer(self, paired: bool = False) -> Answer:
        return answer(self.case.kernel, self.given, paired)

    def valid(self) -> tuple[list[Tensor], list[Tensor]]:
        """Sequences cut to their lengths, x (n, D) and y (m, D), in float64."""
        given = self.given.map(torch.Tensor.double)
        return valid_steps(given.x, given.x_lengths), valid_steps(given.y, given.y_lengths)

    def over_pairs(self, number: Callable[[Tensor, Tensor], Tensor | float]) -> Tensor:
        """A number of every pair, x (n, D) against y (m, D), as (B1, B2) float64."""
        xs, ys = self.valid()
        return torch.tensor([[float(number(x, y)) for y in ys] for x in xs], dtype=torch.float64)

    def over_costs(self, number: Callable[[Tensor], Tensor | float]) -> Tensor:
        """A number of every pair's ground costs (n, m), as (B1, B2) float64."""
        return self.over_pairs(lambda x, y: number(ground_cost(x, y, self.cost)))


@st.composite
def shapes(draw: st.DrawFn, axes: tuple[str, ...] = AXES, ragged: bool | None = None) -> Shape:
    """Up to two of `axes` at an edge."""
    sizes = {axis: draw(st.integers(1, 6)) for axis in AXES}
    for axis in draw(st.lists(st.sampled_from(axes), max_size=2)):
        sizes[axis] = draw(st.sampled_from(EDGES))
    return Shape(**sizes, ragged=draw(st.booleans()) if ragged is None else ragged)


def paired_shapes() -> st.SearchStrategy[Shape]:
    return shapes().map(lambda shape: replace(shape, b1=shape.b2))


def even_shapes() -> st.SearchStrategy[Shape]:
    """Both sides of one length, no sequence shorter."""
    return shapes(ragged=False).map(lambda shape: replace(shape, m=shape.n))


@st.composite
def problems(
    draw: st.DrawFn,
    metric: str,
    *,
    shape: st.SearchStrategy[Shape] | None = None,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
    whole: bool | None = None,
    **options: Any,
) -> Problem:
    """`options` take the place of drawn ones; each is a value or a strategy."""
    chosen = {
        name: value if isinstance(value, st.SearchStrategy) else st.just(value) for name, value in options.items()
    }
    drawn = draw(st.fixed_dictionaries({**OPTIONS[metric], **chosen}))
    sizes, dtype, seed = (
        draw(shapes() if shape is None else shape),
        draw(st.sampled_from(dtypes)),
        draw(st.integers(0, 2**16)),
    )
    scale = draw(st.sampled_from((2.0**-10, 1.0, 2.0**10)))
    whole = draw(st.booleans()) if whole is None else whole

    unit = {"euclidean": scale, "sqeuclidean": scale**2, "cosine": 1.0}[drawn.get("cost", "euclidean")]
    smoothing = {name: drawn[name] * unit for name in ("gamma", "epsilon") if name in drawn}
    steps = sequences(sizes, torch.float64, seed)
    if whole:
        steps = steps.map(lambda x: (x * sizes.d**0.5).round().clamp(-2, 2))
    case = Case(metric, metric, {**drawn, **smoothing})
    return Problem(case, steps.map(lambda x: (x * scale).to(dtype)), seed, scale, whole)
