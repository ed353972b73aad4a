"""Runs the tests of one op with its kernels taken from another library, and writes which test functions failed.

Arguments: the library, the op, the file to write. It stops at the third function; further parameters of one that has
failed are skipped.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

import scav_kernels  # noqa: F401  (registers the kernels that the library's replace)

OPS = Path(__file__).parents[1] / "ops"
# In this order: what is quick and telling comes first. Other files test the interface, or in processes of their own,
# which would not have the library.
FILES = [
    "test_closed_form.py",
    "test_parity.py",
    "test_from_cost.py",
    "test_blocked_ways.py",
    "test_near_steps.py",
    "test_long_sequences.py",
    "test_padding.py",
    "test_gradients.py",
    "test_invariance.py",
    "test_hard_numbers.py",
    "test_bounds.py",
    "test_series_search.py",
    "test_short_steps.py",
    "test_sinkhorn_convergence.py",
    "test_sinkhorn_weights.py",
    "test_chamfer_properties.py",
    "test_few_features.py",
    "test_pairs.py",
    "test_dtw_options.py",
    "test_wavefront.py",
]
# pytest's -k, which looks for parts of names.
CHOSEN = {
    "interpolated_euclidean": "interpolat and not cosine",
    "interpolated_cosine": "interpolated_cosine or nearest_steps",
    "chamfer": "chamfer",
    "dtw": "dtw and not soft_dtw and not from_cost",
    "soft_dtw": "soft_dtw and not from_cost and not divergence",
    "sinkhorn": "sinkhorn and not from_cost and not divergence",
    "dtw_from_cost": "(from_cost or blocked_ways) and not soft_dtw and not sinkhorn",
    "soft_dtw_from_cost": "(from_cost or blocked_ways) and soft_dtw",
    "sinkhorn_from_cost": "(from_cost or blocked_ways) and (sinkhorn or transport) or step_far_from_all",
    "search": "aligned_bounds or nearest_by_a_bound or listed or rounding_is_allowed or survivors",
    "search_all_pairs": "selected_pairs",
    "search_series": "series_search",
    "search_summaries": "segment_means or largest_norms",
}
ENOUGH = 3


class Catcher:
    """Collects the functions that fail."""

    def __init__(self) -> None:
        self.functions: list[str] = []

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if len(self.functions) == ENOUGH:
            item.session.shouldfail = "caught"
            pytest.skip("enough have failed")
        if function(item.nodeid) in self.functions:
            pytest.skip("has failed")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.functions.append(function(report.nodeid))


def function(nodeid: str) -> str:
    """tests/ops/test_parity.py::test_paired[dtw] -> test_parity.py::test_paired"""
    return nodeid.split("[")[0].rpartition("/")[2]


def main() -> int:
    library, op, report = sys.argv[1:]
    torch.ops.load_library(library)
    catcher = Catcher()
    files = [str(OPS / name) for name in FILES]
    # The process of that test would not have the library's kernels.
    chosen = f"({CHOSEN[op]}) and not test_fresh_memory"
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-k", chosen, *files], plugins=[catcher])
    Path(report).write_text(json.dumps(catcher.functions))
    return 0 if status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else status


if __name__ == "__main__":
    sys.exit(main())
