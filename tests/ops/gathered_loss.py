"""The contrastive loss of a batch, and its gradients, in one of several processes that share it; run by test_nn.py.

Arguments: the rank of this process, the number of processes, the folder where they meet.
"""

import gc
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as collective
from torch import Tensor, nn

from scav_kernels.nn import SequenceContrastiveLoss

from .inputs import Sequences, Shape, sequences

GIVEN = sequences(Shape(b1=4, b2=4), torch.float64)


class Model(nn.Module):
    """A projection of both sides, and the loss."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.projection = nn.Parameter(torch.randn(4, 3, dtype=torch.float64, generator=generator))
        self.criterion = SequenceContrastiveLoss("dtw", scale=2.0, **options).double()

    def forward(self, *given: Tensor) -> Tensor:
        x, y, *lengths = given
        return self.criterion(x @ self.projection, y @ self.projection, *lengths)


def gather(rows: Tensor) -> Tensor:
    return torch.cat(collective.all_gather(rows))


def loss_and_gradients(model: nn.Module, given: Sequences) -> list[Tensor]:
    loss = model(*given)
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


def main() -> None:
    rank, processes, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=processes)
    size = len(GIVEN.x) // processes
    share = Sequences(*(part[rank * size : (rank + 1) * size] for part in GIVEN))
    model = nn.parallel.DistributedDataParallel(Model(gather=gather))
    torch.save(loss_and_gradients(model, share), folder / f"{rank}.pt")
    # torch joins gloo's threads when the last owner of the group goes. If that is the model's reducer, it holds the
    # interpreter's lock, for which a thread that lets go of a tensor may wait: neither would end.
    del model
    gc.collect()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
