"""Train a model: `train(config, features)`; `python -m scav_model.train`, also under torchrun, is `scav train`."""

import sys

from scav_model.training import BEST, CHECKPOINT, TrainResult, learning_rate_factor, make_optimizer, train

__all__ = ["BEST", "CHECKPOINT", "TrainResult", "learning_rate_factor", "make_optimizer", "train"]

if __name__ == "__main__":
    from scav_model.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
