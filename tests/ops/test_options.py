"""The types of a public function's options are those of its annotations: no shared table lists them."""

import inspect
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest

import scav_kernels
from scav_kernels.ops import checks
from scav_kernels.ops.checks import check_options, declare_options

OPS = [
    name
    for name in scav_kernels.__all__
    if name.startswith(("chamfer", "dtw", "interpolated_", "sinkhorn", "soft_dtw")) and hasattr(scav_kernels, name)
]


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(checks, "_OPTIONS", dict(checks._OPTIONS))
        yield


def declare_toy() -> None:
    @declare_options
    def toy(
        x: Any,
        *,
        power: float = 2.0,
        weights: list | None = None,
        axis: "int | None" = None,
        strict: bool = False,
        name: str = "a",
        either: int | str = 3,
    ) -> None:
        """Distance with options that no other has."""


@pytest.mark.parametrize("op", OPS)
def test_every_option_of_a_public_function_is_declared(op: str) -> None:
    function = getattr(scav_kernels, op)
    options = [p for p in inspect.signature(function).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert check_options(op) == tuple(option.default for option in options)


def test_options_are_completed_in_the_order_of_the_signature() -> None:
    declare_toy()
    assert check_options("toy", name="b", power=1) == (1, None, None, False, "b", 3)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("power", "2", "a number, got '2' of type str"),
        ("power", True, "a number, got True of type bool"),
        ("weights", 1, "a list or None, got 1 of type int"),
        ("axis", 1.5, "an int or None, got 1.5 of type float"),
        ("strict", 1, "a bool, got 1 of type int"),
        ("name", None, "a str, got None of type NoneType"),
        ("either", 1.5, "an int or a str, got 1.5 of type float"),
    ],
)
def test_a_new_option_of_a_new_distance_is_checked(option: str, value: Any, words: str) -> None:
    declare_toy()
    with pytest.raises(TypeError, match=rf"^toy: expected {option} to be {words}; see help\(scav_kernels.toy\)$"):
        check_options("toy", **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [("power", np.float32(1)), ("power", np.int64(1)), ("weights", [1.0]), ("axis", np.int64(3)), ("either", "x")],
)
def test_values_of_the_annotated_types_are_accepted(option: str, value: Any) -> None:
    declare_toy()
    assert value in check_options("toy", **{option: value})


def test_integers_of_too_many_bits() -> None:
    declare_toy()
    with pytest.raises(ValueError, match="toy: expected axis to be an int or None of 64 bits, got an int of 71 bits"):
        check_options("toy", axis=2**70)
    with pytest.raises(ValueError, match="toy: expected power to be a number of 64 bits, got an int of 1329 bits"):
        check_options("toy", power=10**400)


def test_an_option_that_is_not_declared() -> None:
    with pytest.raises(TypeError, match="dtw: expected an option of dtw, got 'gamma'; it takes cost, band"):
        check_options("dtw", gamma=1.0)
    with pytest.raises(TypeError, match="toy: expected an option of toy, got 'power'; it takes none"):
        check_options("toy", power=1.0)


@pytest.mark.parametrize("annotation", [Literal["x", "y"], list[int], inspect.Parameter.empty, "1"])
def test_an_annotation_that_is_no_class(annotation: Any) -> None:
    def toy(*, option: Any = None) -> None: ...

    toy.__annotations__["option"] = annotation
    with pytest.raises(TypeError, match="expected an option annotated with a class or a union of classes, got"):
        declare_options(toy)
