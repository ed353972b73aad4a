"""benchmarks/retrieval.py finds the smallest number of candidates, and writes its tables into the page."""

import json
from pathlib import Path

import torch

from benchmarks import retrieval_page
from benchmarks.retrieval import RECALL, fewest_by_bounds, fewest_candidates
from scav_model.distances import Distance, Sequences
from scav_model.experiments.probes.efficiency import share_found
from scav_model.retrieval.gallery import GalleryItems, InMemory
from scav_model.retrieval.nearest import nearest

FIGURES = {
    "machine": {
        "cpu": "some CPU",
        "threads": 2,
        "torch": "2.11.0",
        "scav_kernels": "0.4.0",
        "commit": "0123456789abcdef",
    },
    "queries": 100,
    "items": 100_000,
    "load_before": 0.1,
    "seconds_first": 40.0,
    "seconds": {"pruned": 2.0, "by_bounds": 1.0, "brute_force": 30.0},
    "times_faster": {"pruned": 15.0, "by_bounds": 30.0},
    "scored_share": 0.0021,
    "same_indices": True,
    "same_distances": True,
    "candidates": {"hybrid": 1234, "by_bounds": 190},
    "recall": {"pruned": 1.0, "by_bounds": 0.991},
}


def test_fewest_candidates_are_enough_and_no_more() -> None:
    torch.manual_seed(0)
    # Of more steps than segments, and more features than coordinates.
    queries, items = (Sequences(torch.randn(count, 20, 9), torch.full((count,), 20)) for count in (20, 60))
    gallery = GalleryItems(InMemory(items), Distance("interpolated_euclidean"))
    right = nearest(queries, gallery, "video", 10, prune="none").numbers

    def share(method: str, count: int) -> float:
        return share_found(nearest(queries, gallery, "video", 10, method=method, candidates=count).numbers, right)

    for method, count in (
        ("hybrid", fewest_candidates(queries, gallery, right)),
        ("bounds", fewest_by_bounds(queries, gallery, "video", right)),
    ):
        assert share(method, count) >= 100 * RECALL
        assert share(method, count - 1) < 100 * RECALL


def test_the_page_gets_tables_and_pictures(tmp_path: Path) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    (results / "scav_dtw").mkdir(parents=True)
    docs.mkdir()
    without = {**FIGURES, "candidates": {"hybrid": 1234}}
    (results / "figures.json").write_text(json.dumps({"interpolated_euclidean": FIGURES, "dtw": without}))
    (results / "scav_dtw" / "table.md").write_text("dtw, 5 queries.\n\n| a |\n")
    marks = retrieval_page.BEGIN, retrieval_page.END
    (docs / "retrieval.md").write_text(f"Before.\n{marks[0]}old\n{marks[1]}After.\n")
    retrieval_page.write(results, docs)
    page = (docs / "retrieval.md").read_text()
    assert page.startswith(f"Before.\n{marks[0]}")
    assert page.endswith(f"{marks[1]}After.\n")
    assert "old" not in page
    exact = "100 × 100,000 | 0.21 % | 2 | 30 | 15 |"
    assert f"| interpolated Euclidean | {exact}" in page
    assert f"| DTW | {exact}" in page
    assert "| interpolated Euclidean | 190 | 99.1 % | 1 | 30 | 1,234 |" in page
    assert "| DTW | – | – | – | – | 1,234 |" in page
    assert "- DTW: bounds change no index and no distance; first search 40 s;" in page
    assert (
        "### SCAV-DTW\n\ndtw, 5 queries.\n\n| a |\n\n![SCAV-DTW: recall against cost](retrieval-scav_dtw.png)" in page
    )
