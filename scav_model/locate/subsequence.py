"""Subsequence DTW against a sequence that comes in blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scav_kernels.ops.costs import ground_cost

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class SubsequenceDTW:
    """DTW of a query with the nearest part of a long sequence that ends at each of its steps.

    For a query of n steps and ground costs c (n, M), this is the recursion of ``scav_kernels.dtw`` with both ends open,

        r[s, t] = min(r[s−1, t−1] + w c[s, t], r[s−1, t] + c[s, t] + p, r[s, t−1] + c[s, t] + p),   r[0, t] = c[0, t],

    with the step penalty p and the diagonal weight w; ties are as there. Of each end t, it keeps r[n−1, t] and the step
    in which that path began: 16 bytes. All else that it holds depends on n and on the size of a block.

    Source: M. Müller, Fundamentals of Music Processing, 2nd ed., 2021, section 7.2.3.

    Args:
        query: (n, D) steps.
        cost: "euclidean", "sqeuclidean" or "cosine".
        step_penalty: p ≥ 0, in the cost's unit.
        diagonal_weight: w > 0.
    """

    def __init__(
        self, query: Tensor, *, cost: str = "euclidean", step_penalty: float = 0.0, diagonal_weight: float = 1.0
    ) -> None:
        self._query, self._cost = query, cost
        self._penalty, self._weight = step_penalty, diagonal_weight
        n = len(query)
        # Cells of two diagonals and the starts of their paths, by s. No path comes from before the sequence.
        self._before, self._last = np.full(n, np.inf), np.full(n, np.inf)
        self._starts_before, self._starts_last = np.zeros(n, np.int64), np.zeros(n, np.int64)
        # Costs (n, n − 1) of the last columns, of which the diagonals still need cells.
        self._columns: Floats = np.full((n, n - 1), np.inf)
        self._diagonal = 0  # s + t of the next diagonal
        self._distances: list[Floats] = []
        self._starts: list[Integers] = []

    def add(self, steps: Tensor) -> None:
        """Take the next steps (T, D) of the sequence."""
        self._sweep(ground_cost(self._query, steps, self._cost).double().numpy())

    def finish(self) -> tuple[Floats, Integers]:
        """Return the distance (M,) and the first step (M,) of the part that ends at each step of the sequence.

        Nothing may be added afterwards.
        """
        n = len(self._query)
        self._sweep(np.full((n, n - 1), np.inf))
        # The first n − 1 diagonals end before the sequence begins.
        distances = np.concatenate([np.zeros(0), *self._distances])[n - 1 :]
        return distances, np.concatenate([np.zeros(0, np.int64), *self._starts])[n - 1 :]

    def _sweep(self, costs: Floats) -> None:
        """Compute the diagonals that the next columns (n, T) complete: of each, the cells (s, d − s)."""
        n, count = costs.shape
        columns = np.concatenate((self._columns, costs), axis=1)  # (n, n − 1 + T)
        self._columns = columns[:, count:]
        # Row i is the diagonal that ends in column i of `costs`.
        down, right = columns.strides
        diagonals = np.lib.stride_tricks.as_strided(
            columns[:, n - 1 :], (count, n), (right, down - right), writeable=False
        )
        diagonals = np.ascontiguousarray(diagonals)
        weighted = diagonals if self._weight == 1 else self._weight * diagonals
        raised = diagonals if self._penalty == 0 else diagonals + self._penalty
        distances, starts = np.empty(count), np.empty(count, np.int64)
        before, last = self._before, self._last
        starts_before, starts_last = self._starts_before, self._starts_last
        for row in range(count):
            cells, origins = np.empty(n), np.empty(n, np.int64)
            cells[0], origins[0] = diagonals[row, 0], self._diagonal
            best, origin = before[:-1] + weighted[row, 1:], starts_before[:-1]
            for neighbor, its_starts in ((last[:-1], starts_last[:-1]), (last[1:], starts_last[1:])):
                other = neighbor + raised[row, 1:]
                origin = np.where(other < best, its_starts, origin)
                best = np.minimum(best, other)
            cells[1:], origins[1:] = best, origin
            before, last, starts_before, starts_last = last, cells, starts_last, origins
            distances[row], starts[row] = cells[-1], origins[-1]
            self._diagonal += 1
        self._before, self._last, self._starts_before, self._starts_last = before, last, starts_before, starts_last
        self._distances.append(distances)
        self._starts.append(starts)


def nearest_parts(distances: Floats, starts: Integers, k: int) -> list[tuple[int, int]]:
    """Return the first and the last step of up to k parts, the nearest first.

    The first is the nearest part of all; each of the others is the nearest that shares no step with those before it.
    Ties go to the earlier end. Infinitely far parts are left out.

    Args:
        distances: (M,) of the part that ends at each step.
        starts: (M,) the first step of that part.
        k: parts to return at most.
    """
    left = np.where(np.isfinite(distances), distances, np.inf)
    ends = np.arange(len(left))
    parts: list[tuple[int, int]] = []
    while len(parts) < k and len(left):
        end = int(left.argmin())
        if left[end] == np.inf:
            break
        start = int(starts[end])
        parts.append((start, end))
        left[(ends >= start) & (starts <= end)] = np.inf
    return parts
