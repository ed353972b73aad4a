"""Arrays in NumPy's `.npy` format, whose header is believed only as far as the bytes behind it go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from scav_model.data.importers.clip import ImportProblem


@dataclass(frozen=True)
class Npy:
    """An array that has not been read yet."""

    file: IO[bytes]  # after the header
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool

    def read(self) -> NDArray[Any]:
        """Return the array.

        Raises:
            ImportProblem: Python objects, or another number of bytes than the header says.
        """
        if self.dtype.hasobject:
            raise ImportProblem("expected numbers or text, got Python objects (pickle), which are never loaded")
        expected = self.nbytes
        content = self.file.read(expected)
        if len(content) != expected or self.file.read(1):
            raise ImportProblem(
                f"expected {expected} bytes of {self.dtype} {self.shape}, as its header says, got others"
            )
        array: NDArray[Any] = np.frombuffer(content, self.dtype, count=math.prod(self.shape))
        return array.reshape(self.shape, order="F" if self.fortran else "C")

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def open_npy(name: str, file: IO[bytes]) -> Npy:
    """Read the header of an array.

    Raises:
        ImportProblem: no such header.
    """
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file)
    except KeyError as error:
        raise ImportProblem(
            f"{name}: expected an array of plain numbers, got the npy format's version {error}"
        ) from error
    except Exception as error:
        # NumPy parses a header as Python: a damaged one raises whatever the parser does.
        raise ImportProblem(f"{name}: not an npy array: {' '.join(str(error).split())[:200]}") from error
    if any(size < 0 for size in shape):
        raise ImportProblem(f"{name}: expected sizes of 0 or more, got {shape}")
    return Npy(file, dtype, shape, fortran)
