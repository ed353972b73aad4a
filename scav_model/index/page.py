"""Answers as one HTML page that needs nothing else, its media files excepted."""

from __future__ import annotations

import base64
import html
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import quote

from scav_model.data.folders import PLAYED, SOUND
from scav_model.index.align import Alignment, alignments
from scav_model.index.index import IndexReader
from scav_model.index.search import Answer, Hit
from scav_model.index.thumbnails import thumbnails
from scav_model.storage.text import printable

WIDTH, HEIGHT, BARS, MARGIN = 640, 90, 48, 34  # px of a drawing
UNPLAYED = (
    '<p class="quiet">Most browsers do not play {}; scav serve converts it, and players such as VLC or mpv play it.</p>'
)
NO_QUERY_FILE = "No player: no media file of this query is known."
NO_FILE = (
    "No player: the index names no media file of this clip. Build it with --manifest, or from a feature store that "
    "scav extract wrote."
)

LOOK = (resources.files("scav_model.index") / "static" / "look.css").read_text(encoding="utf-8")
STYLE = f"""{LOOK}
section {{ border-top: 2px solid var(--text); margin-top: 2em; }}
article {{ border-top: 1px solid var(--line); padding: 1em 0; }}
.pictures img {{ width: 96px; height: 96px; margin-right: 4px; }}
video, audio {{ margin: .4em 0; }}
svg {{ width: 100%; max-width: 720px; height: auto; }} svg text {{ font-size: 11px; fill: var(--quiet); }}
"""


def as_html(index: IndexReader, answer: Answer, folder: Path | None = None, embed_megabytes: int = 0) -> str:
    """Return the page: a player of each query; pictures, a player and the alignment of each hit.

    Args:
        folder: in which the page will lie. Media files in it or below it are linked from there, so that both can be
            moved together; other links, and all without a folder, are absolute.
        embed_megabytes: MiB of media files to put into the page itself, in its order; the others are linked.
    """
    links = Links(folder, embed_megabytes << 20)
    aligned = alignments(index, answer)
    queries = answer.queries
    parts = [f'<p class="note">{escape(note)}</p>' for note in answer.notes]
    for query, (name, hits) in enumerate(zip(queries.names, answer.hits, strict=True)):
        shown = player({"path": queries.media[query]}, queries.side, NO_QUERY_FILE, links)
        parts.append(f"<section><h2>{escape(name)}</h2>{shown}")
        parts += [
            _article(hit, one, queries.side, queries.target, answer.mode, links)
            for hit, one in zip(hits, aligned[query], strict=True)
        ]
        parts.append("</section>")
    title = f"{queries.target}s nearest to {queries.side}s"
    header = index.header
    about = (
        f"{len(index)} clips in {index.folder}, {header.metric.replace('_', ' ')}, mode {answer.mode}. Lines join what "
        "is matched, darker the more it counts; bars are what each moment adds to the distance."
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>\n<style>{STYLE}</style>'
        f"</head>\n<body>\n<h1>{title}</h1>\n<p>{escape(about)}</p>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _article(hit: Hit, aligned: Alignment, side: str, target: str, mode: str, links: Links) -> str:
    unit = "1 − cosine" if mode == "mean" else "distance"
    label = "" if hit.media.get("label") is None else f", {escape(hit.media['label'])}"
    return (
        f'<article><h3>{hit.rank}. {escape(hit.id)} <span class="quiet">{unit} {hit.distance:.4f}{label}</span></h3>'
        f"{_pictures(hit.media)}{player(hit.media, target, NO_FILE, links)}{drawing(aligned, side, target)}"
        f"<p>{summed(aligned)}</p></article>"
    )


def escape(text: object) -> str:
    """Return text from anywhere as HTML that shows it, with escapes for what does not print."""
    return html.escape(printable(str(text)))


def _pictures(media: dict[str, Any]) -> str:
    path, (start, seconds) = media.get("path"), _span(media)
    if not _is_file(path):
        return ""
    shown = "".join(f'<img src="{uri}" alt="">' for uri in thumbnails(Path(path), start=start, seconds=seconds))
    if not shown and Path(path).suffix.lower() not in SOUND:
        return '<p class="quiet">No pictures: none can be read from the file.</p>'
    return f'<div class="pictures">{shown}</div>'


def player(media: dict[str, Any], side: str, unknown: str, links: Links) -> str:
    """Return a player of a file that is there, or else why there is none: a path in an index is anyone's text."""
    path, (start, seconds) = media.get("path"), _span(media)
    if not path:
        return f'<p class="quiet">{unknown}</p>'
    if not _is_file(path):
        return (
            f'<p class="quiet">No player: there is no file {escape(path)}. Put it there, or build the index anew with '
            "a --manifest that says where it is.</p>"
        )
    suffix = Path(path).suffix.lower()
    tag = "audio" if suffix in SOUND else "video"
    source = links.address(Path(path)) + f"#t={start:g}" + ("" if seconds is None else f",{start + seconds:g}")
    note = "" if suffix in PLAYED else UNPLAYED.format(escape(suffix or "files without a suffix"))
    return f'<{tag} controls preload="metadata" src="{escape(source)}" title="{escape(path)} ({side})"></{tag}>{note}'


@dataclass
class Links:
    """Addresses of media files for a page.

    Attributes:
        folder: in which the page will lie; files in it or below it are linked from there.
        bytes_left: of the files that may still be put into the page itself.
    """

    folder: Path | None = None
    bytes_left: int = 0

    def address(self, path: Path) -> str:
        """Return the file itself as a data URI if it may be put into the page, or else a link to it."""
        kind, size = PLAYED.get(path.suffix.lower()), path.stat().st_size
        if kind is not None and size <= self.bytes_left:
            self.bytes_left -= size
            return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        path = path.absolute()
        if self.folder is not None and path.is_relative_to(self.folder.absolute()):
            return quote(os.fsencode(path.relative_to(self.folder.absolute())))
        return path.as_uri()


def summed(aligned: Alignment) -> str:
    """Return in words what adds up to the distance."""
    total = sum(aligned.contribution)
    words = f"The distance is {aligned.distance:.4g}: its matches add up to {total:.4g}"
    if abs(aligned.rest) <= 1e-3 * abs(aligned.distance):
        return f"{words}."
    return f"{words}, and {aligned.rest:.3g} is of none: smoothing, or matches too small to draw."


def _is_file(path: Any) -> TypeGuard[str]:
    return isinstance(path, str) and os.path.isfile(path)


def _span(media: dict[str, Any]) -> tuple[float, float | None]:
    """Return start and length of a clip in seconds; a length of None reaches to the end of the file."""
    start, seconds = (
        value if isinstance(value, int | float) and math.isfinite(value) and value >= 0 else None
        for value in (media.get("start"), media.get("seconds"))
    )
    return start or 0.0, seconds or None


def drawing(aligned: Alignment, side: str, target: str) -> str:
    """Draw two axes of time, of one scale, with a line for each match and, below, what each moment contributes."""
    query_end, clip_end = (_end(places) for places in (aligned.query, aligned.clip))
    longest = max(query_end, clip_end)
    top, bottom = 18, 18 + HEIGHT
    floor = bottom + 18 + BARS

    def x(place: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * place / longest

    lines = [
        f'<line x1="{x(query):.1f}" y1="{top}" x2="{x(clip):.1f}" y2="{bottom}" '
        f'stroke="#0a6" stroke-opacity="{0.15 + 0.7 * weight:.2f}"/>'
        for query, clip, weight in zip(aligned.query, aligned.clip, aligned.weight, strict=True)
    ]
    sums: dict[float, float] = {}
    for place, share in zip(aligned.clip, aligned.contribution, strict=True):
        sums[place] = sums.get(place, 0.0) + share
    highest = max(map(abs, sums.values()), default=0.0) or 1.0
    width = max(1.0, (x(clip_end) - MARGIN) / max(1, len(sums)) - 1)
    bars = []
    for place, share in sorted(sums.items()):
        height = BARS * abs(share) / highest
        part = f"{place:.2f} {aligned.unit}: {share:.4g}" + (
            f" ({share / aligned.distance:.1%})" if aligned.distance else ""
        )
        bars.append(
            f'<rect x="{x(place) - width / 2:.1f}" y="{floor - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" fill="#c50"><title>{part}</title></rect>'
        )
    unit = aligned.unit
    texts = [
        _text(0, top - 6, side),
        _text(0, bottom + 13, target),
        *(_text(x(tick) - 3, top - 6, f"{tick:g}") for tick in ticks(query_end, longest)),
        *(_text(x(tick) - 3, bottom + 13, f"{tick:g}") for tick in ticks(clip_end, longest)),
        _text(x(clip_end) + 4, bottom + 4, unit),
        _text(MARGIN, floor + 13, "contribution of each moment of the clip"),
    ]
    axes = [
        f'<line x1="{MARGIN}" y1="{y}" x2="{x(end):.1f}" y2="{y}" stroke="#888"/>'
        for y, end in ((top, query_end), (bottom, clip_end), (floor, clip_end))
    ]
    inside = "".join((*lines, *bars, *axes, *texts))
    return f'<svg viewBox="0 0 {WIDTH} {floor + 20}" role="img" aria-label="alignment">{inside}</svg>'


def ticks(end: float, longest: float) -> list[float]:
    """Return places for labels on an axis from 0 to `end`, at most eleven on one of the longest."""
    power = 10.0 ** math.floor(math.log10(longest))
    every = next(step * power for step in (0.1, 0.2, 0.5, 1) if longest / (step * power) <= 10)
    return [round(count * every, 6) for count in range(int(end / every + 1e-6) + 1)]


def _end(places: Sequence[float]) -> float:
    """Return the end of the axis: half a step beyond the middle of the last step."""
    return (max(places) + min(places)) or 1.0


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x}" y="{y}">{escape(text)}</text>'
