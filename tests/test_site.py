"""Links of the documentation, changed to those of the site."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("nbconvert")


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", Path(__file__).parents[1] / ".ci" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("source", "link", "expected"),
    [
        ("README.md", "[docs](docs/search.md#from-python)", "[docs](search.md#from-python)"),
        ("README.md", "![picture](docs/demo-alignment.png)", "![picture](demo-alignment.png)"),
        ("README.md", "[all pages](docs/README.md)", "[all pages](index.md)"),
        ("docs/search.md", "[sizes](engineering/sizing.md)", "[sizes](engineering/sizing.md)"),
        ("docs/search.md", "[notes](../benchmarks/NOTES.md)", "[notes](engineering/notes.md)"),
        ("docs/engineering/index.md", "[log](../../CHANGELOG.md)", "[log](../changelog.md)"),
        ("docs/install.md", "[table](../benchmarks/results/wheels.json)", "[table](results/wheels.json)"),
        ("docs/search.md", "[notebook](notebooks/search.ipynb)", "[notebook](notebooks/search.md)"),
        ("docs/notebooks/search.ipynb", "[serve](../serve.md)", "[serve](../serve.md)"),
        ("docs/install.md", "[code](../setup.py)", "code"),
        ("docs/install.md", "[torch](https://pytorch.org)", "[torch](https://pytorch.org)"),
        ("docs/install.md", "[below](#from-source)", "[below](#from-source)"),
    ],
)
def test_links(site: ModuleType, source: str, link: str, expected: str) -> None:
    place = site.place_on_site(source)
    assert site.with_site_links(f"See {link}.", source, place) == f"See {expected}."


@pytest.mark.parametrize("name", ["distances", "search"])
def test_a_notebook_is_a_page_with_the_pictures_of_its_outputs(site: ModuleType, name: str) -> None:
    page, pictures = site.notebook_page(Path(__file__).parents[1] / "docs" / "notebooks" / f"{name}.ipynb")
    assert page.startswith("# Notebook: ")
    assert "```python" in page
    assert pictures
    for file, picture in pictures.items():
        assert file.startswith(f"{name}_files/")
        assert f"]({file})" in page
        assert picture.startswith(b"\x89PNG")
