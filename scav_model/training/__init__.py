"""Contrastive training, in one process or in several that train as one."""

from scav_model.extras import needed_by

with needed_by("training"):
    from scav_model.training.checkpoints import BEST, CHECKPOINT
    from scav_model.training.loop import TrainResult, train
    from scav_model.training.optimizer import learning_rate_factor, make_optimizer

__all__ = ["BEST", "CHECKPOINT", "TrainResult", "learning_rate_factor", "make_optimizer", "train"]
