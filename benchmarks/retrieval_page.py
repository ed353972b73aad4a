"""Tables of what benchmarks/retrieval.py measured, in docs/retrieval.md."""

import json
from pathlib import Path
from typing import Any

PAGE = "retrieval.md"
BEGIN = "<!-- What follows is made by benchmarks/retrieval.py -->\n"
END = "<!-- End of what is made -->\n"
NAMES = {"interpolated_euclidean": "interpolated Euclidean", "dtw": "DTW", "sinkhorn": "Sinkhorn"}

Record = dict[str, Any]


def write(results: Path, docs: Path) -> None:
    """Rewrites what is between the marks of the page in `docs` by what is in `results`."""
    page = docs / PAGE
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    page.write_text(before + BEGIN + "\n" + text(results) + "\n" + END + after, encoding="utf-8")


def text(results: Path) -> str:
    figures = results / "figures.json"
    parts = [figures_table(json.loads(figures.read_text(encoding="utf-8")))] if figures.exists() else []
    for folder in sorted(path.parent for path in results.glob("*/table.md")):
        table = (folder / "table.md").read_text(encoding="utf-8")
        parts.append(f"`{folder.name}`: {table}\n![Recall against cost](retrieval-{folder.name}.png)\n")
    return "\n".join(parts)


def figures_table(figures: dict[str, Record]) -> str:
    """One line per metric, and where each was measured."""
    heads = [
        "distance",
        "queries × items",
        "scored in full",
        "pruned, s",
        "brute force, s",
        "times faster",
        "k′ by bounds",
        "its recall",
        "s",
        "times faster",
        "k′ by means",
    ]
    lines = ["| " + " | ".join(heads) + " |", "| --- " + "| ---: " * (len(heads) - 1) + "|"]
    notes = []
    for metric, name in NAMES.items():
        if metric in figures:
            found = figures[metric]
            lines.append("| " + " | ".join(cells(name, found)) + " |")
            notes.append(note(name, found))
    return "\n".join([*lines, "", *notes]) + "\n"


def cells(name: str, found: Record) -> list[str]:
    seconds, faster = found["seconds"], found["times_faster"]
    return [
        name,
        f"{found['queries']} × {found['items']:,}",
        f"{100 * found['scored_share']:.3g} %",
        f"{seconds['pruned']:.3g}",
        f"{seconds['brute_force']:.3g}",
        f"{faster['pruned']:.2g}",
        *approximate(found),
        f"{found['candidates']['hybrid']:,}",
    ]


def approximate(found: Record) -> list[str]:
    """Search among candidates by bounds, where there is such."""
    if "by_bounds" not in found["candidates"]:
        return ["—"] * 4
    return [
        f"{found['candidates']['by_bounds']:,}",
        f"{100 * found['recall']['by_bounds']:.1f} %",
        f"{found['seconds']['by_bounds']:.3g}",
        f"{found['times_faster']['by_bounds']:.2g}",
    ]


def note(name: str, found: Record) -> str:
    machine = found["machine"]
    same = "the same indices and distances" if found["same_indices"] and found["same_distances"] else "ANOTHER ANSWER"
    where = f"{machine['cpu']}, {machine['threads']} threads, load {found['load_before']:.1f} before"
    versions = f"torch {machine['torch']}, scav_kernels {machine['scav_kernels']} at `{str(machine['commit'])[:12]}`"
    return (
        f"- {name}: {same} with bounds and without; the first search, which makes the summaries, took "
        f"{found['seconds_first']:.3g} s; {where}, {versions}."
    )
