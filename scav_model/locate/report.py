"""Places in a recording as text, JSON, a plot and a page."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from scav_model.extras import needed_by
from scav_model.index.page import NO_FILE, STYLE, Links, escape, player
from scav_model.locate.recording import Located, Place
from scav_model.storage.text import printable, printable_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Seconds between two ticks of an axis that has at most ten of them.
TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200)
PLACE_COLOR, LINE_COLOR = "#d55e00", "#0072b2"


def clock(seconds: float) -> str:
    """Return a time as h:mm:ss.ss."""
    hundredths = round(100 * seconds)
    minutes, hundredths = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}"


def as_text(located: Located) -> str:
    """Return a line for each place."""
    lines = [f"{'rank':>4}  {'start':>11}  {'end':>11}  {'distance':>10}"]
    lines += [
        f"{place.rank:4d}  {clock(place.start):>11}  {clock(place.end):>11}  {place.distance:10.4f}"
        for place in located.places
    ]
    return "\n".join(lines)


def as_json(located: Located) -> str:
    """Return one object: the files, the sides, the rate, the length and the places, in seconds."""
    whole = {
        "query": str(located.query),
        "recording": str(located.recording),
        "side": located.side,
        "searched": located.searched,
        "query_steps": located.query_steps,
        "rate_hz": located.rate_hz,
        "seconds": located.seconds,
        "places": [asdict(place) for place in located.places],
    }
    return printable_json(json.dumps(whole, indent=2, ensure_ascii=False))


def plot(located: Located) -> Figure:
    """Draw the distance of the nearest part that ends at each second, and the places."""
    with needed_by("a plot of the distance"):
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, MultipleLocator

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.add_subplot()
    ends = [(step + 1) / located.rate_hz for step in range(len(located.distances))]
    axes.plot(ends, located.distances, color=LINE_COLOR, linewidth=0.8)
    for place in located.places:
        axes.axvspan(place.start, place.end, color=PLACE_COLOR, alpha=0.25, linewidth=0)
        axes.plot(place.end, place.distance, "o", color=PLACE_COLOR, markersize=4)
        axes.annotate(
            str(place.rank), (place.end, place.distance), xytext=(4, -2), textcoords="offset points", fontsize=9
        )
    axes.set(xlim=(0, located.seconds), ylim=(0, None), xlabel="end of the part in the recording, h:mm:ss")
    axes.set_ylabel("DTW distance")
    axes.xaxis.set_major_locator(MultipleLocator(next((t for t in TICKS if located.seconds <= 10 * t), 86_400)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value)[:-3]))
    axes.grid(alpha=0.25)
    return figure


def as_html(located: Located, folder: Path | None = None, embed_megabytes: int = 0) -> str:
    """Return a page with the plot, a player of the query and one of each place.

    Args:
        folder: in which the page will lie; media files in it or below it are linked from there.
        embed_megabytes: MiB of media files to put into the page itself; the others are linked.
    """
    links = Links(folder, embed_megabytes << 20)
    title = f"{printable(located.query.name)} in {printable(located.recording.name)}"
    about = (
        f"The {len(located.places)} parts of {located.recording} that are nearest to {located.query}, {located.side} "
        f"in {located.searched}, by subsequence DTW. The line is the distance of the nearest part that ends at each "
        "second."
    )
    buffer = io.BytesIO()
    plot(located).savefig(buffer, format="png", dpi=130)
    picture = base64.b64encode(buffer.getvalue()).decode()
    query = player({"path": str(located.query)}, located.side, NO_FILE, links)
    articles = "\n".join(_article(place, located, links) for place in located.places)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{STYLE}img.plot {{ width: 100%; }}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<p>{escape(about)}</p>\n<img class="plot" src="data:image/png;base64,{picture}" alt="distance over time">\n'
        f"<section><h2>{escape(located.query.name)}</h2>{query}\n{articles}\n</section>\n</body>\n</html>\n"
    )


def _article(place: Place, located: Located, links: Links) -> str:
    media = {"path": str(located.recording), "start": place.start, "seconds": place.end - place.start}
    return (
        f"<article><h3>{place.rank}. {clock(place.start)} to {clock(place.end)} "
        f'<span class="quiet">distance {place.distance:.4f}</span></h3>'
        f"{player(media, located.searched, NO_FILE, links)}</article>"
    )
