"""Encoders: from frozen features of a clip to a sequence of steps that two modalities share.

B clips, T steps (the longest of the batch), D features of a step. `lengths` (B,) int64 counts each clip's valid steps;
what lies beyond, NaN included, changes no valid output and gets no gradient.
"""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from scav_model.config import ModelConfig
from scav_model.pretrained import Pretrained

PAPER_VISUAL_INPUT = 2048
PAPER_AUDIO_INPUT = 768


def padding_mask(lengths: Tensor, steps: int) -> Tensor:
    """(B, steps) bool, True where a step lies beyond its clip's length."""
    return torch.arange(steps, device=lengths.device) >= lengths[:, None]


def masked_mean(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Mean over the valid steps of x (B, T, D): (B, D)."""
    if lengths is None:
        return x.mean(1)
    summed = x.masked_fill(padding_mask(lengths, x.shape[1])[..., None], 0).sum(1)
    return summed / lengths[:, None]


class ConvPosition(nn.Module):
    """wav2vec 2.0's relative positional embedding: a grouped, weight-normalized convolution over time, then GELU.

    Zeros stand where the convolution reaches past either end, so that a step sees its place from its neighbors alone.
    """

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        # As one row of an image, whose channels-last layout is that of (B, T, D), it runs twice as fast as a Conv1d.
        convolution = nn.Conv2d(dim, dim, (1, kernel), padding=(0, kernel // 2), groups=groups)
        nn.init.normal_(convolution.weight, std=math.sqrt(4 / (kernel * dim)))
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        # One gain per tap.
        self.convolution = weight_norm(convolution, dim=3)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D), zero in its padding, to the embedding (B, T, D) to be added to it."""
        batch, steps, dim = x.shape
        groups = self.convolution.groups
        # On a CPU the product is 5 to 12 times as fast while its matrices take little more room than the sequences.
        if x.device.type == "cpu" and steps * dim // groups <= 8 * batch:
            return F.gelu(convolve_by_product(x, self.convolution.weight[:, :, 0], self.convolution.bias, groups))
        row = self.convolution(x.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
        # An even kernel gives one step too many.
        return F.gelu(row[:, :steps])


def convolve_by_product(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Return F.conv1d over the steps of x (B, T, D), with zeros beyond both ends, as one product a group.

    Its matrices, groups · (T · D / groups)² numbers, hold the weight of each input step in each output step. `weight`
    (D, D / groups, K) has its tap K // 2 at the output's own step.
    """
    batch, steps, dim = x.shape
    taps, channels = weight.shape[2], dim // groups
    # Taps for inputs from T − 1 steps before the output to T − 1 after it; zero where the kernel is narrower.
    before, after = steps - 1 - taps // 2, steps + taps // 2 - taps
    wide = F.pad(weight, (before, after)).view(groups, channels, channels, 2 * steps - 1)  # (groups, out, in, taps)
    windows = wide.unfold(3, steps, 1).flip(3)  # (groups, out, in, output step, input step)
    matrices = windows.permute(0, 4, 2, 3, 1).reshape(groups, steps * channels, steps * channels)
    rows = x.view(batch, steps, groups, channels).permute(2, 0, 1, 3).reshape(groups, batch, steps * channels)
    product = (
        torch.bmm(rows, matrices).view(groups, batch, steps, channels).permute(1, 2, 0, 3).reshape(batch, steps, dim)
    )
    return product if bias is None else product + bias


def rotary_table(steps: int, head_dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine (steps, head_dim / 2) of the angles step · 10000^(−2i / head_dim), in the dtype of `like`."""
    frequency = 10000.0 ** (torch.arange(0, head_dim, 2, device=like.device, dtype=torch.float32) / -head_dim)
    angle = torch.arange(steps, device=like.device, dtype=torch.float32)[:, None] * frequency
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turns the features (i, i + head_dim / 2) of x (B, heads, T, head_dim) by each step's angle i."""
    cosine, sine = table
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), dim=-1)


class Block(nn.Module):
    """A pre-norm Transformer block: x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None, table: tuple[Tensor, Tensor] | None) -> Tensor:
        """x (B, T, D) to (B, T, D); valid (B, 1, 1, T) bool marks the steps that may be attended to."""
        batch, steps, dim = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, steps, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()  # (B, heads, T, D / heads) each
        if table is not None:
            query, key = rotate(query, table), rotate(key, table)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=valid, dropout_p=self.dropout if self.training else 0.0
        )
        x = x + self.drop(self.out(attended.transpose(1, 2).reshape(batch, steps, dim)))
        return x + self.drop(self.feedforward(x))


class SequenceEncoder(nn.Module):
    """MLP projection, relative positions, pre-norm Transformer: (B, T, input_dim) to (B, T, config.dim).

    With `position="conv"` a convolution of the projected sequence is added to it once, before the blocks. With
    `position="rotary"` nothing is added: every block turns its queries and keys by angles proportional to their step,
    so that attention sees only differences of steps.
    """

    def __init__(self, input_dim: int = PAPER_VISUAL_INPUT, blocks: int = 8, config: ModelConfig | None = None) -> None:
        super().__init__()
        config = config or ModelConfig()
        dim, heads = config.dim, config.heads
        self.input_dim = input_dim
        self.head_dim = dim // heads
        self.unit_steps = config.normalize == "l2"
        hidden = round(dim * config.projection)
        self.projection = nn.Sequential(
            nn.Linear(input_dim, hidden), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(hidden, dim)
        )
        self.position = ConvPosition(dim, config.conv_kernel, config.conv_groups) if config.position == "conv" else None
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(dim, heads, round(dim * config.feedforward), config.dropout) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, T, input_dim) and lengths (B,) to (B, T, dim), zero in its padding."""
        if x.ndim != 3 or x.shape[2] != self.input_dim:
            raise ValueError(f"expected features of shape (B, T, {self.input_dim}), got {tuple(x.shape)}")
        padding = None if lengths is None else padding_mask(lengths, x.shape[1])[..., None]  # (B, T, 1)
        valid = None if padding is None else ~padding[:, None, None, :, 0]  # (B, 1, 1, T)

        def clear(y: Tensor) -> Tensor:
            return y if padding is None else y.masked_fill(padding, 0)

        x = clear(self.projection(clear(x)))
        if self.position is not None:
            x = x + self.position(x)
        table = rotary_table(x.shape[1], self.head_dim, x) if self.position is None else None
        x = self.drop(x)
        for block in self.blocks:
            x = block(x, valid, table)
        # Under autocast blocks give bfloat16, which the unit steps of a clip would be too close together for.
        x = self.norm(x.to(self.norm.weight.dtype))
        return clear(F.normalize(x, dim=-1) if self.unit_steps else x)


class AudioVisualModel(Pretrained):
    """A visual and an audio encoder into one space; sizes that the config leaves open are the paper's.

    `from_pretrained`, `save_pretrained` and `push_to_hub` have and share models as safetensors. A model that was
    trained on a feature store remembers the front ends that made the features, and encodes media files by them.

    Attributes:
        front_ends: encoders of video and audio that were made.
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        self.visual = SequenceEncoder(config.visual_input or PAPER_VISUAL_INPUT, config.visual_blocks, config)
        self.audio = SequenceEncoder(config.audio_input or PAPER_AUDIO_INPUT, config.audio_blocks, config)
        self.front_ends: dict[str, Any] = {}

    def forward(
        self, video: Tensor, audio: Tensor, video_lengths: Tensor | None = None, audio_lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """video (B, N, Dv) and audio (B, M, Da) to (B, N, dim) and (B, M, dim)."""
        return self.visual(video, video_lengths), self.audio(audio, audio_lengths)

    def encode_file(
        self, path: str | Path, *, start: float = 0.0, duration: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the encoded steps of a media file, video (N, dim) and audio (M, dim), by the model's front ends.

        Args:
            path: A file with pictures and sound.
            start: Second of the file at which the clip begins.
            duration: Seconds of the clip; None takes all from `start` on.

        Raises:
            FileNotFoundError: there is no such file.
            DecodeError: the file has no pictures, no sound, or is damaged.
            EncoderError: the model does not remember its front ends, or one needs a file of weights; the message says
                how to name it.
        """
        from scav_model.front_ends import encode_file

        return encode_file(self, path, start, duration)

    def use_front_ends(
        self, visual: str | None = None, audio: str | None = None, *, frame_rate: float | None = None
    ) -> None:
        """Name the front ends of the features that the model was trained on; `save_pretrained` keeps them.

        Args:
            visual: As `scav extract --visual` takes it: patches, clip:MODEL:WEIGHTS and so on; None keeps the model's.
            audio: As `scav extract --audio` takes it: log_mel, beats:FILE or pe-av:FOLDER; None keeps the model's.
            frame_rate: Video steps per second of these features; None keeps the model's.

        Raises:
            EncoderError: a front end that there is not, or that makes steps of another size than the model takes.
        """
        from scav_model.front_ends import use

        use(self, visual, audio, frame_rate)
