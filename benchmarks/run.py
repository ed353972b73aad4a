"""The standard set, its results file, and docs/benchmarks.md: `make bench`.

Other arguments go to pytest: `python -m benchmarks.run -k paper` adds to what is there. Interrupted, it leaves what it
has; `python -m benchmarks.report` writes the page from that.
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
    known, others = parser.parse_known_args()
    path = known.results or ROOT / "benchmarks" / "results" / f"{slug()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not others:
        path.unlink(missing_ok=True)
    failed = pytest.main([str(ROOT / "benchmarks"), "-v", "--benchmark-quiet", "--results", str(path), *others])
    if path.exists():
        report.write(json.loads(path.read_text(encoding="utf-8")), report.DOCS)
    return failed


if __name__ == "__main__":
    sys.exit(main())
