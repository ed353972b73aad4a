"""The table in docs/peers.md says what is tested."""

from .table import PAGE, parts, table


def test_page_has_the_table_of_the_rows() -> None:
    _, found, _ = parts(PAGE.read_text(encoding="utf-8"))
    assert found == table(), "rewrite it with `PYTHONPATH=tests .venv/bin/python -m peers.table`"
