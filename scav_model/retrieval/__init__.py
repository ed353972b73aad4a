"""Search among encoded clips, in memory and on disk, and its evaluation."""

from scav_model.retrieval.evaluation import MODES as MODES
from scav_model.retrieval.evaluation import encode as encode
from scav_model.retrieval.evaluation import encode_to_disk as encode_to_disk
from scav_model.retrieval.evaluation import evaluate as evaluate
from scav_model.retrieval.evaluation import recalls as recalls
