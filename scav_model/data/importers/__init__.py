"""Features that others made, into a feature store: npz folders, HDF5, WebDataset tars.

Every format gives clips of a video (N, Dv) and an audio (M, Da) array, and may give a label and a split:

- **npz**: a folder of `<id>.npz`, or one such file, each with arrays `video` and `audio`, and, if known, scalars
  `label` and `split`.
- **hdf5**: a file, or a folder of `.h5` and `.hdf5` files. Every group with datasets `video` and `audio` is a clip, its
  path the id, its attributes `label` and `split`. Datasets at the top make the file itself a clip.
- **webdataset**: a tar, plain or compressed, or a folder of them, of samples `<id>.video.npy`, `<id>.audio.npy` and, if
  known, `<id>.json` with `label` and `split`.

A first folder or group named `train`, `val`, `valid`, `validation` or `test` is a split and no part of the id. Where
the clips of an HDF5 file or a tar say nothing, its own first folder, or its name without suffix, is their split.

Files are read as data of others: nothing in them is run, no file that they name is opened, and a clip is refused before
it is allocated where it is larger than `ImportConfig.max_clip_bytes`.
"""

from scav_model.data.importers.clip import ImportConfig
from scav_model.data.importers.run import import_features

__all__ = ["ImportConfig", "import_features"]
