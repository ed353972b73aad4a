"""Encoding in chunks: the same numbers in less memory."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import MEASURING

from scav_model.config import ComputeConfig, Config
from scav_model.data import collate
from scav_model.model import AudioVisualModel
from scav_model.training import encoding
from scav_model.training.encoding import Encoding
from scav_model.training.launch import launch
from tests.model.gradients import TINY, gradients
from tests.small_features import walks


@pytest.fixture
def fabric():
    return launch(Config())


@pytest.mark.parametrize("metric", ["interpolated_euclidean", "sinkhorn"])
@pytest.mark.parametrize("chunk", [1, 3])
def test_gradients_are_those_of_the_whole_batch(metric, chunk, fabric):
    expected, actual = gradients(metric, 7, fabric), gradients(metric, 7, fabric, chunk=chunk)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-10, atol=1e-13, msg=lambda m, n=name: f"{n}: {m}")


def test_the_second_pass_drops_out_what_the_first_did(fabric, monkeypatch):
    model = AudioVisualModel(replace(TINY, dropout=0.5)).train()
    batch = collate(walks(7, seed=3), range(7))

    def loss_and_gradients():
        torch.manual_seed(1)
        model.zero_grad()
        video, audio = Encoding(model, fabric, ComputeConfig(chunk=2))(batch)
        loss = (video.steps[:, :8] * audio.steps[:, :8]).sum()
        loss.backward()
        return loss.detach(), torch.rand(1), *(parameter.grad.clone() for parameter in model.parameters())

    cached = loss_and_gradients()
    monkeypatch.setattr(encoding, "checkpoint", lambda work, *inputs, use_reentrant: work(*inputs))
    kept = loss_and_gradients()
    assert all(torch.equal(one, other) for one, other in zip(cached, kept, strict=True))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to measure memory")
def test_activations_of_one_chunk_exist_at_a_time():
    """MiB at the peak of a step: by far less in chunks, and more clips add little but their sequences."""
    command = [sys.executable, Path(__file__).with_name("peak_of_a_step.py")]
    done = subprocess.run(
        [*command, "64:0", "64:8", "128:8"], env=MEASURING, capture_output=True, text=True, check=True
    )
    whole, chunked, twice = map(float, done.stdout.split())
    # Steps of 64 clips, both sides and their gradients: 64 · (50 + 62) · 128 · 4 bytes · 2 = 7 MiB; one chunk's
    # activations are an eighth of the batch's.
    assert chunked < whole / 4
    assert twice - chunked < whole / 16
