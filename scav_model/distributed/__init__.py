"""Search and extraction beyond one machine, by Ray (the extra `ray`), which is imported when first used.

connection  joins a cluster, or starts one on this machine
search      one actor for each part of an index; their answers become one
shard       what such an actor does, and how actors learn of each other's k-th distances
extraction  clips to features by Ray Data
"""

from scav_model.distributed.connection import ClusterError, connect
from scav_model.distributed.extraction import OverRay
from scav_model.distributed.search import SearchWorkers

__all__ = ["ClusterError", "OverRay", "SearchWorkers", "connect"]
