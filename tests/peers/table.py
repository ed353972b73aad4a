"""Write the table of docs/peers.md: `PYTHONPATH=tests .venv/bin/python -m peers.table`."""

from pathlib import Path

from . import rows
from .rows import ROWS, Row

PAGE = Path(__file__).parents[2] / "docs" / "peers.md"
BEGIN = "<!-- The table is made by tests/peers/table.py -->\n"
END = "<!-- End of the table -->\n"
HEADER = """\
| `scav_kernels` | other library | to convert its value | value | gradient |
|---|---|---|---|---|
"""


def table() -> str:
    return HEADER + "".join(map(line, ROWS))


def line(row: Row) -> str:
    ours = "<br>".join(f"`{case}`" for case in row.cases) + (", of pairs" if row.ours is rows.pairs else "")
    tolerances = ["–" if tolerance is None else f"{tolerance:.0e}" for tolerance in row.tolerance]
    return "| " + " | ".join([ours, f"`{row.peer}`", row.conversion, *tolerances]) + " |\n"


def parts(page: str) -> tuple[str, str, str]:
    """Split the page into the text before the table, the table, and the text after it."""
    before, rest = page.split(BEGIN)
    found, after = rest.split(END)
    return before, found, after


if __name__ == "__main__":
    before, _, after = parts(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
