import pickle

import av
import numpy as np
import pytest
import torch

from scav_model.data.frontends import FramePatchConfig, FramePatches, GrayConfig, GrayFrames, LogMel, LogMelConfig
from scav_model.encoders import EncoderError, visual_encoder
from scav_model.encoders.described import described_encoder


def test_a_patch_is_the_mean_and_spread_of_its_colors() -> None:
    config = FramePatchConfig(frame_size=8, patch_size=4)
    frames = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    frames[1, :4, 4:, 1] = 128  # green, upper right
    frames[1, 4:, :2, 2] = 64  # blue, half of the lower left
    steps = FramePatches(config)(frames)
    assert steps.shape == (2, config.dim)
    assert steps.dtype == torch.float32
    patches = steps.view(2, 2, 2, 3, 2)  # frame, row, column, color, (mean, spread)
    dark, flat = -1.5, -1.0
    assert torch.equal(patches[0], torch.tensor([dark, flat]).expand(2, 2, 3, 2))
    assert patches[1, 0, 1, 1].tolist() == [128 / 32 + dark, flat]
    assert patches[1, 1, 0, 2].tolist() == [32 / 32 + dark, 32 / 16 + flat]
    assert patches[1, 0, 0, 1].tolist() == [dark, flat]


def test_a_tone_lies_in_its_band_and_its_steps() -> None:
    config = LogMelConfig()
    audio = np.zeros(64_000, dtype=np.float32)
    audio[32_000:48_000] = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    steps = LogMel(config)(audio)
    assert steps.shape == (62, config.dim)
    assert steps.dtype == torch.float32
    spectra = steps.view(-1, config.mels)
    # 1000 Hz is 1000 mel of 2840 at 8000 Hz (HTK's scale).
    assert spectra[150].argmax() == pytest.approx(64 * 1000 / 2840, abs=1)
    loud = spectra.max(dim=1).values > 0
    seconds = loud.nonzero().flatten() * config.hop / config.sample_rate
    assert seconds.min() == pytest.approx(2.0, abs=config.window / config.sample_rate)
    assert seconds.max() == pytest.approx(3.0, abs=config.window / config.sample_rate)


@pytest.mark.parametrize("samples", [1, 500, 1024, 1500])
def test_a_short_sound_has_one_step(samples: int) -> None:
    assert LogMel(LogMelConfig())(np.zeros(samples, dtype=np.float32)).shape == (1, 256)


def test_four_seconds_have_the_steps_of_ten_in_the_paper() -> None:
    # 62 of audio; the demo asks for the 50 of video.
    assert int(LogMelConfig().step_rate * 4) == 62


def test_bad_settings_and_shapes() -> None:
    with pytest.raises(ValueError, match="multiple of patch_size"):
        FramePatchConfig(frame_size=60, patch_size=8)
    with pytest.raises(ValueError, match="expected hop to be at least 1"):
        LogMelConfig(hop=0)
    with pytest.raises(ValueError, match=r"expected frames of shape \(N, 64, 64, 3\)"):
        FramePatches(FramePatchConfig())(np.zeros((1, 32, 32, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"expected audio of shape \(samples,\)"):
        LogMel(LogMelConfig())(np.zeros((2, 16_000), dtype=np.float32))


def test_a_gray_picture_is_its_pixels_and_white_is_zero() -> None:
    config = GrayConfig(width=3, height=2)
    frames = np.full((2, 2, 3, 3), 255, dtype=np.uint8)
    frames[1, 1, 2] = (127, 127, 127)
    frames[1, 0, 0] = (0, 255, 126)
    steps = GrayFrames(config)(frames)
    assert steps.shape == (2, config.dim)
    assert steps[0].tolist() == [0.0] * 6
    assert steps[1].tolist() == [2.0, 0, 0, 0, 0, 2.0]
    with pytest.raises(ValueError, match=r"expected frames of shape \(N, 2, 3, 3\), got \(2, 3, 2, 3\)"):
        GrayFrames(config)(frames.swapaxes(1, 2))
    with pytest.raises(ValueError, match="expected height to be at least 1 px, got 0"):
        GrayConfig(height=0)


def test_gray_is_named_with_its_size() -> None:
    assert visual_encoder("gray").dim == 32 * 32
    encoder = visual_encoder("gray:16x8")
    assert encoder.dim == 16 * 8
    assert described_encoder(encoder.describe(), "video", owner="store") == encoder
    copy = pickle.loads(pickle.dumps(encoder.picture))
    frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), dtype=np.uint8), format="rgb24")
    assert copy(frame).shape == (8, 16, 3)
    for spec in ("gray:", "gray:16", "gray:0x8", "gray:16x8x3"):
        with pytest.raises(EncoderError, match="gray:WIDTHxHEIGHT"):
            visual_encoder(spec)
