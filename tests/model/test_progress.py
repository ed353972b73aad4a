"""Progress on a terminal and off it."""

import io
import sys

import pytest

from scav_model import progress
from scav_model.progress import Progress, several


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(stream: io.StringIO, total: int | None = 20) -> str:
    """Return what is written during twenty steps, between which there is a message."""
    with Progress(total=total, desc="features", unit="clip", file=stream, mininterval=0, miniters=1) as bar:
        for step in range(20):
            bar.set_postfix_str("12 × real time", refresh=False)
            bar.update()
            if step == 10:
                Progress.write("a message", file=stream)
    return stream.getvalue()


def test_off_a_terminal_lines_are_ten_seconds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress.EVERY == 10
    assert run(io.StringIO()) == "a message\n"
    now = iter(range(0, 10_000, 3))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    lines = run(io.StringIO()).splitlines()
    lines.remove("a message")
    assert 3 <= len(lines) <= 20
    for line in lines:
        count, rate, left, more = line.split(", ")
        assert count.startswith("features: ")
        assert count.endswith(" of 20 clips")
        assert rate.endswith("clips/s")
        assert left.endswith(" left")
        assert more == "12 × real time"


def test_a_rate_below_one_is_said_as_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = Progress(total=100, desc="index: ", unit="clip", file=io.StringIO())
    state = {"n": 10, "total": 100, "unit": "clip", "rate": 0.5, "initial": 0, "elapsed": 20.0, "prefix": "index: "}
    state |= {"postfix": None, "unit_scale": False}
    monkeypatch.setattr(Progress, "format_dict", state)
    assert bar.line() == "index: 10 of 100 clips, 2.0 s for a clip, 03:00 left"
    monkeypatch.setattr(Progress, "format_dict", {**state, "total": None, "rate": 4.0, "postfix": "x"})
    assert bar.line() == "index: 10 clips, 4.0 clips/s, x"
    monkeypatch.setattr(Progress, "format_dict", {**state, "n": 0, "rate": None})
    assert bar.line() == "index: 0 of 100 clips"
    monkeypatch.setattr(Progress, "format_dict", {**state, "n": 1, "total": 1, "rate": 1.0})
    assert bar.line() == "index: 1 of 1 clip, 1.0 clip/s, 00:00 left"
    monkeypatch.setattr(
        Progress, "format_dict", {**state, "n": 1, "total": None, "rate": None, "elapsed": 2, "unit": "search"}
    )
    assert bar.line() == "index: 1 search, 2.0 s for a search"
    assert several("search", 2) == "searches"


def test_a_terminal_gets_a_bar() -> None:
    shown = run(Terminal())
    assert "features: 100%|" in shown
    assert "20/20" in shown
    assert shown.endswith("\n")


def test_no_stream_and_no_progress_are_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    assert list(Progress(range(3), disable=True)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", None)
    assert list(Progress(range(3))) == [0, 1, 2]
