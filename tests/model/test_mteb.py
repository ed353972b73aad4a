"""mteb evaluates a checkpoint on rendered clips, without a network, to the recalls of `scav evaluate`."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

mteb = pytest.importorskip("mteb", reason="the extra `mteb` is not installed")

from datasets import Audio, Dataset, Video  # noqa: E402
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.models.models_protocols import EncoderProtocol, SearchProtocol  # noqa: E402

from scav_model.checkpoint import save  # noqa: E402
from scav_model.cli import main  # noqa: E402
from scav_model.config import Config, LossConfig, ModelConfig, to_dict  # noqa: E402
from scav_model.data.extract import ExtractionConfig, extract  # noqa: E402
from scav_model.data.frontends import FramePatchConfig, LogMelConfig  # noqa: E402
from scav_model.data.manifest import Clip  # noqa: E402
from scav_model.encoders import audio_encoder, visual_encoder  # noqa: E402
from scav_model.experiments.demo.render import render  # noqa: E402
from scav_model.experiments.demo.scene import SceneConfig, make_scene  # noqa: E402
from scav_model.model import AudioVisualModel  # noqa: E402
from scav_model.mteb import MeanEncoder, SequenceSearch, load_data, side_of  # noqa: E402

CLIPS = 12


def metadata(category: str) -> TaskMetadata:
    return TaskMetadata(
        name=f"Rendered{category.upper()}Retrieval",
        description="Rendered clips.",
        dataset={"path": "none", "revision": "0"},
        type="Any2AnyRetrieval",
        category=category,
        modalities=["video", "audio"],
        eval_splits=["test"],
        eval_langs=["zxx-Zxxx"],
        main_score="recall_at_1",
    )


class Rendered(AbsTaskRetrieval):
    """Clips as mp4 files, or as their bytes, on either side; query i asks for document i."""

    files: list[Path]
    as_bytes = False
    metadata = metadata("v2a")

    def load_data(self, **_):
        def column(side: str):
            values = [file.read_bytes() if self.as_bytes else str(file) for file in self.files]
            feature = Video() if side == "video" else Audio()
            return Dataset.from_dict({side: values}).cast_column(side, feature)

        sides = ("video", "audio") if self.metadata.category == "v2a" else ("audio", "video")
        names = [f"clip-{number}" for number in range(len(self.files))]
        queries, corpus = (column(side).add_column("id", names) for side in sides)
        relevant = {name: {name: 1} for name in names}
        split = {"queries": queries, "corpus": corpus, "relevant_docs": relevant, "top_ranked": self.listed()}
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True

    def listed(self):
        return None


class RenderedA2V(Rendered):
    metadata = metadata("a2v")
    as_bytes = True


class Reranked(Rendered):
    """Each query has its own clip and the next two to choose among."""

    def listed(self):
        return {
            f"clip-{number}": [f"clip-{(number + step) % len(self.files)}" for step in (2, 1, 0)]
            for number in range(len(self.files))
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkpoint, the clips' files, and the recalls of `scav evaluate` by search (mean, a metric) and direction."""
    folder = tmp_path_factory.mktemp("mteb")
    config = SceneConfig(duration=1.5, shortest=1.0, short_share=0.5, strikes=(1, 2))
    files = [folder / f"{number}.mp4" for number in range(CLIPS)]
    for number, file in enumerate(files):
        render(make_scene(0, "test", number, config), file)
    clips = [Clip(f"clip-{number}", str(file), split="test") for number, file in enumerate(files)]
    extract(
        clips, folder / "features", visual_encoder("patches"), audio_encoder("log_mel"), ExtractionConfig(workers=0)
    )
    torch.manual_seed(3)
    sizes = {"visual_input": FramePatchConfig().dim, "audio_input": LogMelConfig().dim}
    model = ModelConfig(dim=8, visual_blocks=1, audio_blocks=1, heads=2, conv_kernel=4, conv_groups=4, **sizes)
    checkpoint = folder / "tiny" / "checkpoint.pt"
    checkpoint.parent.mkdir()
    config = Config(model=model, loss=LossConfig(metric="dtw"))
    save(checkpoint, {"config": to_dict(config), "model": AudioVisualModel(model).state_dict()})
    arguments = [f"--checkpoint={checkpoint}", f"--features={folder / 'features'}", f"--output={folder / 'found.json'}"]
    expected = {}
    for mode, search in (("mean", "mean"), ("sequence", "dtw"), ("sequence", "interpolated_euclidean")):
        metric = [] if mode == "mean" else [f"--metric={search}"]
        assert main(["evaluate", f"--modes=[{mode}]", *metric, *arguments]) == 0
        rows = json.loads((folder / "found.json").read_text())
        expected |= {(search, row["direction"]): row for row in rows}
    return checkpoint, files, expected


def scores(model, task_class, files):
    task = task_class()
    task.files = files
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


@pytest.mark.slow
@pytest.mark.parametrize(("direction", "task"), [("v2a", Rendered), ("a2v", RenderedA2V)])
@pytest.mark.parametrize("search", ["mean", "dtw", "interpolated_euclidean"])
def test_recalls_are_those_of_scav_evaluate(world, search, direction, task):
    """DTW is the checkpoint's own metric; interpolated Euclidean tells which side is the video."""
    checkpoint, files, expected = world
    makers = {"mean": MeanEncoder, "dtw": SequenceSearch, "interpolated_euclidean": SequenceSearch}
    options = {"metric": search} if search == "interpolated_euclidean" else {}
    found = scores(makers[search](checkpoint, **options), task, files)
    for k in (1, 5, 10):
        assert 100 * found[f"recall_at_{k}"] == pytest.approx(expected[search, direction][f"R@{k}"], abs=1e-3)
    assert 0 < found["recall_at_5"] < 1


def media(files: list[Path], side: str) -> Dataset:
    """A column of files, as data sets on the Hub have them: their bytes."""
    values = [{"bytes": file.read_bytes(), "path": None} for file in files]
    return Dataset.from_dict({side: values}).cast_column(side, Video() if side == "video" else Audio())


def at_home(name: str, folder: Path):
    """mteb's own task of that name, with a data set of its form in a folder."""
    with warnings.catch_warnings(action="ignore"):  # Some are in beta.
        task = mteb.get_task(name)
    task.metadata = task.metadata.model_copy(update={"dataset": {"path": str(folder), "revision": "local"}})
    return task


def evaluated(model, task, *measures: str):
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False, raise_error=True)
    scores = result.task_results[0].scores["test"][0]
    return [scores[measure] for measure in measures]


@pytest.fixture(scope="module")
def greatest_hits(world, tmp_path_factory):
    """The clips in the form of the Greatest Hits, in both directions: three materials of four clips each."""
    _, files, _ = world
    names = [f"clip-{number}" for number in range(CLIPS)]
    pairs = [(query, item) for query in range(CLIPS) for item in range(CLIPS) if query % 3 == item % 3]
    relevant = {"query-id": [names[q] for q, _ in pairs], "corpus-id": [names[i] for _, i in pairs]}
    folders = {}
    for category, sides in (("v2a", ("video", "audio")), ("a2v", ("audio", "video"))):
        folder = folders[category] = tmp_path_factory.mktemp(category)
        parts = {
            part: media(files, side).add_column("id", names)
            for part, side in zip(("queries", "corpus"), sides, strict=True)
        }
        parts["qrels"] = Dataset.from_dict({**relevant, "score": [1] * len(pairs)})
        card = "---\nconfigs:\n"
        for part, rows in parts.items():
            rows.to_parquet(folder / f"{part}.parquet")
            card += f"- config_name: {part}\n  data_files:\n  - split: test\n    path: {part}.parquet\n"
        (folder / "README.md").write_text(f"{card}---\n")
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["v2a", "a2v"])
def test_mtebs_greatest_hits_runs_on_clips_of_its_form(world, greatest_hits, direction):
    """Against the distances themselves: an item of the same material among the first, as mteb's hit rate counts it."""
    checkpoint, files, _ = world
    model = SequenceSearch(checkpoint)
    task = load_data(at_home(f"GreatestHits{direction.upper()}Retrieval", greatest_hits[direction]))
    measured = evaluated(model, task, "hit_rate_at_1", "hit_rate_at_3", "recall_at_3")
    video, audio = (
        model._sequences(media(files, side).add_column("id", list(map(str, range(CLIPS)))), side, {}, 0)
        for side in ("video", "audio")
    )
    distances = model.distance.all_pairs(video, audio)
    order = (distances if direction == "v2a" else distances.T).argsort(1)
    same = order % 3 == torch.arange(CLIPS)[:, None] % 3
    expected = [same[:, 0].double().mean(), same[:, :3].any(1).double().mean(), (same[:, :3].sum(1) / 4).mean()]
    assert measured == pytest.approx([float(value) for value in expected], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["v2a", "a2v"])
def test_mtebs_vggsound_runs_on_clips_of_its_form(world, tmp_path, direction):
    checkpoint, files, expected = world
    rows = media(files, "video").add_column(
        "audio", media(files, "audio").cast_column("audio", Audio(decode=False))["audio"]
    )
    captions = {name: [f"{name} {number}" for number in range(CLIPS)] for name in ("video_caption", "audio_caption")}
    for name, values in captions.items():
        rows = rows.add_column(name, values)
    rows.cast_column("audio", Audio()).to_parquet(tmp_path / "test.parquet")
    task = load_data(at_home(f"VGGSoundAV{direction.upper()}Retrieval", tmp_path))
    found = evaluated(SequenceSearch(checkpoint), task, *(f"recall_at_{k}" for k in (1, 5, 10)))
    right = expected["dtw", direction]
    assert [100 * value for value in found] == pytest.approx([right[f"R@{k}"] for k in (1, 5, 10)], abs=1e-3)


def test_clips_of_both_sides_have_both_means(world):
    checkpoint, files, _ = world
    model = MeanEncoder(checkpoint)
    both = media(files[:3], "video").add_column(
        "audio", media(files[:3], "audio").cast_column("audio", Audio(decode=False))["audio"]
    )
    loader = SimpleNamespace(dataset=both.cast_column("audio", Audio()), num_workers=0)
    names = {"hf_split": "test", "hf_subset": "default"}
    clips = mteb.get_task("AVEDatasetClassification").metadata
    found = torch.from_numpy(model.encode(loader, task_metadata=clips, **names))
    assert found.shape == (3, 16)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    for start, side in ((0, "video"), (8, "audio")):
        alone = Rendered.metadata.model_copy(update={"category": "v2v", "modalities": [side]})
        one = torch.from_numpy(model.encode(loader, task_metadata=alone, **names))
        torch.testing.assert_close(found[:, start : start + 8] * 2**0.5, one)
    with pytest.raises(ValueError, match=r"expected .* to be video or audio, got both; take tasks of category v2a"):
        side_of(clips, None)


def test_reranking_orders_what_is_listed(world):
    checkpoint, files, _ = world
    model = SequenceSearch(checkpoint)
    assert scores(model, Reranked, files)["recall_at_3"] == 1
    task = Reranked()
    task.files = files
    task.load_data()
    split = task.dataset["default"]["test"]
    names = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}}
    model.index(split["corpus"], **names)
    found = model.search(split["queries"], top_k=CLIPS, **names)
    reranked = model.search(split["queries"], top_k=2, top_ranked=split["top_ranked"], **names)
    for query, listed in split["top_ranked"].items():
        best = sorted(listed, key=found[query].__getitem__, reverse=True)[:2]
        assert list(reranked[query]) == best
        assert list(reranked[query].values()) == pytest.approx([found[query][name] for name in best])


def test_a_metric_of_ones_own(world):
    checkpoint, _, _ = world
    model = SequenceSearch(checkpoint, metric="sinkhorn", metric_options={"epsilon": 0.5}, name="mine")
    assert isinstance(model, EncoderProtocol)
    assert isinstance(model, SearchProtocol)
    assert model.mteb_model_meta.experiment_kwargs == {"search": "sinkhorn", "epsilon": 0.5}
    assert (model.mteb_model_meta.name, model.mteb_model_meta.embed_dim) == ("scav/mine", 8)
    assert isinstance(MeanEncoder(checkpoint), EncoderProtocol)
    assert not isinstance(MeanEncoder(checkpoint), SearchProtocol)


def test_what_cannot_be_taken_is_named(world, tmp_path):
    checkpoint, files, _ = world
    model = SequenceSearch(checkpoint)
    texts = Rendered.metadata.model_copy(update={"category": "t2v", "modalities": ["text", "video"]})
    with pytest.raises(ValueError, match="expected query to be video or audio, got text; take tasks of category v2a"):
        model.search(None, task_metadata=texts, hf_split="test", hf_subset="", top_k=1, encode_kwargs={})
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="clip-1 cannot be decoded: not a readable media file"):
        scores(model, Rendered, [files[0], broken])
    column = Dataset.from_dict({"id": ["a"], "audio": ["no file"]})
    with pytest.raises(ValueError, match="expected a column 'audio' of media files, got Value"):
        list(model.batches(column, "audio", batch_size=1, workers=0))
    small = tmp_path / "checkpoint.pt"
    config = replace(model.config, model=replace(model.config.model, visual_input=5))
    save(small, {"config": to_dict(config), "model": AudioVisualModel(config.model).state_dict()})
    with pytest.raises(ValueError, match="trained on video steps of 5 features, and this front end makes 384"):
        MeanEncoder(small)


@pytest.mark.slow
def test_mtebs_ave_runs_on_clips_of_its_form(world, tmp_path):
    """Labels that are not seen: what counts is that clips of both sides go all the way to a score."""
    checkpoint, files, _ = world
    for split in ("train", "test"):
        rows = media(files, "video").add_column("audio", [{"bytes": file.read_bytes(), "path": None} for file in files])
        rows = rows.cast_column("audio", Audio()).add_column("label", [number % 2 for number in range(CLIPS)])
        rows.to_parquet(tmp_path / f"{split}.parquet")
    task = at_home("AVEDatasetClassification", tmp_path)
    (accuracy,) = evaluated(MeanEncoder(checkpoint), task, "accuracy")
    assert 0 <= accuracy <= 1
