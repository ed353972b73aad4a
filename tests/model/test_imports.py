"""Imports point one way: no files and no folders import each other, and nothing imports the commands."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("scav_kernels", "scav_model")
# What alone may import them: themselves, and the file that is run as `python -m scav_model.train`.
ENTRY_POINTS = ("scav_model.cli", "scav_model.experiments")
COMPILED = "scav_kernels._C"


def modules(root: Path) -> dict[str, Path]:
    """Return every file of the packages by its module's name; a package's is that of its __init__.py."""
    files = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a file, those in functions too, less what only type checkers read or `python -m` runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "__name__ == '__main__'"):
            continue
        yield child
        yield from statements(child)


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}: expected absolute imports"
            names = [(f"{node.module}.{alias.name}", node.module) for alias in node.names]
        else:
            continue
        found.update(full if full in known else module for full, module in names if COMPILED not in (full, module))
    return found & known.keys()


def imports(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {name: imported(path, known) - {name} for name, path in known.items()}


def children(arrows: dict[str, set[str]], folder: str) -> dict[str, set[str]]:
    """Return the imports between a package's files and folders, each folder as one."""

    def child(name: str) -> str | None:
        if name == folder:
            return f"{name}.__init__"
        below = name.removeprefix(f"{folder}.")
        return f"{folder}.{below.split('.')[0]}" if below != name else None

    found: dict[str, set[str]] = {}
    for name, targets in arrows.items():
        if (start := child(name)) is not None:
            ends = {end for target in targets if (end := child(target)) is not None and end != start}
            found.setdefault(start, set()).update(ends)
    return found


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Return the names of one circle; empty where there is none."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for target in sorted(arrows.get(name, ())):
            if found := walk(target, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := walk(name, []))), [])


def circles(root: Path) -> list[list[str]]:
    arrows = imports(root)
    packages = {name for name, path in modules(root).items() if path.name == "__init__.py"}
    levels = [arrows, *(children(arrows, folder) for folder in sorted(packages))]
    return [found for level in levels if (found := circle(level))]


def outsiders(root: Path) -> list[str]:
    """Return imports of the commands from elsewhere; the commands may import the experiments."""

    def inside(name: str, package: str) -> bool:
        return name == package or name.startswith(f"{package}.")

    return [
        f"{name} imports {target}"
        for name, targets in imports(root).items()
        for target in sorted(targets)
        for package in ENTRY_POINTS
        if inside(target, package) and not any(inside(name, other) for other in (package, "scav_model.cli"))
    ]


def test_imports_form_no_circle() -> None:
    assert circles(ROOT) == []


def test_only_the_entry_points_import_the_commands() -> None:
    assert outsiders(ROOT) == []


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in path.parents:
            if folder == root:
                break
            (folder / "__init__.py").touch()
    return root


@pytest.mark.parametrize(
    "files",
    [
        {"scav_model/a.py": "import scav_model.b", "scav_model/b.py": "from scav_model.a import x"},
        {"scav_model/a.py": "from scav_model import b", "scav_model/b.py": "def f():\n    from scav_model import a"},
        {
            "scav_model/p/a.py": "from scav_model.q import a",
            "scav_model/q/a.py": "x = 1",
            "scav_model/q/b.py": "from scav_model.p import b",
            "scav_model/p/b.py": "x = 1",
        },
        {"scav_model/p/__init__.py": "from scav_model.p.a import x", "scav_model/p/a.py": "from scav_model.p import x"},
    ],
    ids=["files", "in a function", "folders", "a package and its file"],
)
def test_a_circle_is_found(tmp_path: Path, files: dict[str, str]) -> None:
    assert circles(written(tmp_path, files))


def test_an_import_of_a_command_is_found(tmp_path: Path) -> None:
    files = {
        "scav_model/cli/run.py": "from scav_model.experiments.demo import demo",
        "scav_model/experiments/demo.py": "demo = 1",
        "scav_model/a.py": "def f():\n    from scav_model.cli import run",
        "scav_model/train.py": "if __name__ == '__main__':\n    from scav_model.cli import run",
        "scav_model/b.py": "from scav_model.experiments.demo import demo",
    }
    assert outsiders(written(tmp_path, files)) == [
        "scav_model.a imports scav_model.cli.run",
        "scav_model.b imports scav_model.experiments.demo",
    ]
