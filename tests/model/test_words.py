"""The order and the spelling of command lines."""

import pytest

from scav_model.cli import main
from scav_model.cli.tree import COMMANDS, leaves
from scav_model.cli.words import arranged, completed, options


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("search I --k 1 -- -UGx", "search --k=1 -- I -UGx"),
        ("search I -UGabcdefghi --k 1", "search --k=1 -- I -UGabcdefghi"),
        ("search I -1abcdefghi", "search -- I -1abcdefghi"),
        ("search --k 1 I q", "search --k=1 I q"),
        ("search -k 1 I q", "search --k=1 I q"),
        ("search -k1 I q", "search --k=1 I q"),
        ("search I q -k=3", "search --k=3 I q"),
        ("search I -kabcdefghij", "search -- I -kabcdefghij"),
        ("search I q --alignment r", "search --alignment I q r"),
        ("search I --batch -list.txt", "search --batch=-list.txt I"),
        ("search I -- -k 1", "search -- I -k 1"),
        ("search I q --output", "search --output I q"),
        ("search I q --device --k 1", "search --device --k=1 I q"),
        ("search I q -h", "search -h I q"),
        ("index delete I -- -UGx -- --y", "index delete -- I -UGx -- --y"),
        ("index delete --compact I -UGx -UGy", "index delete --compact -- I -UGx -UGy"),
        ("index tune I --candidates+ 3 --seed -1", "index tune --candidates+=3 --seed=-1 I"),
        ("index build I --skip-bad --video-rate-hz 5", "index build --skip_bad --video_rate_hz=5 I"),
        ("train --train-features x --optim.learning-rate 1e-3", "train --train_features=x --optim.learning_rate=1e-3"),
        ("train --optim.weight-decay -1e-3", "train --optim.weight_decay=-1e-3"),
        ("train --loss.options.step-penalty=2", "train --loss.options.step_penalty=2"),
        ("evaluate --options.step-penalty 2", "evaluate --options.step_penalty=2"),
        ("probe compare --results.My-Model x --out -x", "probe compare --results.My-Model=x --out=-x"),
        ("features info -- -store", "features info -- -store"),
        ("--version", "--version"),
        ("fly --a-b", "fly --a-b"),
    ],
)  # fmt: skip
def test_a_command_line_is_put_in_order(typed, taken):
    assert arranged(typed.split()) == taken.split()


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("demo", "demo shapes"),
        ("demo --quick --seeds 3", "demo shapes --quick --seeds 3"),
        ("demo shapes --quick", "demo shapes --quick"),
        ("demo tunes --quick", "demo tunes --quick"),
        ("demo --help", "demo --help"),
        ("demo shape", "demo shape"),
        ("probe", "probe"),
        ("train --out demo", "train --out demo"),
    ],
)
def test_options_without_a_command_belong_to_the_default_one(typed, taken):
    assert completed(typed.split()) == taken.split()


@pytest.mark.parametrize("words", [words for words, _ in leaves(COMMANDS)], ids=" ".join)
def test_hyphens_stand_for_underscores_in_every_option(words):
    for name, takes_value in options(dict(leaves(COMMANDS))[words]).items():
        value = ["=1"] if takes_value else [""]
        assert arranged([*words, f"--{name.replace('_', '-')}{value[0]}"]) == [*words, f"--{name}{value[0]}"]
        if takes_value:
            assert arranged([*words, f"--{name.replace('_', '-')}", "-1"]) == [*words, f"--{name}=-1"]


def test_an_empty_path_is_not_the_current_folder(capsys):
    for arguments in (["train", "--train-features", ""], ["index", "info", ""], ["search", "", "x"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        told = capsys.readouterr().err
        assert stop.value.code == 2
        assert "to be a path, got an empty one" in told
        assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["search", "I", "--abcdefghij"], "an id that begins with - stands after --"),
        (["search", "I", "-output", "x"], "did you mean --output?"),
        (["search", "I", "q", "--chekpoint", "x"], "did you mean --checkpoint?"),
        (["train", "--trian-features", "x"], "did you mean --train-features?"),
        (["serve", "I", "--prot=80"], "did you mean --port?"),
        (["index", "build", "I", "--featrues", "x"], "did you mean --features?"),
        (["serach", "I"], "did you mean search?"),
        (["index", "biuld", "I"], "did you mean build?"),
    ],
)
def test_slips_are_met_with_advice(arguments, advice, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert advice in told
    assert told.count("\n") == 1


def test_help_shows_types_as_they_are_typed_and_rare_options_last(capsys):
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "(type: video | audio | null, default: null)" in shown
    assert "(required, type: Path)" in shown
    assert "Literal" not in shown
    assert shown.index("--traceback Show") > shown.index("--alignment Add")
