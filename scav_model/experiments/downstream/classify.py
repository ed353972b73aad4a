"""Classification of clips by frozen embeddings: a linear probe, and k-nearest neighbors.

Probes learn from the labeled training clips and classify the test clips. Nothing is tuned on the test clips.

| classifier | embedding `mean` | embedding `sequence` |
|---|---|---|
| linear | logistic regression on the mean step | the same on the means of 8 equal parts, one after the other |
| knn | neighbors by the cosine of mean steps | neighbors by the distance that the model searches sequences by |
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from scav_model.data import Features
from scav_model.distances import Distance, Sequences, pooled, retrieval_distance
from scav_model.experiments.downstream.labels import Fold, clip_name, column_fold, read_column, read_folds
from scav_model.experiments.downstream.models import FEATURES, KEYS, Comparison, encode_sides, raw_sides
from scav_model.experiments.downstream.results import write_rows
from scav_model.experiments.probes.results import Results
from scav_model.experiments.tables import Row
from scav_model.extras import needed_by
from scav_model.progress import Progress
from scav_model.storage.files import working_in

PARTS = 8
# Raw features are not made for any distance; this one needs no setting.
RAW_DISTANCE = "interpolated_euclidean"
# Rows of distances that are computed at a time.
BLOCK = 256


@torch.no_grad()
def run_classify(
    comparison: Comparison,
    *,
    column: Sequence[str] = (),
    folds: str | None = None,
    neighbors: int = 10,
    penalty: float = 1.0,
    resume: bool = False,
    overwrite: bool = False,
) -> list[Row]:
    """Return a row for each model, task, fold, side, classifier and embedding; write results.json and table.md.

    A row's `accuracy` and `chance` (that of always answering the commonest class of the training clips) are in percent.

    Args:
        column: Columns of the manifest to learn to tell, one after the other; none takes label, or the demo's two.
        folds: Official folds in place of a column and of the splits: ucf101:FOLDER, hmdb51:FOLDER or esc50:FILE.
        neighbors: Nearest training clips that vote; ties go to the nearer ones.
        penalty: Strength of the linear probe's L2 penalty on standardized embeddings, above 0.
        resume: Keep the finished models of an earlier run with the same settings.
    """
    if neighbors < 1:
        raise ValueError(f"neighbors must be at least 1, got {neighbors}")
    if not penalty > 0:
        raise ValueError(f"penalty must be above 0, got {penalty}")
    clips, tasks = _tasks(comparison, column, folds)
    settings = {
        **comparison.settings(),
        "tasks": list(tasks),
        "folds": folds,
        "neighbors": neighbors,
        "penalty": penalty,
    }
    out = comparison.out / "classify"
    with working_in(out, "runs an experiment"):
        results = Results(out, settings, KEYS, resume=resume, overwrite=overwrite)

        def search(cell: Row) -> list[Row]:
            if cell["model"] == FEATURES:
                sides, distance = raw_sides(clips), Distance(RAW_DISTANCE)
            else:
                model, config = comparison.model(cell)
                sides, distance = encode_sides(model, clips), retrieval_distance(config)
            return [
                {"task": task, "fold": fold.name, **row}
                for task, found in tasks.items()
                for fold in found
                for row in classify(sides, fold, clips.ids, distance, neighbors, penalty)
            ]

        rows = results.fill(comparison.cells(), search)
        note = "Accuracy in % (chance: the commonest class), mean ± standard deviation over seeds and folds."
        write_rows(comparison, out, rows, note)
        return rows


def _tasks(comparison: Comparison, columns: Sequence[str], folds: str | None) -> tuple[Features, dict[str, list[Fold]]]:
    """Return the clips that have a label, and the folds of each task."""
    if folds is not None:
        name, found = read_folds(folds)
        tasks = {name: found}
        clips = comparison.clips()
    else:
        if comparison.labels is None:
            raise ValueError("expected labels; name the manifest that has them with --manifest, or --folds")
        train, test = comparison.clips("train"), comparison.clips("test")
        tasks = {
            column: [column_fold(read_column(comparison.labels, column), train.ids, test.ids)]
            for column in columns or comparison.columns
        }
        clips = comparison.clips()
    places = {clip_name(name): place for place, name in enumerate(clips.ids)}
    used: set[int] = set()
    for task, found in tasks.items():
        names = {clip_name(name) for fold in found for side in (fold.train, fold.test) for name in side}
        missing = len(names - places.keys())
        if missing:
            Progress.write(f"{task}: {missing} of {len(names)} labeled clips have no features", file=sys.stderr)
        used |= {places[name] for name in names & places.keys()}
    return clips.subset(sorted(used)), tasks


def classify(
    sides: Mapping[str, Sequences],
    fold: Fold,
    ids: Sequence[str],
    distance: Distance,
    neighbors: int,
    penalty: float,
) -> Iterator[Row]:
    """Yield a row for each side, classifier and embedding.

    Args:
        sides: embedded clips, by side.
        fold: labels of the clips to learn from, and of those to classify.
        ids: of the embedded clips.
        distance: between sequences.
        neighbors: nearest clips that vote.
        penalty: of the linear probe.
    """
    names = [clip_name(name) for name in ids]
    train, test = ({clip_name(name): label for name, label in labels.items()} for labels in (fold.train, fold.test))
    known = [place for place, name in enumerate(names) if name in train]
    asked = [place for place, name in enumerate(names) if name in test]
    if not known or not asked:
        raise ValueError(
            f"fold {fold.name}: expected clips to learn from and to classify, got {len(known)} and {len(asked)} with "
            "features; the names of the fold's files must be those of the clips"
        )
    truth = np.array([train[names[place]] for place in known])
    right = np.array([test[names[place]] for place in asked])
    classes, counts = np.unique(truth, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"fold {fold.name}: expected at least two classes, got {classes[0]} alone")
    chance = 100 * float(np.mean(right == classes[counts.argmax()]))
    for side, clips in sides.items():
        learned, tested = (Sequences(clips.steps[chosen], clips.lengths[chosen]) for chosen in (known, asked))
        answers = {
            ("linear", "mean"): linear(pooled(learned).numpy(), truth, pooled(tested).numpy(), penalty),
            ("linear", "sequence"): linear(parts(learned), truth, parts(tested), penalty),
            ("knn", "mean"): nearest(1 - (pooled(tested) @ pooled(learned).T).numpy(), truth, neighbors),
            ("knn", "sequence"): nearest(between(tested, learned, distance), truth, neighbors),
        }
        for (classifier, embedding), answer in answers.items():
            yield {
                "side": side,
                "classifier": classifier,
                "embedding": embedding,
                "accuracy": 100 * float(np.mean(answer == right)),
                "chance": chance,
                "clips": len(right),
            }


def parts(clips: Sequences) -> NDArray[np.float32]:
    """Return the means (B, 8·D) of 8 equal parts of each clip."""
    found = [
        F.adaptive_avg_pool1d(steps[:length].T, PARTS).T.flatten()
        for steps, length in zip(clips.steps, clips.lengths.tolist(), strict=True)
    ]
    return torch.stack(found).numpy()


def between(queries: Sequences, items: Sequences, distance: Distance) -> NDArray[np.float32]:
    """Return the distances (Q, G) of sequences of one side."""
    blocks = (
        distance.all_pairs(Sequences(steps, lengths), items)
        for steps, lengths in zip(queries.steps.split(BLOCK), queries.lengths.split(BLOCK), strict=True)
    )
    return torch.cat([*blocks]).numpy()


def linear(known: NDArray[Any], truth: NDArray[Any], asked: NDArray[Any], penalty: float) -> NDArray[Any]:
    """Return the classes of `asked` (Q, D) by logistic regression on `known` (G, D) of classes `truth` (G,)."""
    with needed_by("scav probe classify", "sklearn"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=2000))
    with warnings.catch_warnings():
        # Labels are classes, however many.
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        return probe.fit(known, truth).predict(asked)


def nearest(distances: NDArray[Any], truth: NDArray[Any], neighbors: int) -> NDArray[Any]:
    """Return the commonest class among the nearest items by distances (Q, G); ties go to the nearer ones."""
    order = np.argsort(distances, axis=1, kind="stable")[:, :neighbors]
    answers = []
    for row in truth[order]:
        classes, first, counts = np.unique(row, return_index=True, return_counts=True)
        tied = counts == counts.max()
        answers.append(classes[tied][first[tied].argmin()])
    return np.array(answers)
