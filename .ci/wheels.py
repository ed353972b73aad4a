"""Build wheels from the source package, and test them outside the tree with several versions of torch.

    wheels.py build PYTHON           build dist/*.whl in an empty folder, with the torch of this Python
    wheels.py test PYTHON...         install the wheel of each Python there, and test it
    wheels.py all PYTHON...          for each Python make environments of both constraint files, build, and test

`test` prints a table: wheel, torch, and what passed. A wheel is built with the oldest torch and runs with later ones.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
WORK = ROOT / "build" / "wheels"
# Torch's libraries are those of the environment. The kernels link no OpenMP: they run on torch's threads, so that the
# process has one OpenMP runtime, torch's.
EXCLUDED = ("libtorch*", "libc10*", "libcudart*")
PACKAGES = ("torch", "numpy", "setuptools", "wheel", "pybind11", "ninja", "pytest", "hypothesis")
TESTS = ("tests/ops/test_parity.py",)
# Where the environment has what the audio and feature files need.
DATA_TESTS = ("tests/data/test_frontends.py", "tests/data/test_store.py")
OPENMP = """
import torch, scav_kernels
scav_kernels.cdist(torch.randn(8, 9, 4), torch.randn(8, 9, 4), metric="dtw")
maps = open("/proc/self/maps").read().split()
print(len({path for path in maps if "libgomp" in path or "libiomp" in path or "libomp" in path}))
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return its output; show all of it if the command fails."""
    environment = {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def tag_of(python: Path) -> str:
    """Return the tag of a Python's wheels, such as cp311."""
    return run(python, "-c", "import sys; print('cp%d%d' % sys.version_info[:2])")


def build(python: Path) -> Path:
    """Return the wheel of the source package, built in an empty folder."""
    tag = tag_of(python)
    source, raw = WORK / tag / "source", WORK / tag / "raw"
    # Objects of an earlier build are used again where their sources are as old as they were.
    for folder in (source, raw, *(WORK / tag / "objects").glob("lib*")):
        shutil.rmtree(folder, ignore_errors=True)
    run(python, "setup.py", "--quiet", "sdist", f"--dist-dir={raw}")
    (archive,) = raw.glob("*.tar.gz")
    with tarfile.open(archive) as package:
        package.extractall(source, filter="data")
    (tree,) = source.iterdir()
    objects = WORK / tag / "objects"
    # Without --skip-build, bdist_wheel compiles all again.
    pack = ("bdist_wheel", "--skip-build", f"--dist-dir={raw}")
    run(python, "setup.py", "--quiet", "build", f"--build-base={objects}", *pack, cwd=tree)
    (wheel,) = raw.glob("*.whl")
    DIST.mkdir(exist_ok=True)
    for old in DIST.glob(f"*-{tag}-*.whl"):
        old.unlink()
    for old in DIST.glob("*.tar.gz"):
        old.unlink()
    shutil.copy(archive, DIST)
    excluded = [part for library in EXCLUDED for part in ("--exclude", library)]
    run(sys.executable, "-m", "auditwheel", "repair", "--plat", "auto", *excluded, "--wheel-dir", DIST, wheel)
    (repaired,) = DIST.glob(f"*-{tag}-*.whl")
    print(
        f"{repaired.name}: {repaired.stat().st_size / 2**20:.1f} MiB; {archive.name}: "
        f"{archive.stat().st_size / 2**20:.1f} MiB",
        flush=True,
    )
    return repaired


def test(python: Path) -> str:
    """Install the wheel of a Python there and test it in an empty folder; return the row of the table."""
    tag = tag_of(python)
    wheel = next(DIST.glob(f"*-{tag}-*.whl"), None)
    if wheel is None:
        raise SystemExit(f"expected a wheel for {tag} in {DIST}, found none; build it: make wheel, or make wheels")
    (archive,) = DIST.glob("*.tar.gz")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheel)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with tarfile.open(archive) as package:
            members = [
                member
                for member in package.getmembers()
                if member.name.partition("/")[2].startswith(("tests/", "pyproject.toml"))
            ]
            package.extractall(folder, members, filter="data")
        (tree,) = folder.iterdir()
        where, torch = run(
            python, "-c", "import scav_kernels, torch; print(scav_kernels.__file__, torch.__version__)", cwd=tree
        ).split()
        if not Path(where).is_relative_to(Path(python).absolute().parents[1]):
            raise SystemExit(f"expected the installed scav_kernels to be tested, got {where}")
        runtimes = run(python, "-c", OPENMP, cwd=tree)
        if runtimes != "1":
            raise SystemExit(f"expected one OpenMP runtime in the process with torch {torch}, got {runtimes}")
        program = "import sys; from scav_model.doctor import report; report(as_json=True)"
        findings = {finding["name"]: finding for finding in json.loads(run(python, "-c", program, cwd=tree))}
        for finding in (findings["kernels"], findings["ops, cpu"]):
            if finding["state"] != "ok":
                raise SystemExit(f"torch {torch}: {finding['name']}: {finding['found']}")
        pytest = (python, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "-o", "addopts=--strict-markers")
        passed = [run(*pytest, "-m", "not slow", *TESTS, cwd=tree)]
        if findings.get("torchaudio", {}).get("state") == "ok":
            passed.append(run(*pytest, "-m", "not slow", *DATA_TESTS, cwd=tree))
        counts = ", ".join(output.splitlines()[-1].partition(" in ")[0] for output in passed)
    return f"| {wheel.name} | {torch} | {findings['ops, cpu']['found']} | {counts} | {runtimes} |"


def environment(python: Path, constraints: str) -> Path:
    """Return the Python of an environment with the pinned packages that a build and its tests need."""
    folder = WORK / tag_of(python) / Path(constraints).stem
    if not (folder / "bin" / "python").exists():
        run(python, "-m", "venv", folder)
    made = folder / "bin" / "python"
    run(made, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", constraints, *PACKAGES)
    return made


def print_table(pythons: list[Path]) -> None:
    print("\n| wheel | torch | forward and backward of each op | tests of parity, of data | OpenMP runtimes |")
    print("|---|---|---|---|---|", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for row in executor.map(test, pythons):
            print(row, flush=True)


def main(command: str, *names: str) -> None:
    pythons = [Path(shutil.which(name) or name).absolute() for name in names]
    if command == "build":
        for python in pythons:
            build(python)
    elif command == "test":
        print_table(pythons)
    elif command == "all":
        oldest = [environment(python, "constraints.txt") for python in pythons]
        newest = [environment(python, "constraints-newest.txt") for python in pythons]
        for python in oldest:
            build(python)
        print_table([*oldest, *newest])
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:] or [""])
