"""Linear probe and neighbors where the right answer is known."""

import numpy as np
import pytest
import torch

from scav_model.distances import Distance, Sequences
from scav_model.experiments.downstream.classify import between, classify, nearest, parts
from scav_model.experiments.downstream.labels import Fold


def two_orders(clips: int) -> tuple[Sequences, list[str]]:
    """Clips of two classes whose steps are the same, in opposite order, so that their means do not differ."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-1, 1, 16)[:, None] * torch.tensor([1.0, -1.0])
    steps = [
        (ramp if clip % 2 else ramp.flip(0)) + 2 + 0.05 * torch.randn(16, 2, generator=generator)
        for clip in range(clips)
    ]
    return Sequences(torch.stack(steps), torch.full((clips,), 16)), [
        "late" if clip % 2 else "early" for clip in range(clips)
    ]


def test_order_is_told_by_sequences_and_not_by_means():
    clips, labels = two_orders(60)
    ids = [f"folder/{clip}.mp4" for clip in range(60)]
    known = dict(zip(ids, labels, strict=True))
    fold = Fold("1", {name: known[name] for name in ids[:40]}, {name: known[name] for name in ids[40:]})
    rows = list(classify({"video": clips}, fold, ids, Distance("dtw"), 5, 1.0))
    found = {(row["classifier"], row["embedding"]): row["accuracy"] for row in rows}
    assert found["linear", "sequence"] == found["knn", "sequence"] == 100
    assert max(found["linear", "mean"], found["knn", "mean"]) < 80
    assert all((row["chance"], row["clips"]) == (50, 20) for row in rows)


def test_ties_go_to_the_nearer_neighbors():
    truth = np.array(["a", "b", "b", "a"])
    assert nearest(np.array([[3.0, 1.0, 4.0, 2.0]]), truth, 2).tolist() == ["b"]
    assert nearest(np.array([[1.0, 3.0, 4.0, 2.0]]), truth, 4).tolist() == ["a"]
    assert nearest(np.array([[9.0, 3.0, 4.0, 1.0]]), truth, 3).tolist() == ["b"]


def test_padding_changes_no_embedding():
    steps = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([20, 9])
    padded = steps.clone()
    padded[1, 9:] = torch.nan
    clips, other = Sequences(steps, lengths), Sequences(padded, lengths)
    assert np.array_equal(parts(clips), parts(other))
    assert parts(clips).shape == (2, 24)
    np.testing.assert_allclose(parts(Sequences(steps[:, :8], torch.tensor([8, 8])))[0], steps[0, :8].flatten())
    distance = Distance("interpolated_euclidean")
    assert np.array_equal(between(clips, clips, distance), between(other, other, distance))


def test_a_fold_of_other_clips_is_refused():
    clips, _ = two_orders(4)
    distance = Distance("dtw")
    with pytest.raises(ValueError, match="expected clips to learn from and to classify, got 0 and 1"):
        list(classify({"video": clips}, Fold("2", {"x": "a"}, {"0": "a"}), list("0123"), distance, 1, 1.0))
    with pytest.raises(ValueError, match="at least two classes, got a alone"):
        list(classify({"video": clips}, Fold("2", {"1": "a"}, {"0": "a"}), list("0123"), distance, 1, 1.0))
