import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import MEASURING

from scav_model.config import ModelConfig
from scav_model.distances import POOLED_COSINE, Distance, Sequences
from scav_model.model import AudioVisualModel
from scav_model.retrieval import encode, encode_to_disk, evaluate, ranking, recalls
from scav_model.retrieval.gallery import InMemory, OnDisk
from scav_model.retrieval.ranking import Comparison, cosine, ranks


def clips(count: int, steps: int, seed: int) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, steps + 1, (count,), generator=generator)
    return Sequences(torch.randn(count, steps, 4, generator=generator), lengths)


def by_mode(rows):
    return {(row["retrieval"], row["direction"]): row for row in rows}


def test_ranks_by_hand():
    distances = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    assert ranks(distances, torch.arange(3)).tolist() == [1, 2, 3]


def test_ties_share_their_mean_rank():
    distances = torch.tensor([[1.0, 1.0, 2.0], [5.0, 5.0, 5.0], [0.0, 7.0, 7.0]])
    assert ranks(distances, torch.arange(3)).tolist() == [1.5, 2.0, 2.5]


def test_a_collapsed_model_recalls_nothing():
    same = Sequences(torch.ones(11, 3, 2), torch.full((11,), 3))
    for row in evaluate(same, same, Distance("interpolated_euclidean"), hybrid_k=4):
        assert row["R@1"] == 0
        assert row["MeanR"] == 6


def test_nan_is_infinitely_far():
    distances = torch.tensor([[torch.nan, 1.0, 2.0], [0.5, 1.0, torch.nan]])
    assert ranks(distances, torch.tensor([0, 1])).tolist() == [3, 2]


def test_recalls_by_hand():
    measured = recalls(torch.tensor([1.0, 1.5, 5.0, 6.0, 10.0, 100.0]))
    assert measured == {
        "R@1": pytest.approx(100 / 6),
        "R@5": pytest.approx(50.0),
        "R@10": pytest.approx(500 / 6),
        "MedR": 5.5,
        "MeanR": pytest.approx(123.5 / 6),
    }


def test_evaluate_by_hand():
    """Points on a line: video 0 is 8 and 6 from the audios, video 1 is 2 and 0 from them."""
    one = torch.tensor([1, 1])
    audio = Sequences(torch.tensor([[[1.0], [0.0]], [[3.0], [0.0]]]), one)
    video = Sequences(torch.tensor([[[9.0]], [[3.0]]]), one)
    found = by_mode(evaluate(video, audio, Distance("interpolated_euclidean"), modes=("sequence",)))
    assert found["sequence", "v2a"]["R@1"] == 50
    assert found["sequence", "v2a"]["MeanR"] == 1.5
    assert found["sequence", "a2v"]["R@1"] == 50
    assert found["sequence", "a2v"]["gallery"] == 2
    assert found["sequence", "a2v"]["search_seconds"] >= 0


@pytest.mark.parametrize("metric", ["interpolated_euclidean", "dtw"])
def test_hybrid_over_the_whole_gallery_is_sequence(metric):
    video, audio = clips(13, 5, 0), clips(13, 6, 1)
    found = by_mode(evaluate(video, audio, Distance(metric), hybrid_k=100))
    for direction in ("v2a", "a2v"):
        hybrid, sequence = found["hybrid", direction], found["sequence", direction]
        assert all(hybrid[name] == sequence[name] for name in ("R@1", "R@5", "R@10", "MedR", "MeanR"))


@pytest.mark.parametrize("direction", ["v2a", "a2v"])
@pytest.mark.parametrize("block", [13, 4])
def test_hybrid_reorders_the_nearest_k_only(direction, block, monkeypatch):
    """Against a plain loop over queries, also where clips are in several blocks, or a few queries in a chunk."""
    monkeypatch.setattr(ranking, "BLOCK", block)
    video, audio, k = clips(13, 5, 0), clips(13, 6, 1), 4
    distance = Distance("interpolated_euclidean")
    by_mean = Distance(POOLED_COSINE).all_pairs(video, audio)
    by_sequence = distance.all_pairs(video, audio)
    if direction == "a2v":
        by_mean, by_sequence = by_mean.T, by_sequence.T
    expected = []
    for query in range(13):
        order = by_mean[query].argsort().tolist()
        order[:k] = sorted(order[:k], key=lambda item, query=query: by_sequence[query, item].item())
        expected.append(order.index(query) + 1)
    compared = Comparison(InMemory(video), InMemory(audio))
    means = compared.means()
    counts = means.count(cosine, "mean")[direction]
    assert compared.hybrid(distance, means, counts, k, direction).tolist() == expected
    monkeypatch.setattr("scav_model.retrieval.nearest.FLOATS", 3 * 6 * 4)
    assert compared.hybrid(distance, means, counts, k, direction).tolist() == expected


def without_time(rows):
    return [{**row, "search_seconds": 0} for row in rows]


def whole(video, audio, distance, hybrid_k):
    """Ranks from matrices (G, G), by mode and direction, of what has no ties."""
    matrices = {"mean": Distance(POOLED_COSINE).all_pairs(video, audio), "sequence": distance.all_pairs(video, audio)}
    truth = torch.arange(len(video.steps))
    found = {}
    for direction in ("v2a", "a2v"):
        by_mean, by_sequence = (matrix if direction == "v2a" else matrix.T for matrix in matrices.values())
        found["mean", direction] = ranks(by_mean, truth)
        found["sequence", direction] = ranks(by_sequence, truth)
        near = by_mean.topk(hybrid_k, largest=False).indices
        best = torch.full_like(by_mean, torch.inf).scatter(1, near, by_sequence.gather(1, near))
        inside = (near == truth[:, None]).any(1)
        found["hybrid", direction] = torch.where(inside, ranks(best, truth), found["mean", direction])
    return found


@pytest.mark.parametrize("rows", [4, 256])
@pytest.mark.parametrize("block", [1, 5, 13, 64])
def test_blocks_change_nothing(rows, block, monkeypatch):
    """However clips are cut, and whether they are in memory or on disk."""
    video, audio, distance = clips(13, 5, 0), clips(13, 6, 1), Distance("dtw")
    expected = {key: recalls(rank) for key, rank in whole(video, audio, distance, 3).items()}
    monkeypatch.setattr(ranking, "ROWS", rows)
    monkeypatch.setattr(ranking, "BLOCK", block)
    found = evaluate(video, audio, distance, hybrid_k=3)
    for row in found:
        assert {name: row[name] for name in ("R@1", "R@5", "R@10", "MedR", "MeanR")} == expected[
            row["retrieval"], row["direction"]
        ]
    stored = []
    for side in (video, audio):
        gallery = OnDisk(side.lengths, 4)
        for start in range(0, 13, 6):
            gallery.append(side.steps[start : start + 6], side.lengths[start : start + 6])
        stored.append(gallery)
    assert without_time(evaluate(*stored, distance, hybrid_k=3)) == without_time(found)


@pytest.mark.parametrize("block", [3, 64])
def test_ties_and_nan_are_counted_across_blocks(block, monkeypatch):
    """Clips of three kinds, each many times, and one of NaN."""
    kinds = torch.eye(3)[torch.arange(17) % 3][:, None].repeat(1, 2, 1)  # (17, 2, 3)
    kinds[4] = torch.nan
    same = Sequences(kinds, torch.full((17,), 2))
    matrix = Distance("interpolated_euclidean").all_pairs(same, same)
    monkeypatch.setattr(ranking, "BLOCK", block)
    found = by_mode(evaluate(same, same, Distance("interpolated_euclidean"), modes=("sequence",)))
    for direction in ("v2a", "a2v"):
        row = found["sequence", direction]
        assert row["MeanR"] == ranks(matrix, torch.arange(17)).double().mean().item()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_gallery():
    """300 and then 1200 clips of two times 32 KiB: held at once, the larger gallery would take 75 MiB."""
    script = Path(__file__).with_name("peak_of_evaluation.py")
    done = subprocess.run(
        [sys.executable, script, "300", "1200"], env=MEASURING, capture_output=True, text=True, check=True
    )
    small, large = map(int, done.stdout.split())
    assert large < small + 4 * 2**20, done.stdout


def test_a_full_disk_says_where(monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", partial(open, "/dev/full", "wb", buffering=0))
    gallery = OnDisk(torch.tensor([3, 2]), 4)
    with pytest.raises(OSError, match=r"encoded clips need 0.0 GB in .*; name a roomier folder .* TMPDIR"):
        gallery.append(torch.zeros(2, 3, 4), torch.tensor([3, 2]))


def test_clips_that_were_not_appended_are_not_read():
    gallery = OnDisk(torch.tensor([3, 2]), 4)
    gallery.append(torch.zeros(1, 3, 4), torch.tensor([3]))
    with pytest.raises(ValueError, match="expected clips below 1, as many as were appended, got 1"):
        gallery.block(0, 2)


def test_encode_equals_the_model_clip_by_clip(eval_features):
    torch.manual_seed(0)
    config = ModelConfig(
        visual_input=6, audio_input=5, dim=16, visual_blocks=1, audio_blocks=1, heads=2, conv_kernel=4, conv_groups=4
    )
    model = AudioVisualModel(config)
    encoded = encode(model, eval_features, batch_size=7)
    assert model.training
    model.eval()
    for side, clips, encoder in zip(
        encoded, (eval_features.video, eval_features.audio), (model.visual, model.audio), strict=True
    ):
        assert side.lengths.tolist() == [len(clip) for clip in clips]
        for steps, length, clip in zip(*side, clips, strict=True):
            torch.testing.assert_close(steps[:length], encoder(clip[None])[0], rtol=1e-4, atol=1e-5)
            assert not steps[length:].any()
    for side, stored in zip(encoded, encode_to_disk(model, eval_features, batch_size=7), strict=True):
        assert torch.equal(stored.block(0, len(eval_features)).steps, side.steps)
        assert torch.equal(stored.gather(torch.tensor([3, 0, 3])).steps, side.steps[[3, 0, 3]])


def test_bad_arguments_are_named():
    one, two = clips(1, 4, 0), clips(2, 4, 0)
    distance = Distance("interpolated_euclidean")
    with pytest.raises(ValueError, match="unknown retrieval fast; expected some of mean, sequence, hybrid"):
        evaluate(two, two, distance, modes=("mean", "fast"))
    with pytest.raises(ValueError, match="hybrid_k must be at least 1, got 0"):
        evaluate(two, two, distance, hybrid_k=0)
    with pytest.raises(ValueError, match="got 1 videos, 2 audios"):
        evaluate(one, two, distance)
    assert not math.isnan(evaluate(one, one, distance)[0]["MeanR"])
