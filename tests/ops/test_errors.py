"""A wrong argument gets the right exception, and a message with what was expected, what came and how to fix it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

import scav_kernels

from .cases import CORE, PUBLIC, Case
from .inputs import Shape, answer, sequences

# Any two batches of sequences that fit each other: x (3, 6, 4), y (3, 5, 4).
SHAPE = Shape(b1=3, b2=3, n=6, m=5, d=4)
Arguments = dict[str, Any]


@contextmanager
def refusal(exception: type[Exception], *fragments: str) -> Iterator[None]:
    """The message has "expected", what came, and each fragment."""
    with pytest.raises(exception) as caught:
        yield
    # The dispatcher may append a C++ trace.
    message = str(caught.value).split("\nException raised from")[0]
    for fragment in ("expected", "got", *fragments):
        assert fragment in message, f"{fragment!r} is missing in {message!r}"


def arguments() -> Arguments:
    return sequences(SHAPE)._asdict()


def set_to(name: str, change: Callable[[Tensor], object]) -> Callable[[Arguments], Arguments]:
    return lambda given: {**given, name: change(given[name])}


BAD_SEQUENCES = {
    "x of rank 2": (set_to("x", lambda x: x[0]), ValueError, ["x", "(B1, N, D)", "(6, 4)", "x[None]"]),
    "y of rank 4": (set_to("y", lambda y: y[None]), ValueError, ["y", "(B2, M, D)", "(1, 3, 5, 4)"]),
    "another D": (set_to("y", lambda y: y[..., :3]), ValueError, ["feature size D", "4", "3"]),
    "another dtype": (set_to("y", Tensor.double), TypeError, ["one dtype", "y.to(x.dtype)"]),
    "integers": (lambda given: {**given, "x": given["x"].long(), "y": given["y"].long()}, TypeError, ["float32"]),
    "complex": (lambda given: {**given, "x": given["x"] + 0j, "y": given["y"] + 0j}, TypeError, ["float32"]),
    "N = 0": (lambda given: {**given, "x": given["x"][:, :0], "x_lengths": None}, ValueError, ["x", "(3, 0, 4)"]),
    "M = 0": (lambda given: {**given, "y": given["y"][:, :0], "y_lengths": None}, ValueError, ["y", "(3, 0, 4)"]),
    "D = 0": (lambda given: {**given, "x": given["x"][..., :0], "y": given["y"][..., :0]}, ValueError, ["(3, 6, 0)"]),
}
BAD_LENGTHS = {
    "too few": (set_to("x_lengths", lambda x: x[:2]), ValueError, ["x_lengths", "(3,)", "(2,)"]),
    "too many": (set_to("y_lengths", lambda y: y.repeat(2)), ValueError, ["y_lengths", "(3,)", "(6,)"]),
    "a column": (set_to("x_lengths", lambda x: x[:, None]), ValueError, ["x_lengths", "(3,)", "(3, 1)"]),
    "int32": (set_to("x_lengths", Tensor.int), TypeError, ["x_lengths", "int64", "x_lengths.long()"]),
    "float": (set_to("y_lengths", Tensor.float), TypeError, ["y_lengths", "int64", "y_lengths.long()"]),
    "zero": (set_to("x_lengths", lambda x: x * 0), ValueError, ["x_lengths", "between 1 and 6", "got 0 at index 0"]),
    "negative": (set_to("y_lengths", torch.neg), ValueError, ["y_lengths", "between 1 and 5", "got -5 at index 0"]),
    "too long": (
        set_to("x_lengths", lambda x: x + 1),
        ValueError,
        ["x_lengths", "between 1 and 6", "got 7 at index 0"],
    ),
    "huge": (set_to("y_lengths", lambda y: y + 2**62), ValueError, ["y_lengths", "between 1 and 5"]),
}
BAD = {**BAD_SEQUENCES, **{f"lengths {name}": row for name, row in BAD_LENGTHS.items()}}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", CORE, ids=str)
@pytest.mark.parametrize(("change", "exception", "fragments"), BAD.values(), ids=list(BAD))
def test_bad_input(
    change: Callable[[Arguments], Arguments],
    exception: type[Exception],
    fragments: list[str],
    case: Case,
    paired: bool,
    mode: type,
) -> None:
    given = change(arguments())
    with mode(), refusal(exception, *fragments):
        case.kernel(given["x"], given["y"], given["x_lengths"], given["y_lengths"], paired=paired)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_the_error_names_the_op(case: Case) -> None:
    given = sequences(SHAPE)
    with pytest.raises(ValueError, match=f"{case.metric}: expected x"):
        case.kernel(given.x[0], given.y)


@pytest.mark.parametrize("wrong", ["x", "y", "x_lengths", "y_lengths"])
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_another_device(case: Case, paired: bool, wrong: str) -> None:
    # The meta device is one that every build has.
    given = set_to(wrong, lambda tensor: tensor.to("meta"))(arguments())
    with pytest.raises(RuntimeError, match=r"(?s)expected.*(device|CPU).*got.*meta"):
        case.kernel(given["x"], given["y"], given["x_lengths"], given["y_lengths"], paired=paired)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_not_a_tensor(case: Case) -> None:
    given = sequences(SHAPE)
    with pytest.raises(TypeError, match="x"):
        case.kernel(given.x.numpy(), given.y)
    with pytest.raises(TypeError, match="x_lengths"):
        case.kernel(given.x, given.y, [6, 1, 3])


def nested(layout: torch.layout) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.nested.nested_tensor([x[0], x[1, :3], x[2, :1]], layout=layout)


# What people hold instead of a padded tensor, and the call that makes it one.
OTHER_CONTAINERS: dict[str, tuple[Callable[[Tensor], object], list[str]]] = {
    "list": (list, ["a list of Tensor", "scav_kernels.pad(x)"]),
    "tuple": (tuple, ["a tuple of Tensor", "scav_kernels.pad(x)"]),
    "arrays": (lambda x: [s.numpy() for s in x], ["a list of ndarray", "scav_kernels.pad(x)"]),
    "array": (lambda x: x.numpy(), ["ndarray", "torch.as_tensor(x)"]),
    "numbers": (lambda x: x.tolist(), ["a list of list", "torch.as_tensor(x)"]),
    "number": (lambda x: 1.0, ["float", "torch.as_tensor(x)"]),
    "packed": (pack_sequence, ["PackedSequence", "scav_kernels.pad(x)"]),
    "jagged": (nested(torch.jagged), ["a nested one", "scav_kernels.pad(x)"]),
    "nested": (nested(torch.strided), ["a nested one", "scav_kernels.pad(x)"]),
    "sparse": (lambda x: x.to_sparse(), ["dense", "torch.sparse_coo", "x.to_dense()"]),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", PUBLIC, ids=str)
@pytest.mark.parametrize(("change", "fragments"), OTHER_CONTAINERS.values(), ids=list(OTHER_CONTAINERS))
def test_other_containers_of_sequences(
    change: Callable[[Tensor], object], fragments: list[str], case: Case, paired: bool
) -> None:
    given = sequences(SHAPE)
    with refusal(TypeError, f"{case.metric}: expected x", *fragments):
        case.kernel(change(given.x), given.y, paired=paired)
    with refusal(TypeError, f"{case.metric}: expected y", *(part.replace("x", "y") for part in fragments[:1])):
        case.kernel(given.x, change(given.y), paired=paired)


@pytest.mark.parametrize("case", PUBLIC, ids=str)
def test_masks_are_no_lengths(case: Case) -> None:
    given = sequences(SHAPE)
    mask = torch.arange(6) < given.x_lengths[:, None]
    with refusal(TypeError, "x_lengths", "int64", "a bool mask of shape (3, 6)", "x_lengths.sum(-1)"):
        case.kernel(given.x, given.y, mask, given.y_lengths)
    assert torch.equal(case.kernel(given.x, given.y, mask.sum(-1), given.y_lengths), case.kernel(*given))


@pytest.mark.parametrize("case", [case for case in PUBLIC if case.metric.endswith("_divergence")], ids=str)
def test_a_divergence_speaks_of_itself(case: Case) -> None:
    given = sequences(SHAPE)
    for call, exception in (
        (lambda: case.kernel(given.x[0], given.y), ValueError),
        (lambda: case.kernel(given.x, given.y.double()), TypeError),
        (lambda: case.kernel(given.x, given.y, given.x_lengths + 1), ValueError),
        (lambda: case.kernel(given.x, given.y[:2], paired=True), ValueError),
        (lambda: case.kernel(given.x, given.y, cost=1), TypeError),
    ):
        with pytest.raises(exception, match=f"^{case.metric}: ") as caught:
            call()
        parent = case.metric.removesuffix("_divergence")
        assert parent not in str(caught.value).replace(case.metric, "")


BAD_OPTIONS = [
    ("interpolated_euclidean", {"resample": "z"}, ValueError, ["resample", "'x'", "'y'", "'shorter'", "'z'"]),
    ("interpolated_cosine", {"resample": "z"}, ValueError, ["resample", "'x'", "'y'", "'shorter'", "'z'"]),
    ("interpolated_cosine", {"mode": "area"}, ValueError, ["mode", "'linear'", "'nearest'", "'area'"]),
    ("chamfer", {"cost": "manhattan"}, ValueError, ["'euclidean'", "'sqeuclidean'", "'cosine'", "'manhattan'"]),
    ("chamfer", {"direction": "z"}, ValueError, ["direction", "'x'", "'y'", "'both'", "'z'"]),
    ("dtw", {"cost": "manhattan"}, ValueError, ["'euclidean'", "'sqeuclidean'", "'cosine'", "'manhattan'"]),
    ("soft_dtw", {"cost": "manhattan"}, ValueError, ["'euclidean'", "'sqeuclidean'", "'cosine'", "'manhattan'"]),
    ("sinkhorn", {"cost": "manhattan"}, ValueError, ["'euclidean'", "'sqeuclidean'", "'cosine'", "'manhattan'"]),
    ("dtw", {"band": -1}, ValueError, ["band", "-1"]),
    ("soft_dtw", {"band": -3}, ValueError, ["band", "-3"]),
    ("dtw", {"step_penalty": -0.5}, ValueError, ["step_penalty", ">= 0", "-0.5"]),
    ("dtw", {"step_penalty": float("inf")}, ValueError, ["step_penalty", "finite", "inf"]),
    ("dtw", {"step_penalty": 1e37}, ValueError, ["step_penalty", "the range of Float", "1e+37"]),
    ("dtw", {"diagonal_weight": 0.0}, ValueError, ["diagonal_weight", "> 0", "got 0"]),
    ("dtw", {"diagonal_weight": float("nan")}, ValueError, ["diagonal_weight", "nan"]),
    ("dtw", {"normalize": "length"}, ValueError, ["normalize", "'path'", "'steps'", "None", "'length'"]),
    ("soft_dtw", {"gamma": 0.0}, ValueError, ["gamma", "> 0", "got 0"]),
    ("soft_dtw", {"gamma": -1.0}, ValueError, ["gamma", "> 0", "-1"]),
    ("soft_dtw", {"gamma": float("nan")}, ValueError, ["gamma", "nan"]),
    ("soft_dtw", {"gamma": float("inf")}, ValueError, ["gamma", "inf"]),
    ("soft_dtw", {"gamma": 1e-40}, ValueError, ["gamma", "the range of Float", "1e-40"]),
    ("soft_dtw", {"gamma": 1e37}, ValueError, ["gamma", "the range of Float", "1e+37"]),
    ("soft_dtw", {"gamma": 10**400}, ValueError, ["gamma", "64 bits", "1329 bits"]),
    ("soft_dtw", {"band": 2**70}, ValueError, ["band", "64 bits", "71 bits"]),
    ("sinkhorn", {"max_iterations": -(10**5000)}, ValueError, ["max_iterations", "64 bits"]),
    ("sinkhorn", {"epsilon": 0.0}, ValueError, ["epsilon", "> 0", "got 0"]),
    ("sinkhorn", {"epsilon": -0.5}, ValueError, ["epsilon", "> 0", "-0.5"]),
    ("sinkhorn", {"epsilon": float("nan")}, ValueError, ["epsilon", "nan"]),
    ("sinkhorn", {"max_iterations": 0}, ValueError, ["max_iterations", "got 0"]),
    ("sinkhorn", {"max_iterations": -4}, ValueError, ["max_iterations", "-4"]),
    ("sinkhorn", {"tolerance": -0.1}, ValueError, ["tolerance", "-0.1"]),
    ("sinkhorn", {"tolerance": float("nan")}, ValueError, ["tolerance", "nan"]),
]


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize(("metric", "options", "exception", "fragments"), BAD_OPTIONS)
def test_bad_option(
    metric: str, options: Arguments, exception: type[Exception], fragments: list[str], paired: bool
) -> None:
    with refusal(exception, *fragments):
        Case(metric, metric, options).kernel(*sequences(SHAPE), paired=paired)


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize(
    ("metric", "options", "fragments"),
    [
        ("dtw", {"band": 1.5}, ["dtw", "an int or None", "1.5 of type float"]),
        ("dtw", {"band": True}, ["dtw", "an int or None", "True of type bool"]),
        ("dtw", {"cost": None}, ["dtw", "a str", "None of type NoneType"]),
        ("dtw", {"step_penalty": "1"}, ["dtw", "a number", "'1' of type str"]),
        ("dtw", {"open_end": 1}, ["dtw", "a bool", "1 of type int"]),
        ("dtw", {"normalize": True}, ["dtw", "a str or None", "True of type bool"]),
        ("soft_dtw", {"open_begin": None}, ["soft_dtw", "a bool", "None"]),
        ("soft_dtw", {"gamma": "1"}, ["soft_dtw", "a number", "'1' of type str"]),
        ("soft_dtw", {"gamma": torch.tensor(1.0)}, ["soft_dtw", "a number", "tensor(1.) of type Tensor"]),
        ("soft_dtw", {"band": "2"}, ["soft_dtw", "an int or None", "'2' of type str"]),
        ("soft_dtw", {"cost": 2}, ["soft_dtw", "a str", "2 of type int"]),
        ("sinkhorn", {"epsilon": None}, ["sinkhorn", "a number", "None"]),
        ("sinkhorn", {"max_iterations": 2.5}, ["sinkhorn", "an int", "2.5 of type float"]),
        ("sinkhorn", {"tolerance": "0"}, ["sinkhorn", "a number", "'0' of type str"]),
        ("sinkhorn", {"cost": torch.cdist}, ["sinkhorn", "a str", "function"]),
        ("interpolated_euclidean", {"squared": "yes"}, ["interpolated_euclidean", "a bool", "'yes' of type str"]),
        ("interpolated_euclidean", {"resample": None}, ["interpolated_euclidean", "a str", "None"]),
        ("interpolated_cosine", {"mode": 1}, ["interpolated_cosine", "a str", "1 of type int"]),
        ("chamfer", {"direction": None}, ["chamfer", "a str", "None"]),
    ],
)
def test_option_of_another_type(metric: str, options: Arguments, fragments: list[str], paired: bool) -> None:
    (name,) = options
    with refusal(TypeError, name, *fragments, f"help(scav_kernels.{metric})"):
        Case(metric, metric, options).kernel(*sequences(SHAPE), paired=paired)


@pytest.mark.parametrize("options", [{"band": np.int64(2)}, {"gamma": np.float32(0.5)}, {"gamma": 1}])
def test_numbers_of_numpy_are_numbers(options: Arguments) -> None:
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
    given = sequences(SHAPE)
    assert torch.equal(scav_kernels.soft_dtw(*given, **options), scav_kernels.soft_dtw(*given, **plain))


@pytest.mark.parametrize("function", ["cdist", "pairwise_distance"])
def test_option_of_another_metric(function: str) -> None:
    with pytest.raises(TypeError, match=r"'interpolated_euclidean' takes the options squared, resample, got 'gamma'"):
        getattr(scav_kernels, function)(*sequences(SHAPE), gamma=1.0)


@pytest.mark.parametrize("function", ["cdist", "pairwise_distance"])
def test_unknown_metric(function: str) -> None:
    with refusal(ValueError, "'hamming'", *(f"'{case.metric}'" for case in CORE)):
        getattr(scav_kernels, function)(*sequences(SHAPE), metric="hamming")


@pytest.mark.parametrize("function", ["cdist", "pairwise_distance"])
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("dwt", "dtw"),
        ("DTW", "dtw"),
        ("wasserstein", "sinkhorn"),
        ("Wasserstein", "sinkhorn"),
        ("sinkhorn_divergance", "sinkhorn_divergence"),
        ("soft-dtw", "soft_dtw"),
        ("euclidean", "interpolated_euclidean"),
        ("MaxSim", "chamfer"),
        ("colbert", "chamfer"),
        ("cosine", "interpolated_cosine"),
    ],
)
def test_a_metric_of_almost_that_name(function: str, name: str, meant: str) -> None:
    with refusal(ValueError, repr(name), f"did you mean {meant!r}?"):
        getattr(scav_kernels, function)(*sequences(SHAPE), metric=name)


@pytest.mark.parametrize("name", [None, 3, ["dtw"], scav_kernels.dtw])
def test_a_metric_is_named_by_a_str(name: object) -> None:
    with refusal(TypeError, "metric", "a str", type(name).__name__):
        scav_kernels.cdist(*sequences(SHAPE), metric=name)


def test_an_option_of_almost_that_name() -> None:
    with pytest.raises(TypeError, match=r"takes the options epsilon, .* got 'eps'; did you mean 'epsilon'\?"):
        scav_kernels.cdist(*sequences(SHAPE), metric="sinkhorn", eps=1.0)
    with pytest.raises(TypeError, match=r"got 'gamma'; 'gamma' is an option of metric 'soft_dtw' and "):
        scav_kernels.cdist(*sequences(SHAPE), metric="dtw", gamma=1.0)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_paired_batches_of_two_sizes(case: Case) -> None:
    given = sequences(Shape(b1=3, b2=2))
    with pytest.raises(ValueError, match=r"3 and 2.*cdist"):
        case.kernel(*given, paired=True)


@pytest.mark.parametrize(("b1", "b2"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_empty_batches_are_no_error(case: Case, b1: int, b2: int) -> None:
    given = sequences(Shape(b1=b1, b2=b2))
    found = answer(case.kernel, given)
    assert found.value.shape == (b1, b2)
    assert torch.equal(found.x_grad, torch.zeros_like(given.x))
    assert torch.equal(found.y_grad, torch.zeros_like(given.y))
    if b1 == b2:
        assert answer(case.kernel, given, paired=True).value.shape == (0,)


def test_more_bytes_than_a_number_holds_are_an_error_of_their_own() -> None:
    """In a process of its own, which an abort would end."""
    code = """
import torch, scav_kernels
y = torch.zeros(1, 1, 1)
x, grad = y.expand(1 << 62, 1, 1), y[0].expand(1 << 62, 1)
for call in (
    lambda: scav_kernels.soft_dtw(x, y),
    lambda: torch.ops.scav.soft_dtw_backward(
        grad, x, y, None, None, 1.0, "sqeuclidean", None, False, False, False, True, True
    ),
):
    try:
        call()
    except torch.OutOfMemoryError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"out of memory: a tensor of shape ({1 << 62},)") == 2


def test_too_little_memory_is_an_error_of_its_own() -> None:
    x = torch.zeros(1, 1, 1).expand(1 << 22, 1, 1)
    with pytest.raises(torch.OutOfMemoryError, match=r"tensor of shape \(4194304, 4194304\) and dtype Float on cpu"):
        scav_kernels.dtw(x, x)
