"""Several processes that train one network, started by ``torchrun``; one alone needs nothing.

Every process makes its own batches. Gradients are averaged and keys are shared, so that weights and
queue stay the same everywhere; BatchNorm sees the local batch, as in Re-IQA.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Team:
    """Who trains along.

    Attributes
    ----------
    rank, size : int
        This process among all; rank 0 writes the files.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes log, checkpoint and result."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The CUDA device of this process, or the CPU."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the team."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= self.size

    def gathered(self, rows: Tensor) -> Tensor:
        """Rows of all processes, in the order of their ranks, without gradients."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def agreed(self, value: float) -> float:
        """The value that rank 0 has: clocks differ, but all must stop at the same step."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, src=0)
        return float(shared[0])


@contextmanager
def assembled() -> Iterator[Team]:
    """Join the processes that ``torchrun`` started with this one, and part from them at the end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        team = Team(distributed.get_rank(), size)
        if team.device.type == "cuda":
            torch.cuda.set_device(team.device)
        yield team
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
