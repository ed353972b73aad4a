"""Barycenters by the programs of docs/recipes.md are those of tslearn."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tslearn.barycenters import dtw_barycenter_averaging, softdtw_barycenter

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def run(word: str) -> dict[str, Any]:
    """Return the variables of the one program on the page that holds the word."""
    programs = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (program,) = (source for source in programs if word in source)
    names: dict[str, Any] = {}
    exec(compile(program, str(PAGE), "exec"), names)
    return names


@pytest.mark.slow
def test_soft_dtw_barycenter() -> None:
    names = run("LBFGS")
    series = names["series"].numpy()
    expected = softdtw_barycenter(series, gamma=1.0, init=series.mean(0), max_iter=500, tol=1e-10)
    found = names["barycenter"].detach().numpy()
    assert np.abs(found - series.mean(0)).max() > 0.1
    assert found == pytest.approx(expected, abs=1e-3)


# tslearn compiles for seconds.
@pytest.mark.slow
def test_dtw_barycenter_averaging() -> None:
    names = run("einsum")
    series = names["series"].numpy()
    expected = dtw_barycenter_averaging(series, init_barycenter=series[0], max_iter=30, tol=0.0)
    assert names["barycenter"].numpy() == pytest.approx(expected, abs=1e-9)
