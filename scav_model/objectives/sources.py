"""Sources of negatives from earlier steps: a queue, and dictionaries selected from a pool.

Each source encodes the batch's keys with momentum encoders, contrasts the batch with what it holds from *earlier*
steps, and takes the keys in once the optimizer has stepped; so no clip of a batch meets its own batch's keys.
"""

import abc

import torch
from torch import Tensor, nn

from scav_model import parallel
from scav_model.data import Batch, Features, collate
from scav_model.distances import Sequences, pooled
from scav_model.losses import ContrastiveLoss
from scav_model.model import AudioVisualModel
from scav_model.objective_config import NegativesConfig
from scav_model.objectives.active import select
from scav_model.objectives.dictionary import Batched, Counters, Entries, Queue, Shelf, clip_keys, dictionary_loss
from scav_model.objectives.momentum import MomentumEncoder

# Candidates that are encoded at a time.
ENCODED_TOGETHER = 64


class Source(nn.Module, abc.ABC):
    """Negatives from outside the batch. `memory` holds the keys of the latest clips.

    Several processes that train as one hold the same: the keys of all of them, and the same choice among them.
    """

    def __init__(self, config: NegativesConfig, model: AudioVisualModel, memory: int) -> None:
        super().__init__()
        self.config = config
        self.momentum = MomentumEncoder(model, config.momentum)
        self.memory = Queue(memory, model.config.dim)
        self.pending: list[Batched] = []

    def forward(self, contrast: ContrastiveLoss, video: Sequences, audio: Sequences, batch: Batch) -> Tensor:
        """The loss in nats, a scalar; clip i of the encoded video and audio is clip i of the batch."""
        video_keys, audio_keys = self.momentum(batch)
        keys = self.keys(batch)
        batched = Batched(video, audio, video_keys, audio_keys, keys, parallel.gather_rows(keys))
        loss = self.contrast(contrast, batched)
        self.pending.append(batched)
        return loss

    def keys(self, batch: Batch) -> Tensor:
        """Return the numbers (B,) by which clips are told apart."""
        return clip_keys(batch.ids, batch.video.device, self.config.copy_mark)

    @abc.abstractmethod
    def contrast(self, contrast: ContrastiveLoss, batch: Batched) -> Tensor:
        """The loss against what this source holds."""

    def after_step(self, model: AudioVisualModel) -> None:
        """Takes the keys of the step's batches in, then lets the momentum encoders follow the model."""
        if not self.pending:
            raise RuntimeError("after_step follows a forward pass, and there was none since the last one")
        for batch in self.pending:
            self.memory.push(parallel.gather(batch.video_keys), parallel.gather(batch.audio_keys), batch.all_keys)
        self.pending.clear()
        self.momentum.follow(model)


class QueueSource(Source):
    """MoCo's dictionary (arXiv 1911.05722): the keys of the latest `size` clips."""

    def __init__(self, config: NegativesConfig, model: AudioVisualModel) -> None:
        super().__init__(config, model, config.size)

    def contrast(self, contrast: ContrastiveLoss, batch: Batched) -> Tensor:
        return dictionary_loss(contrast, batch, *self.memory.entries())


class SelectedSource(Source, abc.ABC):
    """Dictionaries of `size` clips, one per modality, selected anew every `every` steps from the latest `pool` clips.

    CM-ACC draws its candidates from the data set and encodes them for each selection; `encode_anew` does so, from
    `features`. The pool of the latest clips is such a draw already, the batches being one, and is encoded: our
    approximation, whose keys are up to pool / batch steps old. The batch at hand is never selected from.
    """

    features: Features | None = None

    def __init__(self, config: NegativesConfig, model: AudioVisualModel) -> None:
        # Candidates that are encoded anew need no memory of earlier ones.
        super().__init__(config, model, 1 if config.encode_anew else config.pool)
        self.videos, self.audios = (Shelf(config.size, model.config.dim) for _ in range(2))
        # Entries in either dictionary, and steps since the last selection.
        self.counters = Counters(2)

    @property
    def held(self) -> int:
        """Entries in either dictionary."""
        return self.counters.values[0]

    def contrast(self, contrast: ContrastiveLoss, batch: Batched) -> Tensor:
        _, age = self.counters.values
        if age == 0:
            self.renew(contrast, batch.all_keys)
        return dictionary_loss(contrast, batch, self.videos.first(self.held), self.audios.first(self.held))

    @torch.no_grad()
    def renew(self, contrast: ContrastiveLoss, own: Tensor) -> None:
        """Selects both dictionaries from what the pool holds of other clips than `own` (B,)."""
        videos, audios = self.candidates(own.device)
        free = torch.isin(videos.keys, own, invert=True).nonzero()[:, 0]
        count = min(self.config.size, len(free))
        if count == 0:
            self.counters.set(0, 0)
            return
        candidates = videos.chosen(free), audios.chosen(free)
        chosen = self.choose(contrast, *candidates, count)
        places = torch.arange(count, device=free.device)
        for shelf, entries, indices in zip((self.videos, self.audios), candidates, chosen, strict=True):
            shelf.write(places, entries.chosen(indices))
        self.counters.set(count, 0)

    def candidates(self, device: torch.device) -> tuple[Entries, Entries]:
        """Return the pool: the latest clips, or clips drawn from the training set and encoded now."""
        if self.features is None:
            return self.memory.entries()
        count = min(self.config.pool, len(self.features))
        chosen = draw(len(self.features), count, torch.device("cpu")).tolist()
        pool = Queue(count, self.videos.steps.shape[2]).to(device)
        for start in range(0, count, ENCODED_TOGETHER):
            batch = collate(self.features, chosen[start : start + ENCODED_TOGETHER]).to(device)
            videos, audios = self.momentum(batch)
            pool.push(videos, audios, self.keys(batch))
        return pool.entries()

    @abc.abstractmethod
    def choose(self, contrast: ContrastiveLoss, videos: Entries, audios: Entries, count: int) -> tuple[Tensor, Tensor]:
        """(count,) distinct candidates among the videos, and among the audios."""

    def after_step(self, model: AudioVisualModel) -> None:
        super().after_step(model)
        held, age = self.counters.values
        self.counters.set(held, (age + 1) % self.config.every)


def draw(candidates: int, count: int, device: torch.device) -> Tensor:
    """(count,) distinct indices below `candidates`, the same in every process."""
    return parallel.from_first(torch.randperm(candidates)[:count]).to(device)


class RandomSource(SelectedSource):
    """Uniformly, without repetition: what active selection is compared with."""

    def choose(self, contrast: ContrastiveLoss, videos: Entries, audios: Entries, count: int) -> tuple[Tensor, Tensor]:
        device = videos.keys.device
        return draw(len(videos.keys), count, device), draw(len(audios.keys), count, device)


class ActiveSource(SelectedSource):
    """By k-means++ seeding of gradient embeddings, whose posteriors are over the other modality's dictionary.

    Both dictionaries are chosen from before either is replaced; the first ones are random.
    """

    def choose(self, contrast: ContrastiveLoss, videos: Entries, audios: Entries, count: int) -> tuple[Tensor, Tensor]:
        device = videos.keys.device
        if self.held == 0:
            return draw(len(videos.keys), count, device), draw(len(audios.keys), count, device)
        scale = contrast.scale
        by_videos = contrast.distance.all_pairs(self.videos.first(self.held).clips, audios.clips).T  # (N, K)
        by_audios = contrast.distance.all_pairs(videos.clips, self.audios.first(self.held).clips)
        uniforms = parallel.from_first(torch.rand(2, count, dtype=torch.float64)).to(device)
        return (
            select((-scale * by_audios).softmax(1), pooled(videos.clips), count, uniforms[0]),
            select((-scale * by_videos).softmax(1), pooled(audios.clips), count, uniforms[1]),
        )
