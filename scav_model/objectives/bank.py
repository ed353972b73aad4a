"""A contrast whose positives and negatives are supplemented, clip by clip, from a memory bank.

After "Audio-Visual Contrastive Learning with Temporal Self-Supervision" (arXiv 2302.07702), which supplements the usual
pairs with sample-dependent positives and negatives from the evolving feature space. How they are found is our reading:
the bank holds the momentum encoders' keys of the latest clips, and clip i is as far from clip j of it as their pooled
cosines say within both modalities, (1 − cos(v̂_i, v̂_j)) + (1 − cos(â_i, â_j)), its own earlier entries being no part of
it. Then

- the nearest `neighbors` are further positives P_i of both directions;
- `hard` of the `candidates` next nearest, drawn anew in each step, are further negatives N_i.
"""

import torch
from torch import Tensor

from scav_model import parallel
from scav_model.distances import Sequences, pooled
from scav_model.losses import ContrastiveLoss
from scav_model.model import AudioVisualModel
from scav_model.objective_config import NegativesConfig
from scav_model.objectives.dictionary import Batched, Entries
from scav_model.objectives.sources import Source


def neighborhood(batch: Batched, videos: Entries, audios: Entries) -> Tensor:
    """Distance (B, K) of each clip of the batch to each of the bank, in both modalities; infinite to itself."""
    similar = pooled(batch.video_keys) @ pooled(videos.clips).T + pooled(batch.audio_keys) @ pooled(audios.clips).T
    return (2 - similar).masked_fill(batch.keys[:, None] == videos.keys, torch.inf)


def draw(distances: Tensor, positives: int, candidates: int, negatives: int) -> tuple[Tensor, Tensor]:
    """Places in the bank (B, positives) and (B, negatives), for each row of distances (B, K) without repetition.

    K is at least positives + candidates, and candidates at least negatives.
    """
    order = distances.argsort(stable=True, dim=1)
    near, further = order[:, :positives], order[:, positives : positives + candidates]
    drawn = torch.rand(further.shape).argsort(1)[:, :negatives].to(further.device)
    return near, further.gather(1, drawn)


def supplemented_loss(all_pairs: Tensor, own: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Mean over clips and over each clip's positives of the cross-entropy of a positive against all negatives, in nats.

    Args:
        all_pairs: logits (B, C) of clips against those of the batch, all processes' clips together.
        own: (B, C) bool, True once in a row: where a clip meets its own other side, its first positive; the rest are
            negatives.
        positives: logits (B, P) of further positives.
        negatives: logits (B, H) of further negatives.

    A positive does not compete with the others: the denominator of each holds itself and the negatives.
    """
    against = torch.cat((all_pairs.masked_fill(own, -torch.inf), negatives), dim=1).logsumexp(1, keepdim=True)  # (B, 1)
    wanted = torch.cat((all_pairs[own][:, None], positives), dim=1)  # (B, 1 + P)
    return (torch.logaddexp(wanted, against) - wanted).mean()


class BankSource(Source):
    """The batch's other clips, and for each clip positives and negatives of its own from a bank of `size` clips.

    Until the bank holds enough other clips for all of them, the batch alone is contrasted.
    """

    def __init__(self, config: NegativesConfig, model: AudioVisualModel) -> None:
        super().__init__(config, model, config.size)

    def contrast(self, contrast: ContrastiveLoss, batch: Batched) -> Tensor:
        scale, all_pairs = contrast.scale, contrast.distance.all_pairs
        of_videos = -scale * all_pairs(batch.video, parallel.gather(batch.audio))  # (B, C)
        # A process alone has made the other direction already.
        alone = parallel.world_size() == 1
        of_audios = of_videos.T if alone else -scale * all_pairs(parallel.gather(batch.video), batch.audio).T
        own = batch.keys[:, None] == batch.all_keys
        empty = of_videos.new_empty(len(of_videos), 0)
        more = ((empty, empty), (empty, empty))
        videos, audios = self.memory.entries()
        config = self.config
        needed = config.neighbors + config.candidates
        distances = neighborhood(batch, videos, audios)
        if len(videos.keys) and bool((distances.isfinite().sum(1) >= needed).all()):
            near, hard = draw(distances, config.neighbors, config.candidates, config.hard)
            places = torch.cat((near, hard), dim=1)  # (B, P + H)
            found = (
                self.logits(contrast, batch.video, audios, places, to_video=False),
                self.logits(contrast, batch.audio, videos, places, to_video=True),
            )
            more = tuple((side[:, : config.neighbors], side[:, config.neighbors :]) for side in found)  # type: ignore[assignment]
        return (supplemented_loss(of_videos, own, *more[0]) + supplemented_loss(of_audios, own, *more[1])) / 2

    @staticmethod
    def logits(
        contrast: ContrastiveLoss, queries: Sequences, bank: Entries, places: Tensor, *, to_video: bool
    ) -> Tensor:
        """(B, C) of each query against the bank's clips at its `places` (B, C)."""
        clips, count = places.shape
        found = bank.chosen(places.flatten()).clips
        found = Sequences(found.steps.to(queries.steps.dtype), found.lengths)
        asked = Sequences(queries.steps.repeat_interleave(count, 0), queries.lengths.repeat_interleave(count))
        pairs = (found, asked) if to_video else (asked, found)
        return -contrast.scale * contrast.distance.pairs(*pairs).view(clips, count)
