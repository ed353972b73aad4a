"""Checkpoints as models of mteb, the Massive Text Embedding Benchmark, which has audio-visual retrieval tasks too.

`MeanEncoder` gives a clip's mean step, as any embedding model does. `SequenceSearch` gives the same to tasks that ask
for embeddings, and searches retrieval tasks by whole sequences, exactly. Media are decoded as `scav extract` decodes
them, from the task's files: torchcodec is not needed.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from numpy.typing import NDArray
from torch import Tensor

from scav_model.checkpoint import load_model
from scav_model.config import Option
from scav_model.data.decode import DecodeError, decode_frames, decode_sound, media_seconds
from scav_model.data.workers import ordered_map
from scav_model.distances import Distance, Sequences, pooled, retrieval_distance
from scav_model.encoders import EncoderOptions, audio_encoder, visual_encoder
from scav_model.encoders.weights import weights_sha256
from scav_model.extras import needed_by
from scav_model.progress import Progress
from scav_model.retrieval.gallery import GalleryItems, InMemory
from scav_model.retrieval.nearest import nearest

with needed_by("scav_model.mteb", "mteb"):
    from datasets import Audio, Dataset, Video, load_dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalDatasetLoader
    from mteb.models.model_meta import ModelMeta, ScoringFunction
    from mteb.types import PromptType

SIDES = ("video", "audio")


class MeanEncoder:
    """A checkpoint as mteb's `EncoderProtocol`: mean steps, scaled to length 1, compared by cosine.

    It takes tasks whose queries and documents are each video or audio, and classification and clustering of clips with
    both, which get the mean steps of the two sides, one after the other.

    Args:
        checkpoint: a run's folder, its checkpoint.pt, a folder that save_pretrained wrote, or owner/name on the Hub.
        visual: front end of the training's features, as `scav extract` takes it.
        audio: front end of the sound, in the same way.
        options: of both front ends.
        frame_rate: frames per second given to the visual front end; as in the training's features.
        device: that the model runs on.
        name: of the model in mteb's results; None takes the name of the checkpoint's folder.

    Raises:
        ValueError: the model was trained on features of other sizes than the front ends'.
    """

    def __init__(
        self,
        checkpoint: Path | str,
        *,
        visual: str = "patches",
        audio: str = "log_mel",
        options: EncoderOptions | None = None,
        frame_rate: float = 5.0,
        device: str = "cpu",
        name: str | None = None,
    ) -> None:
        path = Path(checkpoint).resolve()
        self.model, self.config = load_model(checkpoint, device)
        self.visual, self.audio = visual_encoder(visual, options), audio_encoder(audio, options)
        self.frame_rate, self.device = frame_rate, device
        sizes = {"video": (self.visual.dim, self.model.visual), "audio": (self.audio.dim, self.model.audio)}
        for side, (dim, tower) in sizes.items():
            if dim != tower.input_dim:
                raise ValueError(
                    f"{checkpoint} was trained on {side} steps of {tower.input_dim} features, and this front end makes "
                    f"{dim}; name the one of its training"
                )
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": f"scav/{name or (path if path.is_dir() else path.parent).name}",
                "revision": weights_sha256(self.model.state_dict())[:12],
                "n_parameters": sum(weights.numel() for weights in self.model.parameters()),
                "embed_dim": self.model.config.dim,
                "modalities": list(SIDES),
                "framework": ["PyTorch"],
                "similarity_fn_name": ScoringFunction.COSINE,
                "use_instructions": False,
                "experiment_kwargs": self.experiment(),
            }
        )

    def experiment(self) -> dict[str, Any]:
        """Return the settings that distinguish these results of the checkpoint from others."""
        return {"search": "mean"}

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        batch_size: int = 16,
        **rest: Any,
    ) -> NDArray[Any]:
        """Return mean steps, float32, of the data set behind mteb's loader: (B, dim), or (B, 2 · dim) of both sides.

        Rows have length 1, so that the cosine of two clips with both sides is the mean of the sides' cosines.
        """
        sides = sides_of(task_metadata, prompt_type)
        means = []
        for side in sides:
            # The loader itself would decode by torchcodec.
            batches = self.batches(inputs.dataset, side, batch_size=batch_size, workers=inputs.num_workers)
            means.append(torch.cat([torch.empty(0, self.model.config.dim), *map(pooled, batches)]))
        embeddings: NDArray[Any] = (torch.cat(means, 1) / math.sqrt(len(sides))).numpy()
        return embeddings

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosines (B1, B2) of all pairs of embeddings."""
        return torch.as_tensor(embeddings1) @ torch.as_tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosines (B,) of embeddings, pair by pair."""
        return (torch.as_tensor(embeddings1) * torch.as_tensor(embeddings2)).sum(-1)

    @torch.no_grad()
    def batches(self, dataset: Dataset, side: str, *, batch_size: int, workers: int) -> Iterator[Sequences]:
        """Yield a data set's encoded clips (B, T, dim), batch by batch, on the CPU.

        Raises:
            ValueError: a clip that cannot be decoded, or a column of something else than media.
        """
        rows = Media(dataset, side)
        prepare = self._prepare(side)
        encoder: Any = self.visual if side == "video" else self.audio
        tower = self.model.visual if side == "video" else self.model.audio
        waiting: list[Any] = []

        def encoded() -> Sequences:
            steps = encoder.encode(waiting)
            lengths = torch.tensor([len(one) for one in steps], dtype=torch.int64)
            padded = torch.nn.utils.rnn.pad_sequence(steps, batch_first=True)
            return Sequences(tower(padded.to(self.device), lengths.to(self.device)).cpu(), lengths)

        prepared = ordered_map(prepare, rows, workers=workers, waiting=batch_size)
        for clip in Progress(prepared, total=len(rows), desc=f"encode {side}", unit="clip"):
            waiting.append(clip)
            if len(waiting) == batch_size:
                yield encoded()
                waiting.clear()
        if waiting:
            yield encoded()

    def _prepare(self, side: str) -> Callable[[tuple[str, bytes | str]], Any]:
        if side == "video":
            return functools.partial(
                frames_of, rate=self.frame_rate, picture=self.visual.picture, prepare=self.visual.prepare
            )
        return functools.partial(sound_of, rate=self.audio.sample_rate, prepare=self.audio.prepare)


class SequenceSearch(MeanEncoder):
    """A checkpoint as mteb's `SearchProtocol`: retrieval by a distance between whole sequences, exact.

    The documents' encoded steps are held in memory, 4·T·dim bytes each.

    Args:
        metric: a metric of scav_kernels.cdist; None takes the one that the checkpoint is searched by.
        metric_options: of that metric; None takes the checkpoint's, or its defaults where `metric` is given.
        rest: of `MeanEncoder`.
    """

    def __init__(
        self,
        checkpoint: Path | str,
        *,
        metric: str | None = None,
        metric_options: dict[str, Option] | None = None,
        **rest: Any,
    ) -> None:
        self._metric = None if metric is None else Distance(metric, metric_options)
        super().__init__(checkpoint, **rest)

    @property
    def distance(self) -> Distance:
        return self._metric or retrieval_distance(self.config)

    def experiment(self) -> dict[str, Any]:
        return {"search": self.distance.metric, **self.distance.options}

    def index(
        self,
        corpus: Dataset,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Any,
        num_proc: int | None = None,
        **rest: Any,
    ) -> None:
        """Encode a task's documents."""
        self._ids = list(corpus["id"])
        side = side_of(task_metadata, PromptType.document)
        self._items = GalleryItems(InMemory(self._sequences(corpus, side, encode_kwargs, num_proc)), self.distance)

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Any,
        top_ranked: Any = None,
        num_proc: int | None = None,
        **rest: Any,
    ) -> dict[str, dict[str, float]]:
        """Return the scores of each query's nearest documents, by id: negated distances. With `top_ranked`, only those
        documents are compared."""
        asked, target = (side_of(task_metadata, kind) for kind in (PromptType.query, PromptType.document))
        # A video is the distance's x wherever there is one.
        side = "audio" if (asked, target) == ("audio", "video") else "video"
        sequences = self._sequences(queries, asked, encode_kwargs, num_proc)
        names = list(queries["id"])
        if top_ranked is None:
            found = nearest(sequences, self._items, side, min(top_k, len(self._ids)))
            rows = zip(names, found.numbers.tolist(), found.distances.tolist(), strict=True)
            return {
                name: {self._ids[item]: -far for item, far in zip(items, distances, strict=True)}
                for name, items, distances in rows
            }
        numbers = {name: number for number, name in enumerate(self._ids)}
        scores = {}
        for query, name in enumerate(names):
            one = Sequences(sequences.steps[query : query + 1], sequences.lengths[query : query + 1])
            listed = torch.tensor([[numbers[document] for document in top_ranked[name]]], dtype=torch.int64)
            found = nearest(one, self._items, side, top_k, method="hybrid", candidates=listed)
            nearby = zip(found.numbers[0].tolist(), found.distances[0].tolist(), strict=True)
            scores[name] = {self._ids[item]: -far for item, far in nearby}
        return scores

    def _sequences(self, dataset: Dataset, side: str, encode_kwargs: Any, workers: int | None) -> Sequences:
        found = list(self.batches(dataset, side, batch_size=encode_kwargs.get("batch_size", 16), workers=workers or 0))
        lengths = torch.cat([clips.lengths for clips in found])
        steps = torch.zeros(len(lengths), int(lengths.max()), self.model.config.dim)
        start = 0
        for clips in found:
            steps[start : start + len(clips.steps), : clips.steps.shape[1]] = clips.steps
            start += len(clips.steps)
        return Sequences(steps, lengths)


def undecoded(dataset: Dataset) -> Dataset:
    """Return the data set with its files as they are: `datasets` itself would decode all of a row's by torchcodec."""
    for name, feature in dataset.features.items():
        if isinstance(feature, Audio | Video):
            dataset = dataset.cast_column(name, type(feature)(decode=False))
    return dataset


class UndecodedLoader(RetrievalDatasetLoader):
    """mteb's loader of retrieval data, which looks at the first clip, with the files left as they are."""

    def _load_dataset_split(self, config: str, num_proc: int | None) -> Dataset:
        return undecoded(
            load_dataset(self.hf_repo, config, split=self._get_split(config), revision=self.revision, num_proc=num_proc)
        )


def load_data(task: AbsTaskRetrieval) -> AbsTaskRetrieval:
    """Load a retrieval task of one language as mteb does, but without torchcodec; return the task.

    Tasks in mteb's standard form need this, such as the two of the Greatest Hits. Others load their data themselves.
    """
    if type(task).load_data is not AbsTaskRetrieval.load_data:
        task.load_data()
        return task
    dataset = task.metadata.dataset
    loaded = {
        split: UndecodedLoader(dataset["path"], dataset["revision"], split=split, config="default").load()
        for split in task.eval_splits
    }
    task.dataset, task.data_loaded = {"default": loaded}, True
    return task


class Media(Sequence[tuple[str, "bytes | str"]]):
    """A data set's files, undecoded: each clip's id and its bytes, or its path."""

    def __init__(self, dataset: Dataset, side: str) -> None:
        feature = dataset.features.get(side)
        if not isinstance(feature, Audio | Video):
            raise ValueError(
                f"expected a column {side!r} of media files, got {feature or ', '.join(dataset.column_names)}; "
                "cast it to datasets.Audio or datasets.Video"
            )
        self.side = side
        self.dataset = undecoded(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, index: int) -> tuple[str, bytes | str]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[str, bytes | str]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row = self.dataset[index]
        media = row[self.side]
        return str(row.get("id", index)), media["bytes"] if media["bytes"] is not None else media["path"]


def sides_of(task_metadata: Any, prompt_type: PromptType | None) -> tuple[str, ...]:
    """Return video, audio, or both: the sides of the queries, of the documents, or of all clips of a task."""
    found = set(task_metadata.get_modalities(prompt_type))
    if not found or found - set(SIDES):
        raise ValueError(
            f"{task_metadata.name}: expected {prompt_type or 'inputs'} to be video or audio, got "
            f"{', '.join(sorted(found))}; take tasks of category v2a, a2v, v2v, a2a, or v2c, a2c and va2c"
        )
    return tuple(side for side in SIDES if side in found)


def side_of(task_metadata: Any, prompt_type: PromptType | None) -> str:
    """Return video or audio: the side of the queries or of the documents of a search."""
    sides = sides_of(task_metadata, prompt_type)
    if len(sides) != 1:
        raise ValueError(
            f"{task_metadata.name}: expected {prompt_type} to be video or audio, got both; take tasks of category v2a, "
            "a2v, v2v or a2a"
        )
    return sides[0]


def frames_of(clip: tuple[str, bytes | str], *, rate: float, picture: Any, prepare: Any) -> Any:
    return prepare(_decoded(clip, functools.partial(decode_frames, frame_rate=rate, picture=picture)))


def sound_of(clip: tuple[str, bytes | str], *, rate: int, prepare: Any) -> Any:
    return prepare(_decoded(clip, functools.partial(decode_sound, sample_rate=rate)))


def _decoded(clip: tuple[str, bytes | str], decode: Callable[..., NDArray[Any]]) -> NDArray[Any]:
    name, media = clip

    def source() -> io.BytesIO | str:
        return io.BytesIO(media) if isinstance(media, bytes) else media

    try:
        # Where a file has both, features end where the first of them ends, as extraction has it.
        duration = media_seconds(source())
    except DecodeError:
        duration = None
    try:
        return decode(source(), duration=duration)
    except DecodeError as error:
        raise ValueError(f"{name} cannot be decoded: {error}; leave it out of the task") from error
