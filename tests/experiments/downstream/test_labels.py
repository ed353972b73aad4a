"""Fold files as the data sets publish them, and what they are refused for."""

import pytest

from scav_model.data.text_files import ManifestError
from scav_model.experiments.downstream.labels import Fold, clip_name, column_fold, read_column, read_folds


def test_a_column_is_read_by_id(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"id": "a", "rhythm": "jig"}\n\n{"id": "b", "rhythm": 6}\n{"id": "c"}\n')
    assert read_column(path, "rhythm") == {"a": "jig", "b": "6"}
    assert column_fold({"a": "jig", "b": "reel"}, ["a", "x"], ["b"]) == Fold("1", {"a": "jig"}, {"b": "reel"})
    with pytest.raises(ManifestError, match="expected a column 'metre', got id, rhythm"):
        read_column(path, "metre")
    path.write_text("[1]\n")
    with pytest.raises(ManifestError, match="line 1: expected an object with an id"):
        read_column(path, "rhythm")
    path.write_text("{\n")
    with pytest.raises(ManifestError, match="line 1: not valid JSON"):
        read_column(path, "rhythm")


def test_ucf101(tmp_path):
    for number, (train, test) in {"01": ("g08", "g01"), "02": ("g01", "g08")}.items():
        (tmp_path / f"trainlist{number}.txt").write_text(f"Archery/v_Archery_{train}_c01.avi 3\r\n")
        (tmp_path / f"testlist{number}.txt").write_text(f"Archery/v_Archery_{test}_c01.avi\r\n")
    assert read_folds(f"ucf101:{tmp_path}") == (
        "ucf101",
        [
            Fold("01", {"v_Archery_g08_c01": "Archery"}, {"v_Archery_g01_c01": "Archery"}),
            Fold("02", {"v_Archery_g01_c01": "Archery"}, {"v_Archery_g08_c01": "Archery"}),
        ],
    )
    (tmp_path / "testlist02.txt").write_text("v_Archery_g08_c01.avi\n")
    with pytest.raises(ManifestError, match="line 1: expected Class/v_Class"):
        read_folds(f"ucf101:{tmp_path}")


def test_hmdb51(tmp_path):
    (tmp_path / "brush_hair_test_split1.txt").write_text("a b.avi 1 \nc.avi 2 \nd.avi 0 \n")
    (tmp_path / "cartwheel_test_split1.txt").write_text("e.avi 2 \n")
    (tmp_path / "brush_hair_test_split2.txt").write_text("c.avi 1 \n")
    assert read_folds(f"hmdb51:{tmp_path}")[1] == [
        Fold("1", {"a b": "brush_hair"}, {"c": "brush_hair", "e": "cartwheel"}),
        Fold("2", {"c": "brush_hair"}, {}),
    ]
    (tmp_path / "brush_hair_test_split2.txt").write_text("c.avi 3\n")
    with pytest.raises(ManifestError, match=r"line 1: expected NAME\.avi 0, 1 or 2"):
        read_folds(f"hmdb51:{tmp_path}")


def test_esc50(tmp_path):
    path = tmp_path / "esc50.csv"
    head = "filename,fold,target,category,esc10,src_file,take\n"
    path.write_text(head + "1-100032-A-0.wav,1,0,dog,True,100032,A\n5-9032-A-0.wav,5,1,rooster,False,9032,A\n")
    assert read_folds(f"esc50:{path}") == read_folds(f"esc50:{tmp_path}")
    assert read_folds(f"esc50:{path}")[1] == [
        Fold("1", {"5-9032-A-0": "rooster"}, {"1-100032-A-0": "dog"}),
        Fold("5", {"1-100032-A-0": "dog"}, {"5-9032-A-0": "rooster"}),
    ]
    path.write_text("a,b,c,d\n1,2,3,4\n")
    with pytest.raises(ManifestError, match="without filename, fold, category"):
        read_folds(f"esc50:{path}")


@pytest.mark.parametrize("spec", ["kinetics:x", "ucf101", "esc50"])
def test_other_folds_are_refused(spec):
    with pytest.raises(ValueError, match="expected folds as ucf101:FOLDER"):
        read_folds(spec)


def test_a_folder_without_fold_files_is_refused(tmp_path):
    for name in ("ucf101", "hmdb51"):
        with pytest.raises(ManifestError, match="expected fold files"):
            read_folds(f"{name}:{tmp_path}")


def test_names_agree_without_folders_and_suffixes():
    assert clip_name("Archery/v_Archery_g01_c01.avi") == clip_name("train/Archery/v_Archery_g01_c01")
    assert clip_name("1-2.5-A") == "1-2.5-A"
