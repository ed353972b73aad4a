"""The distances as modules."""

import copy
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import scav_kernels
from scav_kernels.nn import SequenceContrastiveLoss, SequenceDistance, SinkhornLoss, SoftDTWLoss

from . import gathered_loss
from .cases import CASES, Case
from .inputs import Shape, sequences

ROOT = Path(__file__).parents[2]
LOSSES = [
    (SoftDTWLoss(), "soft_dtw", {}),
    (SoftDTWLoss(0.1, cost="cosine", band=2), "soft_dtw", {"gamma": 0.1, "cost": "cosine", "band": 2}),
    (SoftDTWLoss(open_begin=True, open_end=True), "soft_dtw", {"open_begin": True, "open_end": True}),
    (SoftDTWLoss(debias=True), "soft_dtw_divergence", {}),
    (SinkhornLoss(), "sinkhorn", {}),
    (
        SinkhornLoss(0.5, max_iterations=7, tolerance=0.0, cost="sqeuclidean"),
        "sinkhorn",
        {"epsilon": 0.5, "max_iterations": 7, "tolerance": 0.0, "cost": "sqeuclidean"},
    ),
    (SinkhornLoss(debias=True), "sinkhorn_divergence", {}),
]
MODULES = [SequenceDistance("dtw", band=3), *(loss for loss, _, _ in LOSSES)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sequence_distance_is_cdist(case: Case) -> None:
    given = sequences(Shape(b1=3, b2=4))
    module = SequenceDistance(case.metric, **case.options)
    assert torch.equal(module(*given, **case.weights(*given)), case.kernel(*given))


def test_default_metric() -> None:
    given = sequences(Shape())
    assert torch.equal(SequenceDistance()(*given), scav_kernels.cdist(*given))


@pytest.mark.parametrize(("loss", "metric", "options"), LOSSES, ids=lambda value: str(value))
def test_losses_are_paired_distances(loss: nn.Module, metric: str, options: dict[str, Any]) -> None:
    given = sequences(Shape(b1=4, b2=4))
    expected = scav_kernels.pairwise_distance(*given, metric=metric, **options)
    assert torch.equal(loss(*given), expected.mean())
    for reduction, value in (("sum", expected.sum()), ("none", expected)):
        other = copy.deepcopy(loss)
        other.reduction = reduction
        assert torch.equal(other(*given), value)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (
            SequenceDistance("soft_dtw", band=3),
            "SequenceDistance(metric='soft_dtw', gamma=1.0, cost='sqeuclidean', band=3, open_begin=False, "
            "open_end=False)",
        ),
        (
            SequenceDistance(),
            "SequenceDistance(metric='interpolated_euclidean', squared=False, resample='x')",
        ),
        (
            SoftDTWLoss(0.1, debias=True),
            "SoftDTWLoss(gamma=0.1, cost='sqeuclidean', band=None, open_begin=False, open_end=False, debias=True, "
            "reduction='mean')",
        ),
        (
            SinkhornLoss(reduction="sum"),
            "SinkhornLoss(epsilon=0.05, max_iterations=100, tolerance=0.001, cost='euclidean', scaling=None, "
            "debias=False, reduction='sum')",
        ),
    ],
)
def test_repr_shows_every_option(module: nn.Module, expected: str) -> None:
    assert repr(module) == expected


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_copies(module: nn.Module, clone: Any) -> None:
    given = sequences(Shape(b1=3, b2=3))
    copied = clone(module)
    assert repr(copied) == repr(module)
    assert torch.equal(copied(*given), module(*given))


def test_no_parameters_and_no_state() -> None:
    for module in MODULES:
        assert not list(module.parameters())
        assert not module.state_dict()


@pytest.mark.parametrize(
    ("make", "exception", "fragments"),
    [
        (lambda: SequenceDistance("hamming"), ValueError, ["metric", "'dtw'", "'hamming'"]),
        (lambda: SequenceDistance("dtw", gamma=1.0), TypeError, ["'dtw'", "cost, band", "'gamma'"]),
        (lambda: SequenceDistance("dtw", band=-1), ValueError, ["band >= 0", "-1"]),
        (lambda: SoftDTWLoss(0.0), ValueError, ["gamma > 0", "got 0"]),
        (lambda: SoftDTWLoss(gamma="1"), TypeError, ["gamma", "a number", "'1'"]),
        (lambda: SoftDTWLoss(cost="l1"), ValueError, ["'sqeuclidean'", "'l1'"]),
        (lambda: SinkhornLoss(-1.0), ValueError, ["epsilon > 0", "-1"]),
        (lambda: SinkhornLoss(max_iterations=0), ValueError, ["max_iterations", "got 0"]),
        (lambda: SinkhornLoss(debias="no"), TypeError, ["debias", "a bool", "'no' of type str"]),
        (lambda: SinkhornLoss(reduction="max"), ValueError, ["reduction", "'mean', 'sum', 'none'", "'max'"]),
    ],
)
def test_bad_options_are_refused_when_the_module_is_made(
    make: Any, exception: type[Exception], fragments: list[str]
) -> None:
    with pytest.raises(exception) as caught:
        make()
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_batches_of_two_sizes() -> None:
    given = sequences(Shape(b1=3, b2=2))
    with pytest.raises(ValueError, match=r"3 and 2.*cdist"):
        SoftDTWLoss()(*given)


class TestSequenceContrastiveLoss:
    @pytest.mark.parametrize("case", [case for case in CASES if not case.weighted], ids=str)
    def test_loss_is_the_mean_of_both_cross_entropies(self, case: Case) -> None:
        x, y, x_lengths, y_lengths = sequences(Shape(b1=4, b2=4))
        loss = SequenceContrastiveLoss(case.metric, scale=2.0, per_step=True, **case.options)
        logits = -2.0 * case.kernel(x, y, x_lengths, y_lengths) / (x_lengths[:, None] + y_lengths)
        rows, columns = (-side.log_softmax(1).diagonal().mean() for side in (logits, logits.T))
        torch.testing.assert_close(loss(x, y, x_lengths, y_lengths), (rows + columns) / 2, check_dtype=False)

    @pytest.mark.parametrize(
        ("metric", "per_step"), [("dtw", True), ("soft_dtw", True), ("soft_dtw_divergence", True), ("sinkhorn", False)]
    )
    def test_sums_along_a_path_are_divided_by_the_steps(self, metric: str, per_step: bool) -> None:
        x, y, *_ = sequences(Shape(b1=3, b2=3))
        options = {"tolerance": 0.0} if metric == "sinkhorn" else {}
        loss = SequenceContrastiveLoss(metric, **options)
        assert loss.per_step is per_step
        assert torch.equal(loss(x, y), SequenceContrastiveLoss(metric, per_step=per_step, **options)(x, y))
        assert not torch.equal(loss(x, y), SequenceContrastiveLoss(metric, per_step=not per_step, **options)(x, y))

    def test_scale_is_learned_within_its_bounds(self) -> None:
        x, y, *_ = sequences(Shape(b1=3, b2=3))
        loss = SequenceContrastiveLoss(min_scale=1.0, max_scale=20.0)
        loss(x.requires_grad_(), y).backward()
        assert loss.log_scale.grad.abs() > 0
        assert x.grad.abs().sum() > 0
        for outside, bound in ((50.0, 20.0), (0.1, 1.0)):
            with torch.no_grad():
                loss.log_scale.fill_(math.log(outside))
            assert loss.scale.item() == pytest.approx(bound)
        assert not SequenceContrastiveLoss(learn_scale=False).log_scale.requires_grad

    def test_rows_of_other_processes(self) -> None:
        x, y, x_lengths, y_lengths = sequences(Shape(b1=5, b2=5))
        expected = SequenceContrastiveLoss("dtw")(x, y, x_lengths, y_lengths)
        distance = scav_kernels.dtw(x, y, x_lengths, y_lengths) / (x_lengths[:, None] + y_lengths)
        others = iter([y[2:], y_lengths[2:], distance[2:]])
        loss = SequenceContrastiveLoss("dtw", gather=lambda rows: torch.cat([rows, next(others)]))
        torch.testing.assert_close(loss(x[:2], y[:2], x_lengths[:2], y_lengths[:2]), expected)
        with pytest.raises(ValueError, match=r"gather.*rows of all processes.*\(2, 4\)"):
            SequenceContrastiveLoss(gather=lambda rows: rows.repeat(2, 1, 1) if rows.dim() == 3 else rows)(x[:2], y[:2])

    @pytest.mark.slow
    def test_processes_that_gather_have_the_gradient_of_the_whole_batch(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "tests.ops.gathered_loss"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        processes = [
            subprocess.Popen([*command, str(rank), "2", str(tmp_path)], cwd=ROOT, env=environment) for rank in range(2)
        ]
        try:
            assert [process.wait(timeout=120) for process in processes] == [0, 0]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        expected = gathered_loss.loss_and_gradients(gathered_loss.Model(), gathered_loss.GIVEN)
        for rank in range(2):
            for found, value in zip(torch.load(tmp_path / f"{rank}.pt"), expected, strict=True):
                torch.testing.assert_close(found, value)

    @pytest.mark.parametrize("metric", ["interpolated_euclidean", "soft_dtw"])
    def test_autocast(self, metric: str) -> None:
        x, y, x_lengths, y_lengths = sequences(Shape(b1=3, b2=3))
        loss, encoder = SequenceContrastiveLoss(metric), nn.Linear(4, 4)
        with torch.autocast("cpu", torch.bfloat16):
            encoded = encoder(x)
            value = loss(encoded, y, x_lengths, y_lengths)
        assert encoded.dtype == torch.bfloat16
        value.backward()
        assert encoder.weight.grad.abs().sum() > 0
        torch.testing.assert_close(value, loss(encoded.float(), y, x_lengths, y_lengths))

    @pytest.mark.parametrize("metric", [pytest.param("interpolated_euclidean", marks=pytest.mark.slow), "soft_dtw"])
    def test_compile(self, metric: str) -> None:
        torch._dynamo.reset()
        x, y, x_lengths, y_lengths = sequences(Shape(b1=3, b2=3))
        loss = SequenceContrastiveLoss(metric)
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        found, expected = (
            torch.autograd.grad(function(x.requires_grad_(), y, x_lengths, y_lengths), [x, loss.log_scale])
            for function in (compiled, loss)
        )
        torch.testing.assert_close(found, expected)

    def test_bad_arguments_are_refused(self) -> None:
        x, y, *_ = sequences(Shape(b1=3, b2=4))
        with pytest.raises(ValueError, match="one batch size"):
            SequenceContrastiveLoss()(x, y)
        with pytest.raises(ValueError, match="min_scale <= scale"):
            SequenceContrastiveLoss(scale=200.0)
        with pytest.raises(TypeError, match="options"):
            SequenceContrastiveLoss("dtw", gamma=1.0)


@pytest.mark.parametrize("debias", [False, True])
def test_weights_come_with_the_sequences(debias: bool) -> None:
    given = sequences(Shape(b1=4, b2=4))
    weights = {"x_weights": given.x[..., 0].exp(), "y_weights": given.y[..., 0].exp()}
    metric = "sinkhorn_divergence" if debias else "sinkhorn"
    expected = scav_kernels.pairwise_distance(*given, metric=metric, scaling=0.5, **weights).mean()
    assert torch.equal(SinkhornLoss(scaling=0.5, debias=debias)(*given, **weights), expected)
    criterion = scav_kernels.nn.SequenceContrastiveLoss(metric, epsilon=1.0)
    logits = criterion.logits(scav_kernels.cdist(*given, metric=metric, epsilon=1.0, **weights))
    assert torch.equal(criterion(*given, **weights), scav_kernels.nn.symmetric_cross_entropy(logits))
    with pytest.raises(TypeError, match="got return_convergence; sinkhorn returns it, this module does not"):
        SequenceDistance("sinkhorn", return_convergence=True)
    with pytest.raises(TypeError, match=r"alone, got x_weights and y_weights, which belong to a batch; pass them with"):
        SequenceDistance("sinkhorn", **weights)
    with pytest.raises(TypeError, match="'x_weights' is an option of metric 'sinkhorn'"):
        SoftDTWLoss()(*given, x_weights=weights["x_weights"])
