"""The table of all combinations, on a handful of clips."""

import json

import pytest

from scav_model.data import FeatureSet
from scav_model.experiments import folder
from scav_model.experiments.demo import combinations as module
from scav_model.experiments.demo.combinations import RESULT, Combination, every_combination, run_combinations, tables
from scav_model.training import CHECKPOINT


@pytest.fixture
def features(tmp_path, train_features: FeatureSet, eval_features: FeatureSet):
    train_features.subset(range(12)).save(tmp_path / "features" / "train.safetensors")
    eval_features.subset(range(6)).save(tmp_path / "features" / "test.safetensors")
    return tmp_path / "features"


def test_every_distance_meets_every_source_with_and_without_tasks():
    found = [*every_combination(("cav", "scav_dtw"))]
    assert len(found) == len(set(found)) == len({combination.name for combination in found}) == 20
    config = Combination("scav_dtw", "active", True).config(epochs=3, clips=1024, seed=1, manifest=None)
    assert (config.loss.metric, config.negatives.source, config.tasks.any) == ("soft_dtw", "active", True)
    assert config.optim.epochs == 3


def test_a_table_is_made_and_an_interrupted_one_goes_on(features, tmp_path, monkeypatch, capsys):
    some = [Combination("cav", "batch", False), Combination("scav_euclidean", "queue", True)]
    monkeypatch.setattr(module, "every_combination", lambda systems: iter(some))
    out = tmp_path / "out"
    trained = []

    def train(config, *arguments, **options):
        if len(trained) == 1:
            trained.append("interrupted")
            raise KeyboardInterrupt
        trained.append(config.negatives.source)
        return whole(config, *arguments, **options)

    whole = folder.train
    monkeypatch.setattr(folder, "train", train)
    with pytest.raises(KeyboardInterrupt):
        run_combinations(features, out, epochs=1, threads=1)
    run_combinations(features, out, epochs=1, threads=1, resume=True)
    assert trained == ["batch", "interrupted", "queue"]
    rows = json.loads((out / "combinations.json").read_text())
    assert [(row["distance"], row["source"], row["tasks"]) for row in rows] == [
        ("cav", "batch", False),
        ("scav_euclidean", "queue", True),
    ]
    assert list(rows[0]["recall"]) == ["mean v2a", "mean a2v", "sequence v2a", "sequence a2v"]
    assert [len(row["accuracy"]) for row in rows] == [0, 8]
    for combination in some:
        assert {path.name for path in (out / combination.name).iterdir()} >= {CHECKPOINT, RESULT}
    text = (out / "combinations.md").read_text()
    assert text.strip() == tables(rows) == capsys.readouterr().out.strip()
    assert "| chance |  | 25.0 | 50.0 | 25.0 | 50.0 | 33.3 | 33.3 | 33.3 | 33.3 |" in text
    with pytest.raises(ValueError, match="holds a run with other settings"):
        run_combinations(features, out, epochs=2, threads=1, resume=True)
    with pytest.raises(ValueError, match="expected at least 12 training clips"):
        run_combinations(features, out, clips=4, threads=1)
