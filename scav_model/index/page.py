"""Answers as one HTML page that needs nothing else, its media files excepted."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from scav_model.data.folders import SOUND
from scav_model.index.align import Alignment, alignments
from scav_model.index.index import IndexReader
from scav_model.index.search import Answer, Hit
from scav_model.index.thumbnails import thumbnails
from scav_model.storage.text import printable

WIDTH, HEIGHT, BARS, MARGIN = 640, 90, 48, 34  # px of a drawing
NO_QUERY_FILE = "No player: no media file of this query is known."
NO_FILE = (
    "No player: the index names no media file of this clip. Build it with --manifest, or from a feature store that "
    "scav extract wrote."
)

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1000px; padding: 0 1em; color: #222; }
section { border-top: 2px solid #222; margin-top: 2em; }
article { border-top: 1px solid #ccc; padding: 1em 0; }
h3 { margin: 0 0 .4em; } h3 span { font-weight: normal; color: #666; }
.pictures img { width: 96px; height: 96px; margin-right: 4px; }
video, audio { max-width: 320px; display: block; margin: .4em 0; }
svg { width: 100%; max-width: 720px; height: auto; } svg text { font-size: 11px; fill: #555; }
.note { background: #fff3c4; padding: .4em .8em; }
.none { color: #666; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } section { border-color: #ddd; }
  svg text { fill: #aaa; } .note { color: #222; } }
"""


def as_html(index: IndexReader, answer: Answer) -> str:
    """Return the page: a player of each query; pictures, a player and the alignment of each hit."""
    aligned = alignments(index, answer)
    queries = answer.queries
    parts = [f'<p class="note">{escape(note)}</p>' for note in answer.notes]
    for query, (name, hits) in enumerate(zip(queries.names, answer.hits, strict=True)):
        player = _player({"path": queries.media[query]}, queries.side, NO_QUERY_FILE)
        parts.append(f"<section><h2>{escape(name)}</h2>{player}")
        parts += [
            _article(hit, one, queries.side, queries.target, answer.mode)
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


def _article(hit: Hit, aligned: Alignment, side: str, target: str, mode: str) -> str:
    unit = "1 − cosine" if mode == "mean" else "distance"
    label = "" if hit.media.get("label") is None else f", {escape(hit.media['label'])}"
    return (
        f"<article><h3>{hit.rank}. {escape(hit.id)} <span>{unit} {hit.distance:.4f}{label}</span></h3>"
        f"{_pictures(hit.media)}{_player(hit.media, target, NO_FILE)}{drawing(aligned, side, target)}</article>"
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
        return '<p class="none">No pictures: none can be read from the file.</p>'
    return f'<div class="pictures">{shown}</div>'


def _player(media: dict[str, Any], side: str, unknown: str) -> str:
    """Return a player of a file that is there, or else why there is none: a path in an index is anyone's text."""
    path, (start, seconds) = media.get("path"), _span(media)
    if not path:
        return f'<p class="none">{unknown}</p>'
    if not _is_file(path):
        return (
            f'<p class="none">No player: there is no file {escape(path)}. Put it there, or build the index anew with a '
            "--manifest that says where it is.</p>"
        )
    tag = "audio" if Path(path).suffix.lower() in SOUND else "video"
    source = Path(path).absolute().as_uri() + f"#t={start:g}" + ("" if seconds is None else f",{start + seconds:g}")
    return f'<{tag} controls preload="none" src="{escape(source)}" title="{escape(path)} ({side})"></{tag}>'


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
    """Draw two axes of time with a line for each match and, below, the contribution of each moment of the clip."""
    query_end, clip_end = (_end(places) for places in (aligned.query, aligned.clip))
    top, bottom = 18, 18 + HEIGHT
    floor = bottom + 18 + BARS

    def x(place: float, end: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * place / end

    lines = [
        f'<line x1="{x(query, query_end):.1f}" y1="{top}" x2="{x(clip, clip_end):.1f}" y2="{bottom}" '
        f'stroke="#0a6" stroke-opacity="{0.15 + 0.7 * weight:.2f}"/>'
        for query, clip, weight in zip(aligned.query, aligned.clip, aligned.weight, strict=True)
    ]
    sums: dict[float, float] = {}
    for place, share in zip(aligned.clip, aligned.contribution, strict=True):
        sums[place] = sums.get(place, 0.0) + share
    highest = max(map(abs, sums.values()), default=0.0) or 1.0
    width = max(1.0, (WIDTH - 2 * MARGIN) / max(1, len(sums)) - 1)
    bars = []
    for place, share in sorted(sums.items()):
        height = BARS * abs(share) / highest
        part = f"{place:.2f} {aligned.unit}: {share:.4g}" + (
            f" ({share / aligned.distance:.1%})" if aligned.distance else ""
        )
        bars.append(
            f'<rect x="{x(place, clip_end) - width / 2:.1f}" y="{floor - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" fill="#c50"><title>{part}</title></rect>'
        )
    unit = aligned.unit
    texts = [
        _text(MARGIN, top - 6, f"query ({side}), 0 to {query_end:.4g} {unit}"),
        _text(MARGIN, bottom + 13, f"clip ({target}), 0 to {clip_end:.4g} {unit}"),
        _text(MARGIN, floor + 13, f"contributions; {aligned.rest:.3g} of {aligned.distance:.4g} is of no listed match"),
    ]
    axes = [
        f'<line x1="{MARGIN}" y1="{y}" x2="{WIDTH - MARGIN}" y2="{y}" stroke="#888"/>' for y in (top, bottom, floor)
    ]
    inside = "".join((*lines, *bars, *axes, *texts))
    return f'<svg viewBox="0 0 {WIDTH} {floor + 20}" role="img" aria-label="alignment">{inside}</svg>'


def _end(places: Sequence[float]) -> float:
    """Return the end of the axis: half a step beyond the middle of the last step."""
    return (max(places) + min(places)) or 1.0


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x}" y="{y}">{escape(text)}</text>'
