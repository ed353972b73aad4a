"""`scav doctor`: what it finds in a good installation, and in broken ones."""

import json
import subprocess
import sys

import pytest

from scav_kernels.ops.registry import METRICS
from scav_model import doctor
from scav_model.cli import main


def test_a_good_installation_has_no_problem(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert all(set(finding) == {"name", "state", "found", "advice"} for finding in findings)
    by_name = {finding["name"]: finding for finding in findings}
    assert by_name["ops, cpu"]["found"] == f"{len(METRICS)} distances and their gradients agree with the reference"
    assert "2." in by_name["torch"]["found"]
    assert "products by" in by_name["kernels"]["found"]
    assert by_name["[model]"]["state"] == "ok"


def test_each_finding_is_a_line(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("python       3.")
    assert len(lines) == len(list(doctor.examine()))


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    found = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "h5py" else found(name))
    lines = [str(finding) for finding in doctor.examine()]
    assert any(line.startswith("[importers]  missing: h5py") for line in lines)
    assert any(line.endswith("; pip install 'scav-kernels[importers]'") for line in lines)


@pytest.mark.parametrize(
    ("fault", "message"), [(lambda x: 1.01 * x, "dtw is wrong"), (lambda x: x.nonsense, "dtw fails (AttributeError")]
)
def test_a_wrong_distance_is_a_problem(fault, message, monkeypatch, capsys):
    right = METRICS["dtw"]
    monkeypatch.setitem(METRICS, "dtw", right._replace(all_pairs=lambda *given: fault(right.all_pairs(*given))))
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert f"ops, cpu     problem: {message}" in out
    assert err == "scav doctor: error: found 1 problem, listed above\n"


def test_a_front_end_that_cannot_be_loaded_is_a_problem(capsys):
    assert main(["doctor", "--visual", "patches", "--audio", "beats:nothing.pt"]) == 1
    out = capsys.readouterr().out
    assert "visual       patches, " in out
    assert "audio        problem: EncoderError: no checkpoint at nothing.pt" in out


def test_a_package_for_another_torch_is_a_problem(monkeypatch):
    def load(name: str) -> None:
        raise OSError(f"Could not load this library: {name}.so")

    monkeypatch.setattr(doctor, "import_module", load)
    lines = [str(finding) for finding in doctor.examine()]
    problem = "OSError: Could not load this library: torchaudio.so"
    assert f"torchaudio   problem: {problem}; install the build of torchaudio for this torch" in lines


@pytest.mark.parametrize("missing", [pytest.param("scav_kernels._C", marks=pytest.mark.slow), "torch"])
def test_a_broken_installation_is_described(missing):
    program = f"import sys; sys.modules[{missing!r}] = None; from scav_model.doctor import report; print(report())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"problem: ModuleNotFoundError: import of {missing} halted" in done.stdout


@pytest.mark.slow
def test_the_extra_model_is_not_needed():
    packages = [package for package, extra in doctor.EXTRAS.items() if extra == "model"]
    program = (
        f"import importlib.util, runpy, sys; sys.modules.update(dict.fromkeys({packages})); sys.argv = ['doctor']\n"
    )
    program += "find = importlib.util.find_spec\n"
    program += f"importlib.util.find_spec = lambda name: None if name in {packages} else find(name)\n"
    program += "runpy.run_module('scav_model.doctor', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "agree with the reference" in done.stdout
    assert "pip install 'scav-kernels[model]'" in done.stdout
