"""The paper's data, and R@1 in percent that it reports (arXiv 2407.05782)."""

from __future__ import annotations

# Rows in the order of the table, by the name of their config.
LABELS = {
    "cav": "CAV",
    "scav_euclidean": "SCAV, interpolated Euclidean",
    "scav_dtw": "SCAV, DTW",
    "scav_wasserstein": "SCAV, Sinkhorn",
}
# Encoder, features of a step and steps per second of each side.
FRONT_ENDS = {"video": ("clip", 2048, 5.0), "audio": ("beats", 768, 6.25)}
# Clips that the data set had when it was published, about.
CLIPS = {"vggsound": {"train": 184_000, "test": 15_400}}
DATASETS = {"vggsound": "VGGSound", "music": "MUSIC"}
# The one number of SCAV stands beside interpolated Euclidean, the distance that the paper's gains are reported for, and
# beside the search by whole sequences; that of CAV beside the search by means.
SEARCHED_BY = {"cav": "mean", "scav_euclidean": "sequence"}
R1 = {
    "vggsound": {"cav": 12.2, "scav_euclidean": 22.6},
    "music": {"cav": 3.8, "scav_euclidean": 9.3},
}


def published(dataset: str, row: str, retrieval: str) -> float | None:
    """R@1 of a row searched in this way; None where there is none."""
    return R1[dataset].get(row) if SEARCHED_BY.get(row) == retrieval else None
