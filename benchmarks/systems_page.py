"""Tables of docs/retrieval.md, from the results of benchmarks/systems.py."""

import json
from pathlib import Path
from typing import Any

from benchmarks.retrieval_page import METRICS, PAGE, markdown, replace_between

BEGIN = "<!-- What follows is made by benchmarks/systems.py -->\n"
END = "<!-- End of what benchmarks/systems.py made -->\n"
HEADER = ["system", "R@1, %", "R@10, %", "queries/s", "ms a query", "index, MB", "extra memory, MB", "build, s"]

Record = dict[str, Any]


def write(results: Path, docs: Path) -> None:
    """Rewrite the part of the page in `docs` between the marks, from the files in `results`."""
    replace_between(docs / PAGE, BEGIN, END, text(results))


def text(results: Path) -> str:
    names = {"synthetic": "{clips:,} synthetic clips, {queries} queries"}
    names |= {f"demo-{metric}": f"The demo's {{clips}} test clips, encoded by the model trained with {name}"
              for metric, name in METRICS.items()}  # fmt: skip
    parts = []
    for name, title in names.items():
        path = results / f"{name}.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            table = markdown(HEADER, [cells(system) for system in record["systems"]])
            parts.append(f"{title.format(**record)}, D = {record['dim']}:\n\n{table}\n{conditions(record)}\n")
    return "\n".join(parts)


def cells(system: Record) -> list[str]:
    if "skipped" in system:
        return [f"{system['system']}: {system['skipped']}", *["–"] * (len(HEADER) - 1)]
    return [
        system["system"],
        f"{100 * system['recall_at_1']:.0f}",
        f"{100 * system['recall_at_10']:.0f}",
        f"{system['queries_per_second']:.3g}",
        f"{1000 / system['queries_per_second']:.3g}",
        f"{system['index_bytes'] / 1e6:,.0f}",
        f"{system['extra_bytes'] / 1e6:,.0f}",
        f"{system['seconds_build'] + system['seconds_first']:.3g}",
    ]


def conditions(record: Record) -> str:
    """Return a line with the machine and the versions."""
    machine = record["machine"]
    plaid = machine["fast_plaid"]
    beside = (
        " The machine had other work: compare rows, and take no time as it is." if record["beside_other_work"] else ""
    )
    return (
        f"*{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}, scav_kernels "
        f"{machine['scav_kernels']} at `{str(machine['commit'])[:12]}`, "
        f"{'no fast-plaid' if plaid is None else f'fast-plaid {plaid}'}; all queries at once, medians.{beside}*"
    )
