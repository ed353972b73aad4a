"""FAISS, which holds the clips' mean steps; imported when first used, for not all of a search needs it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scav_model.search.layout import AGAIN, DamagedIndexError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
# Of a FAISS file before its vectors: kind, dimensions, vectors, two unused, whether trained, metric, numbers.
HEAD = "<4siqqq?iQ"
INNER_PRODUCT = 0


def import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            f"a search index needs FAISS ({error}); pip install 'scav-kernels[search]'; "
            "of the searches, --mode exact does without"
        ) from error
    return faiss


def make(vectors: Tensor) -> bytes:
    """A FAISS index of (C, D) float32 vectors, by inner product, as the bytes of its file."""
    faiss = import_faiss()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors.numpy())
    content: bytes = faiss.serialize_index(index).tobytes()
    return content


def check(path: Path, content: NDArray[np.uint8], clips: int, dim: int) -> None:
    """
    Raises:
        DamagedIndexError: the content of a file is not what `make` makes of (clips, dim) vectors. FAISS reads many
            kinds of index, and must not be asked to read one that a stranger chose.
    """
    head = struct.pack(HEAD, b"IxFI", dim, clips, 1 << 20, 1 << 20, True, INNER_PRODUCT, clips * dim)
    if len(content) != len(head) + 4 * clips * dim or content[: len(head)].tobytes() != head:
        raise DamagedIndexError(
            f"{path} is damaged: expected a flat FAISS index of {clips} vectors of {dim} numbers; {AGAIN}"
        )


def open_content(content: NDArray[np.uint8]) -> Any:
    """The index in the content of a file, which it uses where it lies."""
    faiss = import_faiss()
    reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(content), len(content))
    index = faiss.read_index(reader, faiss.IO_FLAG_MMAP_IFC)
    # FAISS keeps a pointer to the content alone.
    index.referenced_objects = [content]
    return index


def nearest(index: Any, queries: Floats, k: int, live: NDArray[np.bool_]) -> tuple[Floats, Ints]:
    """Scores (Q, k) and numbers (Q, k) of the vectors with the largest inner products, of those that are live.

    There must be k live ones.
    """
    faiss = import_faiss()
    if live.all():
        return index.search(queries, k)
    # FAISS keeps a pointer to the bits alone, so they have to be held here.
    bits = np.packbits(live, bitorder="little")
    chosen = faiss.IDSelectorBitmap(bits)
    return index.search(queries, k, params=faiss.SearchParameters(sel=chosen))
