"""Tables of docs/retrieval.md, from the results of benchmarks/retrieval.py."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = "retrieval.md"
BEGIN = "<!-- What follows is made by benchmarks/retrieval.py -->\n"
END = "<!-- End of what is made -->\n"
METRICS = {"interpolated_euclidean": "interpolated Euclidean", "dtw": "DTW", "sinkhorn": "Sinkhorn"}
SYSTEMS = {"scav_euclidean": "SCAV-Euclidean", "scav_dtw": "SCAV-DTW", "scav_wasserstein": "SCAV-Sinkhorn"}

Record = dict[str, Any]


def write(results: Path, docs: Path) -> None:
    """Rewrite the part of the page in `docs` between the marks, from the files in `results`."""
    replace_between(docs / PAGE, BEGIN, END, text(results))


def replace_between(page: Path, begin: str, end: str, made: str) -> None:
    """Rewrite the part of a page between two marks."""
    before, rest = page.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    page.write_text(before + begin + "\n" + made + "\n" + end + after, encoding="utf-8")


def text(results: Path) -> str:
    figures = results / "figures.json"
    parts = [figures_text(json.loads(figures.read_text(encoding="utf-8")))] if figures.exists() else []
    systems = sorted(path.parent.name for path in results.glob("*/table.md"))
    if systems:
        parts.append(
            "## Recall against time\n\n"
            "Each system of the demo searches its own 512 test clips. In so small a gallery the ten nearest are 2 %\n"
            "of all clips, so there is little to prune. `scav probe efficiency` makes these tables and plots.\n\n"
            "Cells are video to audio / audio to video. Clips have 31 to 50 video steps, 39 to 62 audio steps,\n"
            "D = 64. In the plots, points of one line have k′ = 10, 20, 50, 100, 200 and 500.\n"
        )
    for system in systems:
        table = (results / system / "table.md").read_text(encoding="utf-8")
        name = SYSTEMS.get(system, system)
        parts.append(f"### {name}\n\n{table}\n![{name}: recall against cost](retrieval-{system}.png)\n")
    return "\n".join(parts)


def figures_text(figures: dict[str, Record]) -> str:
    """Return the table of exact search, the table of approximate search, and where each line was measured."""
    records = {name: figures[metric] for metric, name in METRICS.items() if metric in figures}
    exact = markdown(
        ["distance", "queries × items", "pairs compared in full", "with bounds, s", "brute force, s", "× faster"],
        [exact_cells(name, record) for name, record in records.items()],
    )
    approximate = markdown(
        ["distance", "k′", "recall", "s", "× faster than brute force", "k′ that the nearest mean steps need"],
        [approximate_cells(name, record) for name, record in records.items()],
    )
    return (
        f"Exact search:\n\n{exact}\n"
        "Approximate search with the smallest k′ that finds 99 % of the exact ten nearest:\n\n"
        f"{approximate}\n{conditions(records)}\n"
    )


def exact_cells(name: str, record: Record) -> list[str]:
    seconds = record["seconds"]
    return [
        name,
        f"{record['queries']} × {record['items']:,}",
        f"{100 * record['scored_share']:.3g} %",
        f"{seconds['pruned']:.3g}",
        f"{seconds['brute_force']:.3g}",
        f"{record['times_faster']['pruned']:.2g}",
    ]


def approximate_cells(name: str, record: Record) -> list[str]:
    by_means = f"{record['candidates']['hybrid']:,}"
    if "by_bounds" not in record["candidates"]:
        return [name, *["–"] * 4, by_means]
    return [
        name,
        f"{record['candidates']['by_bounds']:,}",
        f"{100 * record['recall']['by_bounds']:.1f} %",
        f"{record['seconds']['by_bounds']:.3g}",
        f"{record['times_faster']['by_bounds']:.2g}",
        by_means,
    ]


def conditions(records: dict[str, Record]) -> str:
    """Return a list with the first search and the machine of each distance."""
    lines = ["k = 10, D = 512, bfloat16, all queries at once; medians. The first search makes the summaries.\n"]
    for name, record in records.items():
        machine = record["machine"]
        same = record["same_indices"] and record["same_distances"]
        answer = "bounds change no index and no distance" if same else "BOUNDS CHANGE THE ANSWER"
        lines.append(
            f"- {name}: {answer}; first search {record['seconds_first']:.3g} s; {machine['cpu']}, {machine['threads']} "
            f"threads, load {record['load_before']:.1f} before, torch {machine['torch']}, scav_kernels "
            f"{machine['scav_kernels']} at `{str(machine['commit'])[:12]}`."
        )
    return "\n".join(lines)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; every column but the first is aligned right."""
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
