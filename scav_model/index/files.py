"""Indexes of media files, from Python: a model decodes and encodes the files, and the queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

from scav_model.config import Option
from scav_model.data import FeatureStore
from scav_model.data.datasets import clips_of
from scav_model.data.describe import SIDES, describe_features
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.manifest import Clip
from scav_model.front_ends import described, device_of
from scav_model.index.build import Added, add_features, check_features, open_writer
from scav_model.index.header import Header, SearchIndexError
from scav_model.index.index import IndexReader
from scav_model.index.media import front_end, queries_by_name
from scav_model.index.model import header_for, load_for
from scav_model.index.search import CANDIDATES, Hit, search
from scav_model.index.writer import IndexWriter
from scav_model.model import AudioVisualModel
from scav_model.retrieval.nearest import Mode
from scav_model.storage.text import printable

if TYPE_CHECKING:
    from typing import Self

Files: TypeAlias = str | Path | Sequence[str | Path]


class SearchIndex(IndexReader):
    """An index of clips on disk, which its model encodes: build it from files, add to it, search it.

    Attributes:
        model: encodes files and queries; None: it is loaded when it is needed.
    """

    def __init__(self, folder: Path, header: Header, model: AudioVisualModel | None = None) -> None:
        super().__init__(folder, header)
        self.model = model

    @classmethod
    def build(
        cls,
        folder: str | Path,
        model: AudioVisualModel,
        files: Files,
        *,
        metric: str | None = None,
        options: dict[str, Option] | None = None,
        workers: int = 0,
    ) -> Self:
        """Decode and encode media files into an index, as `scav extract` and `scav index build` do; return it.

        The same call resumes an index that was interrupted, and passes over files that it holds.

        Args:
            folder: Of the index, new or begun with the same model.
            model: From `AudioVisualModel.from_pretrained`, with the front ends of the features that it was trained on.
            files: A folder of media files, a manifest, a media file, or a list of files. A file that cannot be used is
                left out and named.
            metric: Distance to search by, a metric of scav_kernels.cdist; None takes the model's.
            options: Keyword arguments of that metric; None takes the model's.
            workers: Processes that decode ahead; 0 decodes in this one. A script that takes more needs
                `if __name__ == "__main__":` around its work.

        Raises:
            EncoderError: the model does not remember its front ends; the message says how to name them.
            ExtractionError: none of the files can be used.
            SearchIndexError: the folder has an index of other settings, or the model was not loaded.
        """
        origin = model.loaded_from
        if origin is None:
            raise SearchIndexError(
                "expected a model that was loaded, for the index keeps its name; save it with save_pretrained and load "
                "it with AudioVisualModel.from_pretrained"
            )
        features = {side: described(model, side) for side in SIDES}
        header = header_for(Path(origin.name), model, origin.config, features, metric=metric, options=options)
        folder = Path(folder)
        with open_writer(folder, header) as writer:
            add_files(writer, model, files, workers)
        return cls(folder, Header.read(folder), model)

    def add(self, files: Files, *, workers: int = 0) -> Added:
        """Add media files, as `build` takes them, and see them at once; files whose ids are there are passed over."""
        with IndexWriter(self.folder) as writer:
            done = add_files(writer, self._loaded(), files, workers)
        self._read(Header.read(self.folder))
        return done

    def search(
        self,
        query: str | Path,
        k: int = 10,
        *,
        side: str | None = None,
        mode: Mode = "exact",
        candidates: int = CANDIDATES,
    ) -> list[Hit]:
        """Return the k clips nearest to a query, the nearest first.

        Args:
            query: A media file, or the id of a clip of the index.
            k: Clips to return.
            side: Side of the query, video or audio, which searches the other; None takes audio for a file of sound
                alone, and else video.
            mode: exact, hybrid, mean or bounds, as `scav search --mode` has it.
            candidates: Clips that hybrid and bounds compare.

        Raises:
            SearchIndexError: neither a file nor a clip of that name; a file that cannot be used; a bad option.
        """
        queries = queries_by_name(
            self, [str(query)], side, self._loaded, lambda side: encoder(self.header, self._loaded(), side)
        )
        return search(self, queries, k, mode=mode, candidates=candidates).hits[0]

    def _loaded(self) -> AudioVisualModel:
        if self.model is None:
            self.model = load_for(self.header)
        return self.model


def add_files(writer: IndexWriter, model: AudioVisualModel, files: Files, workers: int) -> Added:
    """Extract the features of files that the index lacks to a temporary store, encode them and add them."""
    clips, bad_lines = clips_of(files)
    rest = unindexed(IndexReader.open(writer.folder), clips)
    known = len(clips) - len(rest)
    if not rest:
        return Added(0, known)
    visual, audio = (encoder(writer.header, model, side) for side in SIDES)
    rate = writer.header.features["video"]["rate_hz"]
    if rate is None:
        raise SearchIndexError("the index does not know how many video steps a second has; build it anew from files")
    with TemporaryDirectory() as folder:
        store = Path(folder) / "features"
        # What can be used is added, and the rest named.
        config = ExtractionConfig(frame_rate=rate, workers=workers, max_bad_share=1.0)
        extracted = extract(rest, store, visual, audio, config, bad_lines=bad_lines)
        features = FeatureStore.open(store)
        check_features(writer.header, describe_features(features))
        done = add_features(writer, model, features, device=device_of(model))
    refused = [clip.id for clip in extracted.skipped] + done.refused
    return Added(done.clips, known, refused, extracted.wall_seconds + done.seconds)


def unindexed(index: IndexReader, clips: Sequence[Clip]) -> list[Clip]:
    """Return the clips that the index lacks; those whose files differ from an indexed one in the suffix alone get an id
    with the suffix."""

    def file(name: str) -> Path | None:
        path = index.media(index.numbers[name]).get("path") if name in index.numbers else None
        return None if path is None else Path(path)

    rest = []
    for clip in clips:
        path, suffix = Path(clip.path).resolve(), printable(Path(clip.path).suffix)
        stem = clip.id.removesuffix(suffix)
        other = file(stem)
        alike = other is not None and other != path and other.with_suffix("") == path.with_suffix("")
        name = stem + suffix if alike else clip.id
        if name not in index.numbers and path not in (other, file(stem + suffix)):
            rest.append(replace(clip, id=name))
    return rest


def encoder(header: Header, model: AudioVisualModel, side: str) -> Any:
    """Return the front end of one side, the model's own where it has been made or named."""
    if side not in model.front_ends:
        model.front_ends[side] = front_end(header, side, device=device_of(model))
    return model.front_ends[side]
