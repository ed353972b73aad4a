"""Other libraries, and plain PyTorch, in their best configuration.

Where a library takes costs, or a function for them, it gets those of all pairs from one `torch.cdist`, though it may
know only pairs of their own; clips are repeated only for what insists on clips.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import elsewhere, plain
from benchmarks.cases import DIRECTIONS, OPS, OURS, ours
from benchmarks.machine import ROOT, missing

Distance = Callable[[Tensor, Tensor], Tensor]
ITERATIONS = 50
EPSILON = 0.05


@dataclass(frozen=True)
class Peer:
    """`load` imports the library, or raises ImportError, and returns its distances of all pairs: (x, y) -> (B1, B2).

    `options` are what our op takes to compute the same.
    """

    op: str
    name: str
    load: Callable[[], Distance]
    options: dict[str, Any] = field(default_factory=dict)
    gradient: bool = True
    # Whether the first call for each shape compiles.
    compiles: bool = False
    device: str = "cpu"
    # What it should answer, where that is not what our op does.
    reference: Callable[..., Tensor] | None = None

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"

    @property
    def directions(self) -> tuple[str, ...]:
        return DIRECTIONS if self.gradient else DIRECTIONS[:1]


def pair_costs(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean, (B1 · B2, N, M)."""
    return plain.costs(x, y).transpose(1, 2).flatten(0, 1)


def repeated(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(B1 · B2, N, D) and (B1 · B2, M, D), all pairs."""
    return x.repeat_interleave(len(y), 0), y.repeat(len(x), 1, 1)


def placeholders(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs with the right lengths and no features, for a library that only hands them to our cost function."""
    return tuple(steps.new_zeros(len(x) * len(y), steps.shape[1], 1) for steps in (x, y))


def dtw_per_step(x: Tensor, y: Tensor) -> Tensor:
    """DTW divided by the number of steps on the path."""
    cost = plain.costs(x, y)
    sums = plain.dtw_of_costs(cost)
    (on_path,) = torch.autograd.grad(sums.sum(), cost, retain_graph=True)
    return sums / on_path.sum((1, 3))


def torchdtw() -> Distance:
    from torchdtw import dtw_batch

    def distance(x: Tensor, y: Tensor) -> Tensor:
        lengths = (torch.full((len(steps),), steps.shape[1]) for steps in (x, y))
        return dtw_batch(plain.costs(x, y).transpose(1, 2).contiguous(), *lengths, symmetric=False)

    return distance


def tslearn_dtw() -> Distance:
    from tslearn.metrics import cdist_dtw

    return lambda x, y: torch.as_tensor(cdist_dtw(x.numpy(), y.numpy())).square()


def dtaidistance_dtw() -> Distance:
    from dtaidistance.dtw_ndim import distance_matrix_fast

    def distance(x: Tensor, y: Tensor) -> Tensor:
        # It knows all pairs of one list.
        clips = [steps.double().numpy() for steps in (*x, *y)]
        block = ((0, len(x)), (len(x), len(clips)))
        out = distance_matrix_fast(clips, block=block, parallel=True, inner_dist="euclidean")
        return torch.as_tensor(out[: len(x), len(x) :])

    return distance


def aeon_dtw() -> Distance:
    arrays = elsewhere.all_pairs("aeon", ROOT / ".venv-aeon" / "bin" / "python", torch.get_num_threads())
    return lambda x, y: torch.as_tensor(arrays(x.numpy(), y.numpy()))


def tslearn_soft_dtw() -> Distance:
    from tslearn.metrics import SoftDTWLossPyTorch

    def distance(x: Tensor, y: Tensor) -> Tensor:
        loss = SoftDTWLossPyTorch(gamma=1.0, dist_func=lambda *_: pair_costs(x, y).square())
        return loss(*placeholders(x, y)).view(len(x), len(y))

    return distance


def pysdtw() -> Distance:
    from pysdtw import SoftDTW

    def distance(x: Tensor, y: Tensor) -> Tensor:
        loss = SoftDTW(gamma=1.0, dist_func=lambda *_: pair_costs(x, y).square(), use_cuda=False)
        return loss(*placeholders(x, y)).view(len(x), len(y))

    return distance


def torchsoftdtw() -> Distance:
    from torchsoftdtw import soft_dtw

    return lambda x, y: soft_dtw(pair_costs(x, y).square(), gamma=1.0).view(len(x), len(y))


def from_jax(of_cost: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """Costs (B, N, M) -> (B,), differentiable, of JAX's function of one pair's costs (N, M)."""
    import jax

    # Pairs at a time, whose costs stay in cache.
    function = partial(jax.lax.map, of_cost, batch_size=64)
    forward = jax.jit(function)
    forward_to_differentiate = jax.jit(partial(jax.vjp, function))
    pull_back = jax.jit(lambda pullback, gradient: pullback(gradient))

    def to_torch(array: Any) -> Tensor:
        return torch.from_dlpack(jax.block_until_ready(array))

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, cost: Tensor) -> Tensor:
            cost = jax.dlpack.from_dlpack(cost.detach())
            if not ctx.needs_input_grad[0]:
                return to_torch(forward(cost))
            value, ctx.pullback = forward_to_differentiate(cost)
            return to_torch(value)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            (gradient,) = pull_back(ctx.pullback, jax.dlpack.from_dlpack(gradient.contiguous()))
            return to_torch(gradient)

    return Function.apply


def ott_soft_dtw() -> Distance:
    from ott.geometry.costs import SoftDTW

    given = SimpleNamespace(all_pairs=lambda cost, _: cost)
    of_cost = SoftDTW(gamma=1.0, ground_cost=given)
    soft_dtw = from_jax(lambda cost: of_cost(cost, cost))
    return lambda x, y: soft_dtw(pair_costs(x, y).square()).view(len(x), len(y))


def ott_sinkhorn(lse_mode: bool) -> Distance:
    from ott.geometry.geometry import Geometry
    from ott.solvers import linear

    stop = {f"{which}_iterations": ITERATIONS for which in ("min", "inner", "max")}

    def of_cost(cost: Any) -> Any:
        geometry = Geometry(cost_matrix=cost, epsilon=EPSILON)
        return linear.solve(geometry, lse_mode=lse_mode, threshold=0.0, **stop).reg_ot_cost

    sinkhorn = from_jax(of_cost)
    return lambda x, y: sinkhorn(pair_costs(x, y)).view(len(x), len(y))


def pot(method: str) -> Distance:
    from ot.batch import solve_batch

    def distance(x: Tensor, y: Tensor) -> Tensor:
        stop = {"max_iter": ITERATIONS, "tol": 0.0}
        solved = solve_batch(pair_costs(x, y), EPSILON, method=method, reg_type="kl", **stop)
        return solved.value.view(len(x), len(y))

    return distance


def geomloss() -> Distance:
    from geomloss import SamplesLoss

    # It lowers epsilon from the diameter on by a factor: here 50 times just above the last one.
    schedule = {"blur": EPSILON, "diameter": 1.001 * EPSILON, "scaling": 1.001 ** (-1 / (ITERATIONS - 2))}
    loss = SamplesLoss(p=1, debias=False, cost=torch.cdist, backend="tensorized", **schedule)
    return lambda x, y: loss(*repeated(x, y)).view(len(x), len(y))


def on_cuda(load: Callable[[], Distance]) -> Distance:
    if reason := missing("cuda"):
        raise ImportError(reason)
    return load()


def flash_sinkhorn() -> Distance:
    from flash_sinkhorn import SamplesLoss

    fixed = {"use_epsilon_scaling": False, "eps": EPSILON, "n_iters": ITERATIONS}
    loss = SamplesLoss(backend="alternating", allow_tf32=False, **fixed)
    return lambda x, y: loss(*repeated(x, y)).view(len(x), len(y))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True)


def late_interaction_kernels() -> Distance:
    """MaxSim by its Triton kernels, which need a GPU."""
    from late_interaction_kernels import maxsim

    return lambda x, y: 1 - maxsim(F.normalize(x, dim=-1), F.normalize(y, dim=-1)) / x.shape[1]


def compiled_sinkhorn() -> Distance:
    return partial(plain.sinkhorn, iteration=compiled(plain.sinkhorn_iteration))


INTERPOLATED = partial(Peer, "interpolated_euclidean")
DTW = partial(Peer, "dtw")
SOFT_DTW = partial(Peer, "soft_dtw")
CHAMFER = partial(Peer, "chamfer", options={"cost": "cosine"})
FIFTY = {"epsilon": EPSILON, "max_iterations": ITERATIONS, "tolerance": 0.0}
SINKHORN = partial(Peer, "sinkhorn", options=FIFTY)

PEERS = [
    INTERPOLATED("PyTorch, cdist per step", lambda: plain.interpolated_euclidean_by_step),
    INTERPOLATED("PyTorch, broadcast", lambda: plain.interpolated_euclidean_by_broadcast),
    INTERPOLATED("torch.compile", lambda: compiled(plain.interpolated_euclidean_by_broadcast), compiles=True),
    DTW("PyTorch, by row", lambda: plain.dtw),
    DTW("torchdtw", torchdtw, gradient=False, reference=dtw_per_step),
    DTW("tslearn", tslearn_dtw, options={"cost": "sqeuclidean"}, gradient=False),
    DTW("dtaidistance", dtaidistance_dtw, gradient=False),
    DTW("aeon", aeon_dtw, options={"cost": "sqeuclidean"}, gradient=False),
    SOFT_DTW("PyTorch, by anti-diagonal", lambda: plain.soft_dtw),
    SOFT_DTW("tslearn", tslearn_soft_dtw),
    SOFT_DTW("pysdtw", pysdtw),
    SOFT_DTW("torchsoftdtw", torchsoftdtw),
    SOFT_DTW("ott-jax", ott_soft_dtw, compiles=True),
    CHAMFER("PyTorch, einsum", lambda: plain.chamfer),
    CHAMFER("late-interaction-kernels, CUDA", partial(on_cuda, late_interaction_kernels), device="cuda"),
    SINKHORN("PyTorch, log domain", lambda: plain.sinkhorn),
    SINKHORN("torch.compile", compiled_sinkhorn, compiles=True),
    SINKHORN("POT", partial(pot, "sinkhorn")),
    SINKHORN("POT, log domain", partial(pot, "log_sinkhorn")),
    SINKHORN("GeomLoss", geomloss),
    SINKHORN("ott-jax", partial(ott_sinkhorn, lse_mode=False), compiles=True),
    SINKHORN("ott-jax, log domain", partial(ott_sinkhorn, lse_mode=True), compiles=True),
    SINKHORN(
        "FlashSinkhorn, CUDA",
        partial(on_cuda, flash_sinkhorn),
        options={**FIFTY, "cost": "sqeuclidean"},
        device="cuda",
    ),
]
# What is plain PyTorch runs on a GPU as it is.
PEERS += [
    replace(peer, name=f"{peer.name}, CUDA", load=partial(on_cuda, peer.load), device="cuda")
    for peer in PEERS
    if peer.name.startswith(("PyTorch", "torch.compile"))
]


CONTENDERS = {
    **{(op, OURS): Peer(op, OURS, partial(ours, op)) for op in OPS},
    **{(peer.op, peer.name): peer for peer in PEERS},
}
