"""Momentum contrast (MoCo v2, Chen et al. 2020, arXiv:2003.04297) for a small batch on a CPU.

Besides the queue, the keys of the other rows of the batch are negatives: the hardest ones, since
they show the same pixels under another distortion. Keys that carry the very label of the query
(the same distortion at the same level on another image) are left out of its negatives.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

PRISTINE = 0  # label of a row that has not been distorted
UNLABELLED = -1  # label of rows and queue entries that are a negative to everything


class Projector(nn.Module):
    """An encoder with MoCo's head: (n, 1, h, w) -> (n, dim), L2-normalised."""

    def __init__(self, encoder: nn.Module, *, inputs: int, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Project grey crops onto the unit sphere."""
        return functional.normalize(self.head(self.encoder(x)), dim=1)


class MoCo(nn.Module):
    """Query network, its slow copy, and the queue of past keys.

    Parameters
    ----------
    encoder : nn.Module
        (n, 1, h, w) -> (n, inputs).
    inputs, dim : int
        Width of the encoder's features and of the projection.
    queue_size : int
        Past keys kept as negatives. The write position is saved with them.
    momentum : float
        Share of the slow copy that survives a step.
    temperature : float
    """

    queue: Tensor
    queue_labels: Tensor
    position: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        *,
        inputs: int,
        dim: int = 128,
        queue_size: int = 16384,
        momentum: float = 0.99,
        temperature: float = 0.2,
    ) -> None:
        super().__init__()
        self.query = Projector(encoder, inputs=inputs, dim=dim)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.momentum = momentum
        self.temperature = temperature
        self.register_buffer("queue", functional.normalize(torch.randn(queue_size, dim), dim=1))
        self.register_buffer("queue_labels", torch.full((queue_size,), UNLABELLED))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def keys(self, x: Tensor) -> Tensor:
        """Projections by the slow copy, whose BatchNorm sees the batch (as in Re-IQA)."""
        self.key.train()
        return self.key(x)

    def loss(self, q: Tensor, k: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """InfoNCE of each query against its key, the other keys of the batch, and the queue.

        Parameters
        ----------
        q, k : Tensor of shape (n, dim)
            Row i of ``k`` is the positive of row i of ``q``.
        labels : Tensor of shape (n,), int64
            Distortion and level of each row; ``UNLABELLED`` rows are negatives to all others.

        Returns
        -------
        loss, accuracy : Tensor
            Scalars; accuracy is the share of queries whose own key scores highest.
        """
        in_batch = q @ k.T
        in_queue = q @ self.queue.T
        own = torch.eye(len(q), dtype=torch.bool, device=q.device)
        in_batch = in_batch.masked_fill(_same(labels, labels) & ~own, -torch.inf)
        in_queue = in_queue.masked_fill(_same(labels, self.queue_labels), -torch.inf)
        logits = torch.cat([in_batch, in_queue], dim=1) / self.temperature
        target = torch.arange(len(q), device=q.device)
        accuracy = (logits.argmax(dim=1) == target).float().mean()
        return functional.cross_entropy(logits, target), accuracy

    @torch.no_grad()
    def enqueue(self, k: Tensor, labels: Tensor) -> None:
        """Overwrite the oldest keys; wraps at the end of the queue."""
        size = len(self.queue)
        slots = (self.position + torch.arange(len(k), device=k.device)) % size
        self.queue[slots] = k
        self.queue_labels[slots] = labels
        self.position.copy_((self.position + len(k)) % size)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the slow copy's parameters towards the query network's; BatchNorm buffers stay."""
        for slow, fast in zip(self.key.parameters(), self.query.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.momentum)


def _same(labels: Tensor, others: Tensor) -> Tensor:
    return (labels[:, None] == others[None, :]) & (labels[:, None] != UNLABELLED)
