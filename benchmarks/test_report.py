"""The page and its plots can be made of whatever this run has recorded."""

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks import report


def test_report(results: dict[str, Any], tmp_path: Path) -> None:
    shutil.copy(report.DOCS / report.PAGE, tmp_path)
    report.write(json.loads(json.dumps(results)), tmp_path)
    page = (tmp_path / report.PAGE).read_text(encoding="utf-8")
    assert all(f"({name})" in page and (tmp_path / name).exists() for name in report.PLOTS)
    for section in ("ops", "peers"):
        assert all(f"| `{each['op']}` |" in page for each in results.get(section, {}).values())
