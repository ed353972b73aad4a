from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from scav_model.config import ModelConfig
from scav_model.model import (
    AudioVisualModel,
    ConvPosition,
    SequenceEncoder,
    convolve_by_product,
    masked_mean,
    rotary_table,
    rotate,
)

SMALL = ModelConfig(dim=16, heads=2, feedforward=2.0, conv_kernel=5, conv_groups=4)
VARIANTS = [
    SMALL,
    replace(SMALL, conv_kernel=8),
    replace(SMALL, position="rotary"),
    replace(SMALL, normalize="none"),
]


def encoder(config: ModelConfig) -> SequenceEncoder:
    torch.manual_seed(0)
    return SequenceEncoder(7, 2, config).double().eval()


@pytest.mark.parametrize("config", VARIANTS)
def test_padding_changes_no_valid_output_and_gets_no_gradient(config):
    model = encoder(config)
    lengths = torch.tensor([9, 4, 1])
    clean = torch.randn(3, 9, 7, dtype=torch.float64)
    padding = torch.arange(9) >= lengths[:, None]
    poisoned = clean.masked_fill(padding[..., None], torch.nan).requires_grad_()
    encoded = model(poisoned, lengths)
    assert torch.equal(encoded, model(clean, lengths))
    assert torch.equal(encoded[padding], torch.zeros_like(encoded[padding]))
    for i, length in enumerate(lengths.tolist()):
        alone = model(clean[i : i + 1, :length])
        torch.testing.assert_close(encoded[i, :length], alone[0], rtol=1e-9, atol=1e-9)
    encoded.square().sum().backward()
    assert torch.equal(poisoned.grad[padding], torch.zeros_like(poisoned.grad[padding]))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("config", VARIANTS)
def test_full_lengths_equal_no_lengths(config):
    model = encoder(config)
    x = torch.randn(2, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(model(x, torch.tensor([6, 6])), model(x))


@pytest.mark.parametrize("config", VARIANTS)
def test_steps_have_unit_length_only_where_asked(config):
    norms = encoder(config)(torch.randn(2, 6, 7, dtype=torch.float64)).norm(dim=-1)
    is_unit = torch.allclose(norms, torch.ones_like(norms))
    assert is_unit == (config.normalize == "l2")


@pytest.mark.parametrize("config", VARIANTS[:3])
def test_order_of_steps_matters(config):
    model = encoder(config)
    x = torch.randn(1, 6, 7, dtype=torch.float64)
    backwards = model(x.flip(1)).flip(1)
    assert not torch.allclose(model(x), backwards, atol=1e-3)


@pytest.mark.parametrize("kernel", [5, 8])
def test_convolution_is_relative(kernel):
    """A pattern shifted in time, away from the ends, has its embedding shifted and nothing else."""
    torch.manual_seed(0)
    position = ConvPosition(8, kernel, 2).double()
    pattern = torch.randn(1, 3, 8, dtype=torch.float64)
    x = torch.zeros(2, 40, 8, dtype=torch.float64)
    x[0, 12:15], x[1, 17:20] = pattern[0], pattern[0]
    early, late = position(x)
    torch.testing.assert_close(late[13:30], early[8:25])
    assert not torch.allclose(late, early)


@pytest.mark.parametrize("kernel", [1, 2, 5, 8, 31, 32])
@pytest.mark.parametrize("steps", [1, 2, 7, 15, 16, 17, 33])
def test_convolution_by_product(steps, kernel):
    """The same as torch's, with kernels narrower and wider than the sequence, and its gradients."""
    torch.manual_seed(0)
    groups, dim = 3, 6
    x = torch.randn(4, steps, dim, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(dim, dim // groups, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(dim, dtype=torch.float64, requires_grad=True)
    expected = F.conv1d(x.transpose(1, 2), weight, bias, padding=kernel // 2, groups=groups).transpose(1, 2)[:, :steps]
    found = convolve_by_product(x, weight, bias, groups)
    torch.testing.assert_close(found, expected)
    above = torch.randn_like(found)
    gradients = (torch.autograd.grad(y, (x, weight, bias), above) for y in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kernel", [5, 8])
def test_a_batch_is_encoded_as_its_clips_are(kernel):
    """Many clips are convolved by a product, one by torch's convolution."""
    torch.manual_seed(0)
    position = ConvPosition(8, kernel, 2).double()
    x = torch.randn(32, 20, 8, dtype=torch.float64)
    torch.testing.assert_close(position(x), torch.cat([position(clip[None]) for clip in x]))


def test_convolution_starts_at_unit_gain_of_wav2vec():
    torch.manual_seed(0)
    weight = ConvPosition(64, 32, 4).convolution.weight
    assert weight.std().item() == pytest.approx((4 / (32 * 64)) ** 0.5, rel=0.02)


def test_rotary_is_relative():
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64).expand(2, 1, 1, 12, 8)
    table = rotary_table(12, 8, torch.empty(0, dtype=torch.float64))
    logits = rotate(query, table) @ rotate(key, table).transpose(-1, -2)  # (1, 1, 12, 12)
    torch.testing.assert_close(logits[..., 1:, 1:], logits[..., :-1, :-1], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(logits[..., 0, :], logits[..., 0, :1])


def test_defaults_are_the_papers():
    with torch.device("meta"):
        model = AudioVisualModel()
    assert (model.visual.input_dim, len(model.visual.blocks)) == (2048, 8)
    assert (model.audio.input_dim, len(model.audio.blocks)) == (768, 2)
    assert model.config.dim == 512
    assert isinstance(model.visual.position, ConvPosition)


def test_model_encodes_both_sides():
    model = AudioVisualModel(replace(SMALL, visual_input=7, audio_input=3, visual_blocks=1, audio_blocks=1))
    video, audio = model(torch.randn(2, 5, 7), torch.randn(2, 9, 3), torch.tensor([5, 2]), torch.tensor([1, 9]))
    assert video.shape == (2, 5, 16)
    assert audio.shape == (2, 9, 16)


def test_dropout_only_in_training():
    model = SequenceEncoder(7, 2, replace(SMALL, dropout=0.5))
    x = torch.randn(1, 6, 7)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_masked_mean():
    x = torch.tensor([[[1.0], [3.0], [torch.nan]], [[4.0], [torch.inf], [torch.nan]]])
    assert masked_mean(x, torch.tensor([2, 1])).tolist() == [[2.0], [4.0]]
    assert masked_mean(x[:, :1]).tolist() == [[1.0], [4.0]]


def test_wrong_feature_size_is_named():
    with pytest.raises(ValueError, match=r"expected features of shape \(B, T, 7\), got \(1, 6, 8\)"):
        encoder(SMALL)(torch.randn(1, 6, 8))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "model.heads must be a divisor of dim"),
        ({"conv_groups": 3}, "model.conv_groups must be a divisor of dim"),
        ({"heads": 16, "position": "rotary"}, "dim / heads is even"),
        ({"position": "absolute"}, "model.position must be conv or rotary, got 'absolute'"),
        ({"dropout": 1.0}, "model.dropout must be at least 0 and below 1, got 1.0"),
        ({"audio_blocks": 0}, "model.audio_blocks must be at least 1, got 0"),
    ],
)
def test_bad_sizes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **fields)
