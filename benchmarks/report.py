"""Tables and plots of a results file: `python -m benchmarks.report benchmarks/results/<machine>.json`."""

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cases import DIRECTIONS, OPS, OURS, SQUARE, WORKLOADS
from benchmarks.machine import ROOT

DOCS = ROOT / "docs"
PAGE = "benchmarks.md"
BEGIN = "<!-- What follows is made by benchmarks/report.py -->\n"
END = "<!-- End of what is made -->\n"
PLOTS = {
    "benchmarks-efficiency.png": "Share of the limit that each distance reaches on each workload",
    "benchmarks-time.png": "Time against batch size",
    "benchmarks-memory.png": "Memory against batch size",
}
# Colors of Okabe and Ito. Ours is blue in every panel; each library keeps its color.
OUR_COLOR = "#0072b2"
COLORS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#f0e442", "#000000")
# Lightness tells the distances of one panel apart.
SHADES = ("#08306b", "#2171b5", "#6baed6", "#9ecae1", "#c6dbef")

Record = dict[str, Any]


def write(results: Record, folder: Path) -> None:
    """Rewrite the part of the page in `folder` between the marks, and the plots."""
    page = folder / PAGE
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    page.write_text(before + BEGIN + "\n" + text(results) + "\n" + END + after, encoding="utf-8")
    plots = (efficiency_plot(results), growth_plot(results, "seconds"), growth_plot(results, "extra_bytes"))
    for name, figure in zip(PLOTS, plots, strict=True):
        figure.savefig(folder / name, dpi=130)


def text(results: Record) -> str:
    tables = {
        "Time and extra memory of each distance": ops_table(results),
        "Ragged batches, threads, single calls": calls_table(results),
        "Time of other libraries": peers_table(results),
        "Memory of other libraries": memory_table(results),
        "Growth": growth_table(results),
    }
    notes = {
        "Ragged batches, threads, single calls": (
            "Cells are forward / forward and backward. A call is one pair of four steps.\n"
        ),
        "Time of other libraries": '"× ours" is their time divided by ours. – : the library has no gradient.\n',
        "Memory of other libraries": 'At the largest B that was measured; "× ours" counts ours as at least 1 MiB.\n',
        "Growth": "Exponent p of time ~ sizeᵖ, fitted to the three largest sizes, and the expected one in brackets.\n",
    }
    parts = [f"{machine_line(results)}.\n"]
    for title, table in tables.items():
        parts.append("\n".join(filter(None, [f"### {title}\n", notes.get(title), table])))
    parts.append("### Plots\n")
    parts += [f"![{caption}]({name})\n" for name, caption in PLOTS.items()]
    return "\n".join(parts)


def machine_line(results: Record) -> str:
    machine = results["machine"]
    where = [machine["cpu"], *filter(None, [machine["gpu"]]), f"{machine['threads']} threads"]
    where += [f"SIMD level {machine['simd_level']}", f"torch {machine['torch']}"]
    where += [f"scav_kernels {machine['scav_kernels']} at `{str(machine['commit'])[:12]}`"]
    return ", ".join(where)


def ops_table(results: Record) -> str:
    """Return a line for each distance, workload, dtype and device."""
    header = ["distance", "workload", "forward, ms", "of the limit", "forward and backward, ms", "of four limits"]
    rows = []
    for (op, workload, dtype, device), both in grouped(results, "ops", "op", "workload", "dtype", "device"):
        forward, training = (both.get(direction) for direction in DIRECTIONS)
        rows.append(
            [
                f"`{op}`",
                workload + "".join(f", {each}" for each in (dtype, device) if each not in ("float32", "cpu")),
                milliseconds(forward),
                number(forward, "efficiency"),
                milliseconds(training),
                number(training, "efficiency", 4),
                number(forward, "matmul_efficiency"),
                " / ".join(mebibytes(each) for each in (forward, training) if each and "extra_bytes" in each),
            ]
        )
    return markdown([*header, "best library product, of the limit", "extra memory, MiB: forward / both"], rows)


def peers_table(results: Record) -> str:
    header = [
        "distance",
        "workload",
        "D",
        "library",
        "forward, ms",
        "× ours",
        "forward and backward, ms",
        "× ours",
        "pairs timed",
    ]
    rows = []
    for (op, workload, d, peer), both in grouped(results, "peers", "op", "workload", "d", "peer"):
        present = [each for each in both.values() if "skipped" not in each]
        if not present:
            reason = next(iter(both.values()))["skipped"]
            rows.append([f"`{op}`", workload, str(d), peer, f"skipped: {reason}", *[""] * 4])
            continue
        cells = []
        for each in map(both.get, DIRECTIONS):
            cells += [milliseconds(each, "scaled_seconds"), number(each, "times_ours")]
        pairs = sorted({each["timed_pairs"] for each in present})
        rows.append([f"`{op}`", workload, str(d), peer, *cells, " / ".join(map(str, pairs))])
    return markdown(header, rows)


def calls_table(results: Record) -> str:
    """Return times of ragged batches, of threads and of single calls, forward / forward and backward."""
    ops = {(each["op"], each["workload"], each["direction"]): each for each in measured_ops(results)}

    def padding(op: str, direction: str) -> str:
        ragged, even = (ops.get((op, workload, direction)) for workload in ("ragged", "even"))
        if not ragged or not even:
            return "–"
        return f"{ragged['seconds'] / ragged['cells'] / (even['seconds'] / even['cells']):.2f}"

    def of(section: str, op: str, direction: str) -> Record | None:
        return results.get(section, {}).get(f"{op}-{direction}")

    columns = {
        "time of a cell of `ragged` / of `even`": padding,
        "speed-up from one thread to all": lambda op, direction: number(of("threads", op, direction), "speedup"),
        "one call, µs": lambda op, direction: number(of("calls", op, direction), "seconds", 1e6),
    }
    rows = [
        [f"`{op}`", *(" / ".join(cell(op, each) for each in DIRECTIONS) for cell in columns.values())] for op in OPS
    ]
    return markdown(["distance", *columns], rows)


def memory_table(results: Record) -> str:
    """Return the memory of each library at its largest B, and ours there."""
    growth = [each for each in results.get("growth", {}).values() if each["axis"] == "B" and each.get("points")]
    by_size = {
        (each["op"], each["name"], each["direction"], point["value"]): point["extra_bytes"]
        for each in growth
        for point in each["points"]
        if "extra_bytes" in point
    }
    rows = []
    for op, name, direction in dict.fromkeys(key[:3] for key in by_size if key[1] != OURS):
        size = max(key[3] for key in by_size if key[:3] == (op, name, direction))
        theirs, own = by_size[op, name, direction, size], by_size.get((op, OURS, direction, size))
        cells = ["–", "–"] if own is None else [f"{own / 2**20:.0f}", f"{theirs / max(own, 2**20):.0f}"]
        rows.append([f"`{op}`", name, direction.replace("_", " and "), str(size), f"{theirs / 2**20:.0f}", *cells])
    return markdown(["distance", "library", "direction", "B", "extra memory, MiB", "ours, MiB", "× ours"], rows)


def growth_table(results: Record) -> str:
    """Return the fitted exponents, and the expected ones in brackets."""
    found: dict[str, dict[str, str]] = {}
    axes: dict[str, None] = {}
    for each in results.get("growth", {}).values():
        if each["name"] == OURS:
            fitted = "–" if each["exponent"] is None else f"{each['exponent']:.2f}"
            label = f"{each['axis']}, {each['direction'].replace('forward_backward', 'forward and backward')}"
            axes[label] = None
            found.setdefault(each["op"], {})[label] = f"{fitted} ({each['expected']:g})"
    return markdown(
        ["distance", *axes], [[f"`{op}`", *(row.get(axis, "") for axis in axes)] for op, row in found.items()]
    )


def measured_ops(results: Record) -> list[Record]:
    """Return the records of float32 on the CPU."""
    return [each for each in results.get("ops", {}).values() if (each["dtype"], each["device"]) == ("float32", "cpu")]


def grouped(results: Record, section: str, *keys: str) -> Iterator[tuple[tuple[Any, ...], dict[str, Record]]]:
    """Group the records that differ only in their direction, by direction."""
    groups: dict[tuple[Any, ...], dict[str, Record]] = {}
    for each in results.get(section, {}).values():
        groups.setdefault(tuple(each[key] for key in keys), {})[each["direction"]] = each
    yield from groups.items()


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def milliseconds(record: Record | None, key: str = "seconds") -> str:
    return "–" if not record or key not in record else significant(1000 * record[key])


def mebibytes(record: Record) -> str:
    return f"{record['extra_bytes'] / 2**20:.0f}"


def number(record: Record | None, key: str, factor: float = 1.0) -> str:
    return "–" if not record or key not in record else f"{factor * record[key]:.2f}"


def significant(value: float) -> str:
    """Format with three digits."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def efficiency_plot(results: Record) -> Figure:
    """Plot limit / time of float32 on the CPU: a panel for each direction, a bar for each distance and workload."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    records = measured_ops(results)
    workloads = list(dict.fromkeys(each["workload"] for each in records))
    width = 0.8 / len(OPS)
    titles = ("forward: limit / time", "forward and backward: 4 · limit / time")
    for panel, direction, title, factor in zip(panels, DIRECTIONS, titles, (1, 4), strict=True):
        for place, (op, shade) in enumerate(zip(OPS, SHADES, strict=True)):
            bars = [each for each in records if (each["op"], each["direction"]) == (op, direction)]
            at = [workloads.index(each["workload"]) + (place - (len(OPS) - 1) / 2) * width for each in bars]
            heights = [factor * each["efficiency"] for each in bars]
            panel.bar(at, heights, width, color=shade, edgecolor="black", linewidth=0.5, label=op)
            marks = [each["matmul_efficiency"] for each in bars]
            label = "best library's matrix product alone" if place == 0 else None
            panel.plot(at, marks, linestyle="none", marker="_", markersize=12, color=COLORS[0], label=label)
        panel.axhline(1, color="black", linewidth=0.8, linestyle=":", label="the limit (1)")
        panel.set_ylabel("of the limit" if factor == 1 else "of four limits")
        panel.set_title(title, loc="left", fontsize=10)
    panels[1].set_xticks(range(len(workloads)), [sizes(name, records) for name in workloads], fontsize=8)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"float32, {short_machine(results)}", fontsize=10)
    return figure


def sizes(workload: str, records: Sequence[Record]) -> str:
    """Return a workload's name with its pairs, steps and features."""
    work = next(work for work in WORKLOADS if work.name == workload)
    steps = "8–64 steps" if workload == "ragged" else f"N = {work.n}, M = {work.m}"
    return f"{workload}\n{work.b1} × {work.b2:,} pairs\n{steps}\nD = {work.d}"


def short_machine(results: Record) -> str:
    machine = results["machine"]
    return f"{machine['gpu'] or machine['cpu']}, {machine['threads']} threads"


def growth_plot(results: Record, quantity: str) -> Figure:
    """Plot seconds, or bytes beyond the inputs, against B: a panel for each distance, a line for each library."""
    figure = Figure(figsize=(15, 8.4), layout="constrained")
    panels = list(figure.subplots(2, 3).flat)
    for panel in panels[len(OPS) :]:
        panel.remove()
    growth = [each for each in results.get("growth", {}).values() if each["axis"] == "B" and each.get("points")]
    unit = {"seconds": 1.0, "extra_bytes": 2.0**20}[quantity]
    names = list(dict.fromkeys(each["name"] for each in growth if each["name"] != OURS))
    for panel, op in zip(panels[: len(OPS)], OPS, strict=True):
        for each in (each for each in growth if each["op"] == op):
            draw(panel, each, quantity, unit, results["machine"]["memory_bytes"], names)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel("B, sequences on each side")
        panel.set_ylabel({"seconds": "seconds", "extra_bytes": "MiB beyond the inputs"}[quantity])
        panel.set_title(op, loc="left", fontsize=10)
        if panel.lines:
            panel.legend(frameon=False, fontsize=8)
    memory = results["machine"]["memory_bytes"] / 2**30
    figure.suptitle(
        f"B × B pairs, N = {SQUARE.n}, M = {SQUARE.m}, D = {SQUARE.d}, float32, {short_machine(results)}, "
        "forward and backward unless the legend says otherwise\n"
        f"× : memory runs out ({memory:.0f} GiB). Dotted: not measured, extended by the growth of the last two points",
        fontsize=10,
    )
    return figure


def draw(panel: Axes, growth: Record, quantity: str, unit: float, memory: int, names: Sequence[str]) -> None:
    measured = [point for point in growth["points"] if "seconds" in point]
    if not measured:
        return
    values = [max(at_best(point[quantity]) / unit, 1e-6) for point in measured]
    ours, forward = growth["name"] == OURS, growth["direction"] == "forward"
    place = 0 if ours else names.index(growth["name"])
    (line,) = panel.plot(
        [point["value"] for point in measured],
        values,
        marker="o" if ours else "s^Dv"[place // len(COLORS)],
        markersize=4 if ours else 3,
        linewidth=2.5 if ours else 1,
        linestyle="--" if ours and forward else "-",
        color=OUR_COLOR if ours else COLORS[place % len(COLORS)],
        label=growth["name"] + (" (forward only)" if forward else ""),
    )
    last = measured[-1]
    end = out_of_memory(growth["points"], memory)
    # Far beyond the measured sizes an extension says nothing.
    if not ours and end and end <= 64 * last["value"]:
        grown = values[-1] * (end / last["value"]) ** 2 if quantity == "seconds" else memory / unit
        panel.plot([last["value"], end], [values[-1], grown], color=line.get_color(), linewidth=1, linestyle=":")
        panel.plot([end], [grown], marker="x", color=line.get_color())


def at_best(samples: float | Sequence[float]) -> float:
    return min(samples) if isinstance(samples, list) else samples


def out_of_memory(points: Sequence[Record], memory: int) -> float | None:
    """Return the B at which memory ran out, or would with the growth between the last two points."""
    *_, before, last = [{}, *points]
    if "out_of_memory" in last:
        return last["value"]
    if not before or min(before["extra_bytes"], last["extra_bytes"]) <= 0:
        return None
    slope = math.log(last["extra_bytes"] / before["extra_bytes"]) / math.log(last["value"] / before["value"])
    return last["value"] * (memory / last["extra_bytes"]) ** (1 / min(max(slope, 1), 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    write(json.loads(parser.parse_args().results.read_text(encoding="utf-8")), DOCS)


if __name__ == "__main__":
    main()
