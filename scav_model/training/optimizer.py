"""AdamW, its schedule and the running mean of the weights."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from scav_model.config import OptimConfig


def make_optimizer(config: OptimConfig, model: nn.Module, objective: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW; only the weights of linear layers decay, never biases, gains, norms or the learned scale."""
    decayed = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    parameters = [p for p in (*model.parameters(), *objective.parameters()) if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def learning_rate_factor(config: OptimConfig, total: int) -> Callable[[int], float]:
    """Return the learning rate's factor at step i of `total`: a line up to 1, then half a cosine to final_rate."""
    rising = round(config.warmup * total)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        done = (step - rising) / max(1, total - 1 - rising)
        return config.final_rate + (1 - config.final_rate) * (1 + math.cos(math.pi * min(1.0, done))) / 2

    return factor


def running_mean(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return a copy of the model that follows its weights, the first step's at first; None where `decay` is 0."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
