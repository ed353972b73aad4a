"""The feature store: a folder of features, made by extraction or imports, read by training and search.

    header.json             what the features are, which shards are there, how far the lists below are valid; checksums
                            of all files and of itself
    manifest.jsonl          a line per clip, in the order of its shards, with its media file where that is known
    skipped.jsonl           a line per clip that could not be used, with the reason
    shard-00000.safetensors video (ΣN, Dv) and audio (ΣM, Da) of the shard's clips, one after the other
    index.safetensors       the manifest once more, in columns, so that a large store opens at once

`header.json` is replaced whole, after all else is on the disk, so it alone decides what is part of the store: a process
that is killed at any moment leaves a store that opens and can be resumed.
"""

from scav_model.data.store.header import Entry, Skipped, StoreError, StoreHeader
from scav_model.data.store.reader import FeatureStore, open_features
from scav_model.data.store.writer import StoreWriter

__all__ = ["Entry", "FeatureStore", "Skipped", "StoreError", "StoreHeader", "StoreWriter", "open_features"]
