"""Compares the fused sweep with the float64 reference at its edges; run by test_simt.py in the shim.

The same bits however operands come, and in any order of warps and lanes.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from scav_kernels import reference
from tests.ops.inputs import Sequences, Shape, sequences
from tests.simt.plugin import settings

# Every batch of 16-bit sequences is left to the fused sweep; with rows of x that stay in shared memory, or in slots of
# a ring, and block by block.
FUSED: dict[str, Any] = {"MULTIPROCESSORS": 0, "BLOCK_PAIRS": 0}
FUSED_SMALL = {**FUSED, "SHARED_BYTES": 204800, "SCRATCH_BYTES": 1}
WAYS = [{"ORDER": 0, **FUSED}, {"ORDER": 1, **FUSED}, {"ORDER": 2, **FUSED_SMALL}]

METRICS = [
    ("dtw", {}),
    ("dtw", {"cost": "sqeuclidean", "band": 2}),
    ("dtw", {"cost": "cosine"}),
    ("soft_dtw", {"gamma": 0.1}),
    ("soft_dtw", {"cost": "euclidean", "band": 1}),
]
# Around a panel's 16 rows, a block's 8 x's and 128 y's, and the ring's four slots of 32 features.
SHAPES = [
    Shape(b1=1, b2=1, n=1, m=1, d=1, ragged=False),
    Shape(b1=3, b2=5, n=16, m=7, d=33),
    Shape(b1=2, b2=66, n=17, m=3, d=8),
    Shape(b1=9, b2=3, n=50, m=9, d=64),
    Shape(b1=2, b2=130, n=25, m=2, d=16),
    Shape(b1=2, b2=2, n=40, m=3, d=200),
    Shape(b1=2, b2=2, n=18, m=2, d=500),
]


def near(dtype: torch.dtype) -> Sequences:
    """Steps of a few values each, which differ by a unit of their last place here and there."""
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(4, 33, generator=generator) + 1
    x, y = (one[torch.randint(4, (3, 20), generator=generator)] for _ in range(2))
    moved = torch.rand(y.shape, generator=generator) < 0.1
    return Sequences(x.to(dtype), (y * (1 + moved * 2 * torch.finfo(dtype).eps)).to(dtype), None, None)


def problems() -> Iterator[Sequences]:
    for dtype in (torch.bfloat16, torch.float16):
        for shape in SHAPES:
            yield sequences(shape, dtype)
        yield near(dtype)
    # Rows whose squares leave float32's range, for a cosine.
    yield sequences(Shape(d=5), torch.float32).map(lambda steps: (steps * 1e30).bfloat16())


def check(name: str, actual: Tensor, expected: Tensor, steps: int, smallest: float) -> None:
    """`smallest`: what a cost is the difference of."""
    finite = expected.isfinite()
    assert torch.equal(actual.isfinite(), finite), name
    # Costs of a path, each with an error of a few roundings.
    allowed = 4e-7 * (expected[finite].abs() + steps * max(smallest, expected[finite].abs().max().item() / 8))
    error = (actual.double() - expected)[finite].abs()
    assert (error <= allowed).all(), (name, (error / allowed).max().item())


def distances(given: Sequences, metric: str, options: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """And paths, of DTW."""
    lengths, band = (given.x_lengths, given.y_lengths), options.get("band")
    if metric == "soft_dtw":
        cost, gamma = options.get("cost", "sqeuclidean"), options.get("gamma", 1.0)
        return torch.ops.scav.soft_dtw(given.x, given.y, *lengths, gamma, cost, band, False, False, False), None
    arguments = options.get("cost", "euclidean"), band, 0.0, 1.0, False, False, None, False
    value, no_path = torch.ops.scav.dtw(given.x, given.y, *lengths, *arguments, False)
    again, path = torch.ops.scav.dtw(given.x, given.y, *lengths, *arguments, True)
    assert torch.equal(value, again), (metric, options)
    assert not no_path.numel()
    return value, path


def main() -> None:
    for number, given in enumerate(problems()):
        for metric, options in METRICS:
            large = given.x.float().abs().max() > 1e10
            if large and options.get("cost") != "cosine":
                continue
            name = f"{number}: {tuple(given.x.shape)}, {tuple(given.y.shape)}, {given.x.dtype} {metric} {options}"
            found = []
            for way in WAYS:
                with settings(**way):
                    found.append(distances(given, metric, options))
            actual, path = found[0]
            for value, other in found[1:]:
                assert torch.equal(value, actual), name
                assert path is None or torch.equal(path, other), name
            wide = given.map(Tensor.double)
            expected = getattr(reference, metric)(*wide, **options)
            if path is not None:
                check_paths(name, path, wide, options, expected)
            check(name, actual, expected, given.x.shape[1] + given.y.shape[1], float(options.get("cost") == "cosine"))


def check_paths(name: str, path: Tensor, given: Sequences, options: dict, expected: Tensor) -> None:
    """The cost along each path is the distance."""
    for i, j in torch.cartesian_prod(torch.arange(min(3, len(given.x))), torch.arange(min(3, len(given.y)))).tolist():
        if not expected[i, j].isfinite():
            continue
        n = len(given.x[i]) if given.x_lengths is None else int(given.x_lengths[i])
        m = len(given.y[j]) if given.y_lengths is None else int(given.y_lengths[j])
        x, y = given.x[i, :n], given.y[j, :m]
        if options.get("cost") == "cosine":
            cost = 1 - torch.nn.functional.cosine_similarity(x[:, None], y[None], dim=-1)
        else:
            cost = (x[:, None] - y[None]).norm(dim=-1) ** (2 if options.get("cost") == "sqeuclidean" else 1)
        s, t, total = n - 1, m - 1, 0.0
        for step in path[i, j].tolist():
            total += cost[s, t].item()
            if step == 3:
                break
            s, t = s - (step != 2), t - (step != 1)
        assert (s, t) == (0, 0), (name, s, t)
        assert abs(total - expected[i, j].item()) <= 1e-5 * (n + m) * max(1.0, cost.max().item()), name


if __name__ == "__main__":
    main()
