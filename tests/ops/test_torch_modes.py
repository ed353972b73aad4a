"""The public functions under what PyTorch does to a model: autocast, compilation, export, workers, forks."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.utils.data import DataLoader, Dataset

import scav_kernels

from .cases import CASES, CORE, PUBLIC, Case
from .inputs import Sequences, Shape, answer, sequences
from .tolerances import assert_same_up_to_rounding

FROM_COST = [scav_kernels.dtw_from_cost, scav_kernels.soft_dtw_from_cost, scav_kernels.sinkhorn_from_cost]
# torch records and compiles all ops in the same way: `make test` takes two of them, `make check` the others.
RECORDED = [
    pytest.param(case, id=str(case), marks=[] if case.metric in ("dtw", "sinkhorn") else [pytest.mark.slow])
    for case in PUBLIC
]


class Model(nn.Module):
    """Ends in a distance, after a layer that autocast runs in half precision."""

    def __init__(self, metric: str, **options: Any) -> None:
        super().__init__()
        self.project = nn.Linear(4, 4)
        self.distance = scav_kernels.nn.SequenceDistance(metric, **options)

    def forward(self, x: Tensor, y: Tensor, x_lengths: Tensor, y_lengths: Tensor) -> Tensor:
        return self.distance(self.project(x), self.project(y), x_lengths, y_lengths)


def model(case: Case) -> Model:
    torch.manual_seed(0)
    return Model(case.metric, **case.options)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", PUBLIC, ids=str)
def test_autocast(case: Case, half: torch.dtype) -> None:
    given = sequences(Shape(b1=3, b2=4)).leaves()
    network = model(case)
    with torch.autocast("cpu", half):
        value = network(*given)
        expected = case.kernel(network.project(given.x), network.project(given.y), given.x_lengths, given.y_lengths)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    value.sum().backward()
    assert given.x.grad.dtype == torch.float32
    assert network.project.weight.grad.isfinite().all()


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_autocast_promotes_two_dtypes_to_the_wider_one(case: Case, paired: bool) -> None:
    given = sequences(Shape(b1=3, b2=3))
    mixed = given._replace(x=given.x.bfloat16())
    wide = mixed.map(Tensor.float)
    with torch.autocast("cpu", torch.bfloat16):
        found = answer(case.kernel, mixed, paired)
    expected = answer(case.kernel, wide, paired)
    assert torch.equal(found.value, expected.value)
    assert found.x_grad.dtype == torch.bfloat16
    assert torch.equal(found.x_grad, expected.x_grad.bfloat16())
    assert torch.equal(found.y_grad, expected.y_grad)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_autocast_still_refuses_integers(case: Case) -> None:
    given = sequences(Shape())
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match="expected x"):
        case.kernel(given.x.long(), given.y)


def compiled_answers(case: Case, paired: bool, **options: Any) -> None:
    """Compiled once without a graph break, then for other sizes too: the values and gradients of the plain function."""
    torch._dynamo.reset()

    def loss(x: Tensor, y: Tensor, *lengths: Tensor | None, paired: bool = False) -> Tensor:
        # Something before and after, so that there is a graph around the op.
        return 2 * case.kernel(x.tanh(), y.tanh(), *lengths, paired=paired)

    compiled = torch.compile(loss, fullgraph=True, **options)
    for shape in (Shape(b1=4, b2=4), Shape(b1=5, b2=5, n=9, m=7, d=6), Shape(b1=3, b2=3, n=8, m=11, d=5)):
        given = sequences(shape)
        assert_same_up_to_rounding(answer(compiled, given, paired), answer(loss, given, paired))


# Whether x and y are paired, and whether sizes are symbols. An op's options take one of them each, in turn.
FORMS = [(paired, dynamic) for paired in (False, True) for dynamic in (False, True)]
COMPILED = [
    pytest.param(case, *form, id=f"{case}-{'paired' if form[0] else 'all_pairs'}-{'dynamic' if form[1] else 'static'}")
    for number, case in enumerate(CASES)
    for place, form in enumerate(FORMS)
    if case in CORE or place == number % len(FORMS)
]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "paired", "dynamic"), COMPILED)
def test_compile_has_no_graph_break(case: Case, paired: bool, dynamic: bool) -> None:
    compiled_answers(case, paired, backend="aot_eager", dynamic=dynamic)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch's own modules, as it imports them
@pytest.mark.parametrize("case", PUBLIC, ids=str)
def test_compile_with_the_default_backend(case: Case) -> None:
    compiled_answers(case, paired=False, dynamic=True)


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        pytest.param("interpolated_euclidean", {"squared": True}, marks=pytest.mark.slow),
        pytest.param("interpolated_cosine", {"resample": "y"}, marks=pytest.mark.slow),
        pytest.param("chamfer", {"direction": "both"}, marks=pytest.mark.slow),
        ("dtw", {"step_penalty": 0.5, "diagonal_weight": 2.0, "band": 7}),
        pytest.param("soft_dtw", {"gamma": 0.5}, marks=pytest.mark.slow),
        pytest.param("soft_dtw_divergence", {"gamma": 0.5, "band": 7}, marks=pytest.mark.slow),
        ("sinkhorn", {"epsilon": 0.5}),
        pytest.param(
            "sinkhorn",
            {"epsilon": 0.5, "tolerance": 0.25, "scaling": 0.75, "max_iterations": 20},
            marks=pytest.mark.slow,
        ),
        pytest.param("sinkhorn_divergence", {"epsilon": 0.5}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_compile_takes_options_from_the_caller(metric: str, options: dict[str, Any]) -> None:
    """With dynamic=True, numbers that the caller passes are no constants of the graph."""
    torch._dynamo.reset()
    given = sequences(Shape())
    compiled = torch.compile(scav_kernels.cdist, fullgraph=True, backend="aot_eager", dynamic=True)
    halved = {name: value / 2 if isinstance(value, float) else value for name, value in options.items()}
    for values in (options, halved):
        x = given.x.requires_grad_()
        found, expected = (cdist(x, given.y, metric=metric, **values) for cdist in (compiled, scav_kernels.cdist))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(torch.autograd.grad(value.sum(), x) for value in (found, expected)))


@pytest.mark.parametrize("distance", FROM_COST, ids=lambda distance: distance.__name__)
def test_compile_from_cost(distance: Callable[..., Tensor]) -> None:
    torch._dynamo.reset()

    def loss(cost: Tensor) -> Tensor:
        return distance(cost.square()).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in ((2, 3, 5, 4), (4, 2, 7, 8), (6, 5)):
        cost = torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (found,), (expected,) = (torch.autograd.grad(function(cost), cost) for function in (compiled, loss))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("case", RECORDED)
def test_compile_under_autocast(case: Case) -> None:
    torch._dynamo.reset()
    network, given = model(case), sequences(Shape(b1=3, b2=3))

    def forward(x: Tensor, y: Tensor, x_lengths: Tensor, y_lengths: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return case.kernel(network.project(x), y, x_lengths, y_lengths)

    compiled = torch.compile(forward, fullgraph=True, backend="aot_eager")
    assert_same_up_to_rounding(answer(compiled, given), answer(forward, given))


@pytest.mark.parametrize("case", PUBLIC, ids=str)
def test_export(case: Case) -> None:
    network, given = model(case), sequences(Shape(b1=3, b2=4, ragged=True))
    batch, steps = torch.export.Dim("batch", min=2), torch.export.Dim("steps", min=2)
    dynamic = {"x": {0: batch, 1: steps}, "y": None, "x_lengths": {0: batch}, "y_lengths": None}
    program = torch.export.export(network, tuple(given), dynamic_shapes=dynamic)
    other = given._replace(x=sequences(Shape(b1=5, n=9)).x, x_lengths=torch.tensor([9, 1, 4, 5, 2]))
    for inputs in (given, other):
        torch.testing.assert_close(program.module()(*inputs), network(*inputs))


def exported(network: nn.Module, given: Sequences) -> Callable[..., Tensor]:
    return torch.export.export(network, tuple(given)).module()


def decomposed(network: nn.Module, given: Sequences) -> Callable[..., Tensor]:
    return torch.export.export(network, tuple(given)).run_decompositions().module()


def traced(network: nn.Module, given: Sequences) -> Callable[..., Tensor]:
    with torch.no_grad():
        return torch.jit.trace(network, tuple(given))


# Both are torch's own.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`isinstance.treespec:FutureWarning")
@pytest.mark.parametrize("record", [exported, decomposed, traced])
@pytest.mark.parametrize("case", RECORDED)
def test_gradients_of_a_model_recorded_without_them(
    case: Case, record: Callable[[nn.Module, Sequences], Callable[..., Tensor]]
) -> None:
    given = sequences(Shape(b1=3, b2=4))
    network = scav_kernels.nn.SequenceDistance(case.metric, **case.options)
    found, expected = answer(record(network, given), given), answer(network, given)
    assert torch.equal(found.x_grad, expected.x_grad)
    assert torch.equal(found.y_grad, expected.y_grad)


@pytest.mark.parametrize("case", RECORDED)
def test_compiled_transforms(case: Case) -> None:
    given = sequences(Shape(b1=3, b2=3, ragged=False))

    def pair(x: Tensor, y: Tensor) -> Tensor:
        return case.kernel(x[None], y[None]).sum()

    for transformed in (vmap(pair), vmap(grad(pair, (0, 1))), grad(lambda x, y: case.kernel(x, y).sum())):
        torch._dynamo.reset()
        compiled = torch.compile(transformed, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(given.x, given.y), transformed(given.x, given.y))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_deterministic_algorithms(case: Case) -> None:
    given = sequences(Shape(b1=5, b2=6))
    expected = answer(case.kernel, given)
    torch.use_deterministic_algorithms(True)
    try:
        found = answer(case.kernel, given)
    finally:
        torch.use_deterministic_algorithms(False)
    for part in found._fields:
        assert torch.equal(getattr(found, part), getattr(expected, part)), part


class Distances(Dataset[Tensor]):
    """Item i is the distance of pair i of a batch, computed where the item is."""

    def __init__(self, case: Case, given: Sequences) -> None:
        self.case, self.given = case, given

    def __len__(self) -> int:
        return len(self.given.x)

    def __getitem__(self, index: int) -> Tensor:
        return self.case.kernel(*(tensor[index : index + 1] for tensor in self.given))[0, 0]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CORE[:2], ids=str)
def test_data_loader_workers(case: Case, start: str, threads: Callable[[int], None]) -> None:
    given = sequences(Shape(b1=4, b2=4))
    # Threads that have run before a fork are gone after it.
    threads(2)
    expected = case.kernel(*given).diagonal()
    loader = DataLoader(Distances(case, given), batch_size=4, num_workers=1, multiprocessing_context=start, timeout=30)
    (found,) = loader
    torch.testing.assert_close(found, expected)


def put_answer(queue: Any, case: Case, given: Sequences) -> None:
    queue.put(answer(case.kernel, given).x_grad.numpy())


@pytest.mark.parametrize("case", CORE, ids=str)
def test_after_fork(case: Case, threads: Callable[[int], None]) -> None:
    given = sequences(Shape(b1=9, b2=17, n=16, m=17, d=16))
    threads(2)
    expected = answer(case.kernel, given).x_grad
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=put_answer, args=(queue, case, given), daemon=True)
    child.start()
    try:
        found = torch.from_numpy(queue.get(timeout=30))
    finally:
        child.kill()
        child.join()
    torch.testing.assert_close(found, expected)


def test_import_is_quiet_and_leaves_the_threads_alone() -> None:
    script = (
        "import torch; before = torch.get_num_threads()\n"
        "import scav_kernels, sys\n"
        "assert torch.get_num_threads() == before\n"
        "assert 'matplotlib' not in sys.modules and 'scav_model' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
