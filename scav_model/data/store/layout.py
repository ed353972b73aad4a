"""Deprecated name of scav_model.data.store.header."""

from scav_model.moved import forward

__getattr__ = forward(__name__, "scav_model.data.store.header", {"Header": "StoreHeader", "Shard": "StoreShard"})
