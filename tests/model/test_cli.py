import functools
import inspect
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from scav_kernels._version import __version__
from scav_model.cli import main, tree
from scav_model.cli.imported import parameters, sources
from scav_model.cli.models import SHORT
from scav_model.cli.tree import COMMANDS, Group, leaves
from scav_model.cli.words import options
from scav_model.train import CHECKPOINT


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_names_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("words", [words for words, _ in leaves(COMMANDS)], ids=" ".join)
def test_every_option_is_explained(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100000")
    code, out, _ = run(capsys, *words, "--help-all" if words == ("train",) else "--help")
    assert code == 0
    listed = out[out.index("\npositional arguments:" if "\npositional arguments:" in out else "\noptions:") :]
    options = [line.strip() for line in listed.splitlines() if line.startswith("  ") and "-h, --help" not in line]
    assert len(options) >= 3
    for option in options:
        assert len(option.split("  ", 1)[-1].strip()) > 15, option


def test_help_marks_assumptions_and_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100000")
    _, out, _ = run(capsys, "train", "--help-all")
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip().startswith("--")}
    assert "[assumption]" in lines["--model.heads"]
    assert "default: 8" in lines["--model.heads"]
    assert "[assumption]" not in lines["--model.dim"]


def test_help_is_quick_and_imports_nothing_heavy():
    program = "import sys, scav_model.cli as c\ntry: c.main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
    assert time.perf_counter() - start < 5


def test_version(capsys):
    assert run(capsys, "--version")[:2] == (0, f"scav {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # Of more, the first five are named.
        ((), 'scav: error: expected "command" to be one of {' + ",".join([*COMMANDS][:5])),
        (("fly",), "invalid choice: 'fly'"),
        (("train",), "the following arguments are required: --train_features"),
        (("train", "--modle.dim=3"), "unrecognized arguments: --modle.dim=3"),
        (("train", "--train_features=x", "--model.dim=wide"), 'Parser key "model.dim": Expected a'),
        (("train", "--train_features=x", "--model.heads=3"), "model.heads must be a divisor of dim (512), got 3"),
        (("train", "--train_features=x", "--config=none.yaml"), "no config file none.yaml in"),
        (("evaluate", "--checkpoint=x", "--features=y", "--modes=[mean,fast]"), "Got value: fast"),
        (("extract",), "the following arguments are required: SOURCE, --out"),
        (("extract", "a", "--out=b", "--dtype=int8"), "Got value: int8"),
        (("features", "verify"), "the following arguments are required: STORE"),
        (("manifest", "music", "a"), "the following arguments are required: MEDIA, --out"),
        (("manifest", "fly"), "invalid choice: 'fly'"),
        (("demo", "--seeds=many"), 'Parser key "seeds": Expected a'),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments, message, capsys):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert "--help)" in err


def test_failures_are_one_line_and_exit_1(capsys, tmp_path):
    code, _, err = run(capsys, "train", f"--train_features={tmp_path}/none.safetensors")
    assert code == 1
    assert err.startswith("scav train: error: no feature file at")
    assert err.count("\n") == 1
    with pytest.raises(FileNotFoundError):
        main(["train", "--traceback", f"--train_features={tmp_path}/none.safetensors"])


def test_a_typo_in_a_config_file_is_named(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model:\n  dims: 3\n")
    code, _, err = run(capsys, "train", "--train_features=x", f"--config={path}")
    assert code == 2
    assert "model.dims" in err


def test_train_then_evaluate(capsys, feature_files, tmp_path):
    train_file, eval_file = feature_files
    path = tmp_path / "mine.yaml"
    path.write_text(
        "model: {dim: 16, visual_blocks: 1, audio_blocks: 1, heads: 2, conv_kernel: 4, conv_groups: 4}\n"
        "loss: {metric: soft_dtw, options: {gamma: 0.5}}\n"
        "optim: {epochs: 2, batch_size: 8}\n"
        "retrieval: {metric: dtw, every: 0}\n"
    )
    out = tmp_path / "run"
    arguments = ("train", f"--config={path}", f"--train_features={train_file}", f"--out={out}")
    code, printed, err = run(capsys, *arguments, "--optim.epochs=1", "--loss.options.gamma=0.2")
    assert code == 0, err
    assert "epoch 1/1: loss" in err
    assert printed.startswith(f"{out / CHECKPOINT}: 1 epochs")
    code, _, err = run(capsys, *arguments, "--resume")
    assert code == 1
    assert "loss.options: checkpoint {'gamma': 0.2}, now {'gamma': 0.5}" in err
    assert "optim.epochs: checkpoint 1, now 2" in err

    output = tmp_path / "results.json"
    arguments = ("evaluate", f"--checkpoint={out / CHECKPOINT}", f"--features={eval_file}")
    code, table, err = run(capsys, *arguments, f"--output={output}", "--hybrid_k=5")
    assert code == 0, err
    rows = json.loads(output.read_text())
    assert [(row["retrieval"], row["direction"]) for row in rows] == [
        (mode, direction) for mode in ("mean", "sequence", "hybrid") for direction in ("v2a", "a2v")
    ]
    assert all(row["gallery"] == 20 and 0 <= row["R@1"] <= row["R@5"] <= row["R@10"] <= 100 for row in rows)
    assert len(table.splitlines()) == 7
    assert table.split()[:3] == ["retrieval", "direction", "R@1"]

    code, table, _ = run(capsys, *arguments, "--modes=[sequence]", "--metric=sinkhorn", "--options.epsilon=0.1")
    assert code == 0
    assert len(table.splitlines()) == 3


def test_demo_passes_its_options_on(monkeypatch):
    seen = {}
    run_module = pytest.importorskip("scav_model.experiments.demo.run")
    record = functools.wraps(run_module.run_demo)(lambda **options: seen.update(options))
    monkeypatch.setattr(run_module, "run_demo", record)
    assert main(["demo", "--quick", "--seeds=3"]) == 0
    assert (seen["quick"], seen["seeds"], seen["resume"]) == (True, 3, False)


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    run_module = pytest.importorskip("scav_model.experiments.demo.run")

    @functools.wraps(run_module.run_demo)
    def interrupted(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run_demo", interrupted)
    code, _, err = run(capsys, "demo")
    assert (code, err) == (130, "scav demo shapes: interrupted; --resume keeps what is finished\n")


@pytest.fixture
def nested(monkeypatch):
    """Commands below commands, and what they were called with."""
    seen = {}

    def wave(hand: str, times: int = 1, resume: bool = False) -> None:
        """Moves a hand to and fro.

        Args:
            hand: Which of the two hands is moved.
            times: How often the hand goes to and fro.
            resume: Go on where the last wave stopped.
        """
        if times < 0:
            raise ValueError(f"times must be at least 0, got {times}")
        if times == 0:
            raise KeyboardInterrupt
        seen.update(hand=hand, times=times, resume=resume)

    table = {**COMMANDS, "greet": Group("Ways to greet.", {"wave": wave, "far": Group("From afar.", {"wave": wave})})}
    monkeypatch.setattr(tree, "COMMANDS", table)
    return seen


@pytest.mark.parametrize("words", [("greet", "wave"), ("greet", "far", "wave")])
def test_commands_nest(words, nested, capsys):
    name = " ".join(("scav", *words))
    assert run(capsys, *words, "--hand=left", "--resume") == (0, "", "")
    assert nested == {"hand": "left", "times": 1, "resume": True}
    code, out, _ = run(capsys, *words, "--help")
    assert code == 0
    assert "Which of the two hands is moved." in out
    assert run(capsys, *words)[2].endswith(f"error: the following arguments are required: --hand (see {name} --help)\n")
    assert run(capsys, *words, "--hand=left", "--times=-1")[::2] == (
        1,
        f"{name}: error: times must be at least 0, got -1\n",
    )
    assert run(capsys, *words, "--hand=left", "--times=0")[::2] == (
        130,
        f"{name}: interrupted; --resume keeps what is finished\n",
    )


def test_a_group_alone_names_its_commands(nested, capsys):
    for words, commands in ((("greet",), "{wave,far}"), (("greet", "far"), "{wave}")):
        code, _, err = run(capsys, *words)
        name = " ".join(("scav", *words))
        assert code == 2
        assert err.startswith(f'{name}: error: expected "command" to be one of {commands}')
        assert err.endswith(f"(see {name} --help)\n")
        assert err.count("\n") == 1
    code, out, _ = run(capsys, "greet", "--help")
    assert code == 0
    assert "Moves a hand to and fro." in out
    assert "From afar." in out


def test_an_option_is_written_once():
    """A command shares with a part of it only parameters that it passes on, with another meaning or to several."""
    shared = set()
    for words, command in leaves(COMMANDS):
        (_, own), *parts = sources(command)
        for part, entries in parts:
            assert not set(own) & set(entries)
            shared |= {(" ".join(words), name) for name in set(own) & set(inspect.signature(part).parameters)}
    assert shared == {
        ("index build", "checkpoint"), ("index build", "device"), ("index build", "features"),
        ("index build", "manifest"), ("index build", "sides"), ("index add", "device"), ("index add", "features"),
        ("index add", "manifest"), ("search", "index"), ("locate", "query"), ("locate", "recording"),
    }  # fmt: skip
    # What the command makes of an option of its own is no option.
    assert not {"shard_bytes", "config", "options"} & set(parameters(tree.data.extract))


@pytest.fixture
def trained(monkeypatch):
    """The config that `scav train` trains with, without training."""
    seen = []
    monkeypatch.setattr(
        "scav_model.training.train",
        lambda config, *_, **__: seen.append(config) or SimpleNamespace(history=[], seconds=0),
    )
    monkeypatch.setattr("scav_model.data.open_features", lambda name: None)
    return seen


def test_train_has_short_names(trained, capsys):
    for arguments in (
        ("--lr=0.01", "--batch-size=8", "--epochs=3"),
        ("--lr", "1e-2", "--batch_size", "8", "--epochs", "3"),
        ("--optim.learning-rate=0.01", "--optim.batch-size=8", "--optim.epochs=3"),
    ):
        code, _, err = run(capsys, "train", "--train-features=x", *arguments)
        assert code == 0, err
    assert [(each.optim.learning_rate, each.optim.batch_size, each.optim.epochs) for each in trained] == [
        (0.01, 8, 3)
    ] * 3


@pytest.mark.parametrize("short", [*SHORT])
def test_an_option_has_one_name_at_a_time(short, trained, capsys):
    for name in (short, short.replace("_", "-")):
        code, _, err = run(capsys, "train", "--train-features=x", f"--{name}=2", f"--{SHORT[short]}", "2")
        assert code == 2
        assert f"expected --{short} or --{SHORT[short]}, which are one option, got both; leave one out" in err
        assert err.count("\n") == 1
    assert trained == []


def test_the_help_of_train_is_one_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, screen, _ = run(capsys, "train", "--help")
    assert code == 0
    assert len(screen.splitlines()) <= 42
    for option in ("--train_features", "--lr", "--batch_size", "--epochs", "--help_all", "--resume"):
        assert option in screen
    for name in ("--help-all", "--help_all"):
        code, everything, _ = run(capsys, "train", name)
        assert code == 0
        assert all(f"--{option}" in everything for option in [*options(dict(leaves(COMMANDS))["train",]), *SHORT])
