"""The distances, one file each: schemas and public functions. The other files are what the distances share."""

# Loading the extension registers its kernels with the dispatcher; torch comes first, for its libraries.
import torch  # noqa: F401

from scav_kernels import _extension  # noqa: F401
