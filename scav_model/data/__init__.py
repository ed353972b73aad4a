"""From media files to batches of features: manifest, decoding, front ends, extraction, the feature store."""

from scav_model.extras import needed_by

with needed_by("reading features"):
    from scav_model.data.batches import Batch, collate
    from scav_model.data.feature_set import FeatureSet
    from scav_model.data.source import Features
    from scav_model.data.store import FeatureStore, open_features

__all__ = ["Batch", "FeatureSet", "FeatureStore", "Features", "collate", "open_features"]
