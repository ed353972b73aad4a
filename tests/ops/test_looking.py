"""Alignments of one pair: paths, expected alignments, plans, and their pictures."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

import scav_kernels
from scav_kernels.reference.dtw import dtw_path_of_cost
from scav_kernels.reference.ground_cost import ground_cost

from .tolerances import assert_close, assert_within, floor

KINDS = ["euclidean", "sqeuclidean", "cosine"]
SIZES = [(1, 1), (1, 7), (6, 1), (9, 17), (33, 16)]
LOOKS = [scav_kernels.dtw_path, scav_kernels.soft_dtw_alignment, scav_kernels.sinkhorn_plan]


def pair(n: int = 9, m: int = 7, d: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n * 100 + m)
    x, y = (torch.randn(steps, d, dtype=torch.float64, generator=generator).to(dtype) for steps in (n, m))
    return x, y


@pytest.mark.parametrize("band", [None, 0, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_path_is_the_cheapest_and_its_costs_sum_to_the_distance(n: int, m: int, kind: str, band: int | None) -> None:
    x, y = pair(n, m)
    path = scav_kernels.dtw_path(x, y, cost=kind, band=band)
    cost = ground_cost(x, y, kind)
    assert path.dtype == torch.int64
    assert torch.equal(path, dtw_path_of_cost(cost, band))
    assert_close(
        "sum", cost[path[:, 0], path[:, 1]].sum()[None, None], scav_kernels.dtw(x[None], y[None], cost=kind, band=band)
    )


def test_ties_take_the_diagonal_then_x_then_y() -> None:
    x, y = torch.tensor([[0.0], [1.0], [0.0]]), torch.tensor([[0.0], [0.0], [1.0], [1.0], [0.0]])
    path = scav_kernels.dtw_path(torch.zeros(3, 1), torch.zeros(3, 1))
    assert path.tolist() == [[0, 0], [1, 1], [2, 2]]
    # From (1, 1) straight on to (2, 2), and no steps sideways before the last moment: ties are broken from the end.
    assert scav_kernels.dtw_path(torch.zeros(3, 1), torch.zeros(5, 1)).tolist() == [
        [0, 0],
        [0, 1],
        [0, 2],
        [1, 3],
        [2, 4],
    ]
    assert scav_kernels.dtw_path(x, y).tolist() == [[0, 0], [0, 1], [1, 2], [1, 3], [2, 4]]


@pytest.mark.parametrize("band", [None, 1])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_alignment_is_the_derivative_of_soft_dtw_in_the_costs(n: int, m: int, kind: str, band: int | None) -> None:
    x, y = pair(n, m)
    found = scav_kernels.soft_dtw_alignment(x, y, gamma=0.5, cost=kind, band=band)
    cost = ground_cost(x, y, kind).requires_grad_()
    (expected,) = torch.autograd.grad(scav_kernels.reference.soft_dtw_from_cost(cost, gamma=0.5, band=band), cost)
    assert_within("alignment", found, expected, floor(torch.float64, n + m, 2 * (n + m)), torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_plan_moves_the_mass(n: int, m: int, kind: str) -> None:
    x, y = pair(n, m)
    options: dict[str, Any] = {"epsilon": 0.3, "max_iterations": 5000, "tolerance": 1e-12, "cost": kind}
    plan = scav_kernels.sinkhorn_plan(x, y, **options)
    assert (plan >= 0).all()
    assert_within("rows", plan.sum(1), torch.full((n,), 1 / n, dtype=torch.float64), 1e-11, torch.float64)
    assert_within("columns", plan.sum(0), torch.full((m,), 1 / m, dtype=torch.float64), 1e-11, torch.float64)
    divergence = (plan * (plan * n * m).log()).nan_to_num().sum()
    value = (plan * ground_cost(x, y, kind)).sum() + 0.3 * divergence
    assert_within("value", value[None, None], scav_kernels.sinkhorn(x[None], y[None], **options), 1e-11, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.__name__)
def test_dtype_and_no_gradient(look: Any, dtype: torch.dtype) -> None:
    x, y = pair(dtype=dtype)
    found = look(x.requires_grad_(), y)
    wide = {scav_kernels.dtw_path: torch.int64}.get(look, torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.dtype == wide
    assert not found.requires_grad


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.__name__)
@pytest.mark.parametrize(
    ("x", "y", "options", "exception", "fragments"),
    [
        (
            torch.zeros(1, 5, 3),
            torch.zeros(4, 3),
            {},
            ValueError,
            ["one pair", "(N, D)", "(1, 5, 3)", "cut to its length"],
        ),
        (torch.zeros(5, 3), torch.zeros(4, 2), {}, ValueError, ["one pair", "(5, 3)", "(4, 2)"]),
        (torch.zeros(0, 3), torch.zeros(4, 3), {}, ValueError, ["at least one step", "(0, 3)"]),
        (torch.zeros(5, 3), torch.zeros(4, 3).double(), {}, TypeError, ["one floating-point dtype", "y.to(x.dtype)"]),
        (torch.zeros(5, 3).long(), torch.zeros(4, 3).long(), {}, TypeError, ["floating-point", "torch.int64"]),
        (torch.zeros(5, 3), torch.zeros(4, 3), {"cost": "manhattan"}, ValueError, ["'euclidean'", "'manhattan'"]),
        (torch.zeros(5, 3), torch.zeros(4, 3), {"cost": 1}, TypeError, ["cost", "a str", "1 of type int"]),
        (torch.zeros(5, 3), torch.zeros(4, 3, device="meta"), {}, RuntimeError, ["one device", "meta"]),
        ([[0.0]], torch.zeros(4, 3), {}, TypeError, ["x to be a torch.Tensor", "list"]),
    ],
)
def test_bad_input(
    look: Any, x: Any, y: Any, options: dict[str, Any], exception: type[Exception], fragments: list[str]
) -> None:
    with pytest.raises(exception) as caught:
        look(x, y, **options)
    for fragment in ("expected", "got", *fragments):
        assert fragment in str(caught.value)


PICTURES = [name for name in scav_kernels.plot.__all__ if name != "alignment"]


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name: str) -> None:
    x, y = pair(9, 7, dtype=torch.float32)
    figure = getattr(scav_kernels.plot, name)(x.requires_grad_(), y, cost="cosine")
    assert isinstance(figure, Figure)
    matrix, _colors, left, below = figure.axes
    assert (left.get_ylabel(), below.get_xlabel()) == ("step of x", "step of y")
    assert matrix.images[0].get_array().shape == (9, 7)
    assert left.images[0].get_array().shape == (9, 4)
    assert below.images[0].get_array().shape == (4, 7)
    figure.canvas.draw()


def test_picture_of_a_path_shows_the_path() -> None:
    x, y = pair()
    (line,) = scav_kernels.plot.dtw_path(x, y, band=1).axes[0].lines
    assert line.get_xydata().tolist() == scav_kernels.dtw_path(x, y, band=1).flip(1).tolist()


@pytest.mark.parametrize(
    ("metric", "name"), [("dtw", "dtw_path"), ("soft_dtw", "soft_dtw_alignment"), ("sinkhorn", "sinkhorn_plan")]
)
def test_picture_of_a_metric(metric: str, name: str) -> None:
    x, y = pair()
    named, by_metric = getattr(scav_kernels.plot, name)(x, y), scav_kernels.plot.alignment(x, y, metric=metric)
    shown, expected = (figure.axes[0].images[0].get_array() for figure in (by_metric, named))
    assert (shown == expected).all()
    weights = scav_kernels.alignment(x[None], y[None], metric=metric).weights[0]
    assert metric == "dtw" or (shown == weights.numpy()).all()
    assert by_metric.axes[0].get_title() == named.axes[0].get_title() != ""


def test_picture_of_weighted_steps() -> None:
    x, y = pair()
    weights = torch.arange(1.0, len(x) + 1)
    figure = scav_kernels.plot.sinkhorn_plan(x, y, epsilon=1.0, x_weights=weights)
    plan = scav_kernels.sinkhorn_plan(x, y, epsilon=1.0, x_weights=weights)
    assert (figure.axes[0].images[0].get_array() == plan.numpy()).all()


def test_axes_in_seconds() -> None:
    x, y = pair(9, 7)
    figure = scav_kernels.plot.dtw_path(x, y, x_rate=2.0, y_rate=10.0, title="Clip 3")
    matrix, _, left, below = figure.axes
    assert matrix.get_title() == "Clip 3"
    assert (left.get_ylabel(), below.get_xlabel()) == ("x in seconds", "y in seconds")
    for image in (matrix.images[0], left.images[0]):
        assert image.get_extent()[2:] == [4.5, 0.0]
    for image in (matrix.images[0], below.images[0]):
        assert image.get_extent()[:2] == [0.0, 0.7]
    middles = (scav_kernels.dtw_path(x, y).flip(1) + 0.5) / torch.tensor([10.0, 2.0])
    assert matrix.lines[0].get_xydata() == pytest.approx(middles.numpy())
    with pytest.raises(ValueError, match="expected y_rate > 0 in steps per second, or None, got 0"):
        scav_kernels.plot.sinkhorn_plan(x, y, y_rate=0)


def test_picture_in_axes_of_the_caller() -> None:
    x, y = pair(9, 7)
    figure = Figure()
    first, second = figure.subplots(1, 2)
    assert scav_kernels.plot.dtw_path(x, y, ax=first) is figure
    assert scav_kernels.plot.alignment(x, y, metric="soft_dtw", ax=second, y_rate=5.0) is figure
    assert len(first.lines) == 1
    assert (first.get_xlabel(), first.get_ylabel()) == ("step of y", "step of x")
    assert (second.get_xlabel(), second.get_ylabel()) == ("y in seconds", "step of x")
    assert len(figure.axes) == 4  # with a color bar each
    figure.canvas.draw()


def test_picture_of_bad_input() -> None:
    x, y = pair()
    with pytest.raises(ValueError, match="'dtw', 'sinkhorn', 'soft_dtw', got 'interpolated_euclidean'"):
        scav_kernels.plot.alignment(x, y, metric="interpolated_euclidean")
    with pytest.raises(ValueError, match="one pair"):
        scav_kernels.plot.alignment(x[None], y)


def test_without_matplotlib_all_but_pictures_works() -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import torch, scav_kernels\n"
        "x = torch.zeros(3, 2)\n"
        "scav_kernels.dtw_path(x, x)\n"
        "scav_kernels.plot.dtw_path(x, x)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode != 0
    assert "pip install 'scav-kernels[plot]'" in run.stderr
