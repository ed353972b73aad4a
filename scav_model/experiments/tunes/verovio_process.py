"""Engrave one tune: a program of its own, because some tunes end the process that engraves them.

It reads ABC from standard input, writes a PNG of one long staff to the file named on its command line, and prints JSON:
{"scale": units per pixel, "staff": y of the middle line in units,
 "notes": [[onset, end in quarter notes, MIDI pitch, x in units, bar number], ...]}. Units are Verovio's.
"""

import json
import re
import sys
from pathlib import Path

import resvg_py
import verovio

ZOOM = 0.6  # pixels per ten units
HEAD = 106  # units from a note head's place to its middle
OPTIONS = {
    "inputFrom": "abc",
    "breaks": "none",
    "adjustPageWidth": True,
    "adjustPageHeight": True,
    "header": "none",
    "footer": "none",
    "svgViewBox": True,
    "expandNever": True,
    **{f"pageMargin{side}": 0 for side in ("Top", "Bottom", "Left", "Right")},
}
NOTE_HEAD = re.compile(r'<g id="([^"]+)" class="note">\s*<g class="notehead">\s*<use [^>]*translate\((-?\d+),')
STAFF = re.compile(r'class="staff">\s*<path d="M-?\d+ (-?\d+) L')
MIDDLE_LINE = 360  # units below the top line


def main() -> None:
    verovio.enableLog(verovio.LOG_OFF)
    toolkit = verovio.toolkit()
    toolkit.setOptions(OPTIONS)
    if not toolkit.loadData(sys.stdin.read()):
        raise SystemExit("Verovio does not read this ABC")
    pages = toolkit.getPageCount()
    if pages != 1:
        raise SystemExit(f"expected one page, got {pages}")
    svg = toolkit.renderToSVG(1)
    staff = STAFF.search(svg)
    if staff is None:
        raise SystemExit("the score has no staff")
    places = {name: int(x) + HEAD for name, x in NOTE_HEAD.findall(svg)}
    onsets: dict[str, float] = {}
    ends: dict[str, float] = {}
    bars: dict[str, int] = {}
    bar = -1
    for entry in toolkit.renderToTimemap({"includeMeasures": True}):
        bar += "measureOn" in entry
        ends |= dict.fromkeys(entry.get("off", []), entry["qstamp"])
        onsets |= dict.fromkeys(entry.get("on", []), entry["qstamp"])
        bars |= dict.fromkeys(entry.get("on", []), bar)
    notes = [
        [onset, ends[name], toolkit.getMIDIValuesForElement(name)["pitch"], places[name], bars[name]]
        for name, onset in onsets.items()
        if name in ends and name in places
    ]
    Path(sys.argv[1]).write_bytes(bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=ZOOM, background="white")))
    print(json.dumps({"scale": 10 / ZOOM, "staff": int(staff[1]) + MIDDLE_LINE, "notes": sorted(notes)}))


if __name__ == "__main__":
    main()
