"""Progress of long work: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

# Seconds between two lines.
EVERY = 10.0


def several(unit: str, count: float) -> str:
    """Return a unit in the number of a count: 1 clip, 2 clips, 2 searches."""
    return unit if count == 1 else unit + ("es" if unit.endswith(("ch", "s", "sh", "x")) else "s")


class Progress(tqdm):  # type: ignore[type-arg]  # it takes none at run time
    """tqdm's bar on a terminal; in a log, a pipe or a file, lines with the count, the rate and the time left."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        stream = options.get("file") or sys.stderr
        self.on_terminal = stream is not None and stream.isatty()
        self.shown = time.monotonic()
        super().__init__(*arguments, **{"disable": stream is None} | options)

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        if self.on_terminal:
            return super().display(msg, pos)
        if msg is None and time.monotonic() - self.shown >= EVERY:
            self.shown = time.monotonic()
            print(self.line(), file=self.fp, flush=True)
        return None

    def clear(self, *arguments: Any, **options: Any) -> None:
        if self.on_terminal:
            super().clear(*arguments, **options)

    def close(self) -> None:
        # A bar ends with a line break.
        self.leave = self.leave if self.on_terminal else False
        super().close()

    def line(self) -> str:
        """Return the progress in words: `features: 120 of 2000 clips, 12.5 clips/s, 02:30 left`."""
        state = self.format_dict
        done, total, unit = state["n"], state["total"], state["unit"]
        rate = state["rate"] or (done - state["initial"]) / max(state["elapsed"], 1e-9)
        number = self.format_sizeof if state["unit_scale"] else str
        parts = [
            f"{number(done)} of {number(total)} {several(unit, total)}"
            if total
            else f"{number(done)} {several(unit, done)}"
        ]
        if rate:
            parts.append(
                f"{number(round(rate, 1))} {several(unit, rate)}/s" if rate >= 1 else f"{1 / rate:.1f} s for a {unit}"
            )
            if total:
                parts.append(f"{self.format_interval((total - done) / rate)} left")
        if state["postfix"]:
            parts.append(state["postfix"])
        what = (state["prefix"] or "").removesuffix(": ")
        return (f"{what}: " if what else "") + ", ".join(parts)
