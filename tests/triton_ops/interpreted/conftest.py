import pytest

from .calls import kernels


def pytest_configure(config: pytest.Config) -> None:
    """NumPy warns of the interpreter's ways, and where a GPU answers inf or NaN."""
    config.addinivalue_line("filterwarnings", "ignore:Conversion of an array with ndim > 0:DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore:(divide by zero|invalid value|overflow) encountered")


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program takes milliseconds here; two splits, where there are few pairs, are as good as a GPU's many."""
    monkeypatch.setattr(kernels, "PROGRAMS", 2)
