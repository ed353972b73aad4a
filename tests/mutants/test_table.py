"""The table of mutants fits the kernels, and the page that lists them fits the table and the tests."""

import pytest

from .gpu_table import GPU_MUTANTS
from .page import PAGE, ROOT, caught_by_the_page, page
from .table import MUTANTS, Mutant

CSRC = ROOT / "csrc"
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in CSRC.glob("cpu/*.cpp")}
# A file of kernels is named after its op, and may register the op on given costs too.
OPS = [
    *(name for name, text in SOURCES.items() if "TORCH_LIBRARY_IMPL" in text),
    *(f"{name}_from_cost" for name, text in SOURCES.items() if f'm.impl("{name}_from_cost"' in text),
]


@pytest.mark.parametrize("mutant", [*MUTANTS, *GPU_MUTANTS], ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place_of_its_file(mutant: Mutant) -> None:
    text = (CSRC / mutant.file).read_text(encoding="utf-8")
    assert mutant.applied_to(text) != text


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_compiled_with_one_file(mutant: Mutant) -> None:
    # Only the op's own file includes kernels (.inl); a header may be in several.
    assert mutant.file.endswith((".cpp", ".inl"))


def test_names_are_unique() -> None:
    every = [*MUTANTS, *GPU_MUTANTS]
    assert len({mutant.name for mutant in every}) == len(every)


def test_every_op_has_mutants() -> None:
    assert {mutant.op for mutant in MUTANTS} == set(OPS)


def test_the_page_lists_the_table() -> None:
    assert page(caught_by_the_page()) == PAGE.read_text(encoding="utf-8")


def test_the_page_says_what_catches_each() -> None:
    caught = caught_by_the_page()
    seen = [mutant for mutant in GPU_MUTANTS if not mutant.unseen]
    assert all(caught[mutant.name] for mutant in (*MUTANTS, *seen))


def test_the_page_names_tests_that_exist() -> None:
    for name in {name for functions in caught_by_the_page().values() for name in functions}:
        if name.startswith("simt/"):
            assert (ROOT / "tests" / name).exists(), name
            continue
        file, function = name.split("::")
        assert f"\ndef {function}(" in (ROOT / "tests" / "ops" / file).read_text(encoding="utf-8"), name
