"""Search: an index of encoded clips on disk, three ways to ask it, and what the answers look like.

index.json                         what the index holds; replaced whole with every change
shard-000000.sequences.safetensors encoded steps of each side, one clip after the other
shard-000000.clips.safetensors     ids, lengths, checksums and media of its clips
shard-000000.audio.means.bin       mean steps of the audios, scaled to length 1; likewise .video.means.bin
shard-000000.bounds.safetensors    what lower bounds need of each clip, where the metric is interpolated Euclidean
directions-000000.safetensors      the directions along which that is kept
deleted-000003.bin                 numbers of the deleted clips, where there are any
"""

from scav_model.index.files import SearchIndex
from scav_model.index.header import DamagedIndexError, Header, SearchIndexError
from scav_model.index.queries import Queries, make_queries, queries_by_id
from scav_model.index.search import Answer, Hit, rerank, search
from scav_model.index.shard import Encoded
from scav_model.index.writer import IndexWriter

__all__ = [
    "Answer",
    "DamagedIndexError",
    "Encoded",
    "Header",
    "Hit",
    "IndexWriter",
    "Queries",
    "SearchIndex",
    "SearchIndexError",
    "make_queries",
    "queries_by_id",
    "rerank",
    "search",
]
