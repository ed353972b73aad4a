"""Read safetensors files that may come from a stranger: whatever is not expected is a ValueError of one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safetensors import SafetensorError

from scav_model.storage.strict_json import read_json
from scav_model.storage.text import shown

# More than what names, types and shapes of a file's tensors take.
MAX_HEAD = 1 << 24


def load_expected(
    load: Callable[[bytes], dict[str, Any]], content: bytes, expected: Mapping[str, tuple[Any, Sequence[int | None]]]
) -> dict[str, Any]:
    """Return the tensors of a file.

    Args:
        load: `load` of `safetensors.torch` or `safetensors.numpy`.
        content: content of the file.
        expected: dtype and shape of each tensor; None stands for any size. No other tensor may be there.

    Raises:
        ValueError: the content is no safetensors file, or holds other tensors.
    """
    try:
        found = load(content)
    except (SafetensorError, KeyError, TypeError, ValueError, AssertionError, RuntimeError, OverflowError) as error:
        raise ValueError(f"it is not a safetensors file that can be read ({error})") from None
    if set(found) != set(expected):
        raise ValueError(f"expected the tensors {', '.join(expected)}, got {shown(sorted(found))}")
    for name, (dtype, shape) in expected.items():
        tensor = found[name]
        fits = len(tensor.shape) == len(shape) and all(
            size is None or size == there for size, there in zip(shape, tensor.shape, strict=True)
        )
        if tensor.dtype != dtype or not fits:
            wanted = tuple("any" if size is None else size for size in shape)
            raise ValueError(
                f"expected {name} to be {dtype} of shape {wanted}, got {tensor.dtype} of {tuple(tensor.shape)}"
            )
    return found


# Why safetensors does not read the shards itself (0.8.0; 100 shards of 30 MiB, 1,000 runs of 80 rows at random; ms):
#
#                                   open, cached  rows, cached  open, from disk  rows, from disk
#   read_head and a mapped file         6             6              850              220
#   safe_open(...).get_slice            3            21              650            1,160
#   safe_open(...).get_tensor           8             6            2,460              140
#
# A slice costs three times as much, and get_tensor reads data of each shard when it is opened. Neither takes a path
# that is not UTF-8, nor returns the metadata of bytes in memory, whose checksum has been checked.
def read_head(content: Any) -> tuple[dict[str, Any], int]:
    """Return what a safetensors file says of its tensors, and the byte at which they begin.

    Args:
        content: bytes of the whole file, or a mapping of it, as an array of bytes.

    Raises:
        ValueError: the file is too short for its head, or the head is malformed.
    """
    length = int.from_bytes(bytes(content[:8]), "little")
    if len(content) < 8 or length > min(len(content) - 8, MAX_HEAD):
        raise ValueError(f"its head claims {length} bytes of {len(content)}")
    described = read_json(bytes(content[8 : 8 + length]))
    if not isinstance(described, dict):
        raise ValueError(f"expected its head to be an object, got {shown(described)}")
    return described, 8 + length
