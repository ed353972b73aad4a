import re

import pytest

from scav_model.experiments.demo.results import Row, average, table

LABELS = {"cav": "CAV"}


def make_rows(recall: float) -> list[Row]:
    return [
        {
            "model": "cav",
            "retrieval": "mean",
            "direction": direction,
            "R@1": recall + offset,
            "R@5": 50.0,
            "R@10": 60.0,
            "MedR": 4.0,
            "gallery": 200,
            "train_seconds": 12.0,
            "search_seconds": 0.5,
        }
        for direction, offset in (("v2a", 0.0), ("a2v", 1.0))
    ]


def test_means_and_deviations_over_seeds() -> None:
    means, deviations = average([make_rows(10.0), make_rows(20.0), make_rows(30.0)])
    assert [row["R@1"] for row in means] == [20.0, 21.0]
    assert [row["R@1"] for row in deviations] == [10.0, 10.0]
    assert means[0] == make_rows(20.0)[0]
    assert type(means[0]["gallery"]) is int


def test_one_seed_has_no_deviation() -> None:
    means, deviations = average([make_rows(10.0)])
    assert means == make_rows(10.0)
    assert deviations[0]["R@1"] == 0


def test_rows_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="in the same order"):
        average([make_rows(10.0), make_rows(10.0)[::-1]])


def test_the_table_shows_both_directions_in_a_line() -> None:
    lines = table([make_rows(10.0)], LABELS).splitlines()
    assert re.split(r"\s{2,}", lines[0]) == [
        *("model", "retrieval", "v2a R@1", "v2a R@5", "v2a R@10", "v2a MedR"),
        *("a2v R@1", "a2v R@5", "a2v R@10", "a2v MedR", "train s", "search s"),
    ]
    assert lines[2].split()[:6] == ["CAV", "mean", "10.0", "50.0", "60.0", "4.0"]
    assert lines[2].split()[6:] == ["11.0", "50.0", "60.0", "4.0", "12", "0.50"]
    assert "200 held-out clips" in lines[3]
    assert "chance: R@1 0.5" in lines[3]


def test_the_table_of_several_seeds_shows_the_deviation() -> None:
    lines = table([make_rows(10.0), make_rows(20.0)], LABELS).splitlines()
    assert "15.0 ± 7.1" in lines[2]
    assert "over 2 seeds" in lines[3]
