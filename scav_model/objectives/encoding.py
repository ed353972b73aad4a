"""Interface by which an objective encodes batches, with gradients."""

from collections.abc import Callable

from scav_model.data import Batch
from scav_model.distances import Sequences

# Videos (B, N, dim) and audios (B, M, dim) of a batch.
Encode = Callable[[Batch], tuple[Sequences, Sequences]]
