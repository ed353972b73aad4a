"""The standard set, its results file, and docs/benchmarks.md: `make bench`.

Other arguments go to pytest: `python -m benchmarks.run -k paper` adds to what is there. Interrupted, it leaves what it
has; `python -m benchmarks.report` writes the page from that. With `--device cuda` it runs those of the GPU, and names
the file after it; the page is the CPU's.
"""

import argparse
import json
import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.machine import ROOT, slug


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="file to write; by default named after the machine")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    known, others = parser.parse_known_args()
    path = known.results or ROOT / "benchmarks" / "results" / f"{slug(known.device)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not others:
        path.unlink(missing_ok=True)
    cases = ["-m", "gpu" if known.device == "cuda" else "not gpu", *others]
    failed = pytest.main([str(ROOT / "benchmarks"), "-v", "--benchmark-quiet", "--results", str(path), *cases])
    if path.exists() and known.device == "cpu":
        report.write(json.loads(path.read_text(encoding="utf-8")), report.DOCS)
    return failed


if __name__ == "__main__":
    sys.exit(main())
