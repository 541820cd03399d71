import pytest
import torch
from torch import nn
from torch.nn import functional

from autofocus.training.moco import UNLABELLED, MoCo

DIM = 8


@pytest.fixture
def moco():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU())
    return MoCo(encoder, inputs=12, dim=DIM, queue_size=10, momentum=0.9)


def unit(*shape):
    return functional.normalize(torch.randn(*shape), dim=1)


def test_the_queue_wraps_and_drops_the_oldest_keys(moco):
    keys = unit(14, DIM)
    labels = torch.arange(14)

    moco.enqueue(keys[:7], labels[:7])
    moco.enqueue(keys[7:], labels[7:])

    assert int(moco.position) == 4
    torch.testing.assert_close(moco.queue[4:], keys[4:10])
    torch.testing.assert_close(moco.queue[:4], keys[10:])
    assert moco.queue_labels.tolist() == [10, 11, 12, 13, 4, 5, 6, 7, 8, 9]


def test_the_write_position_is_saved_with_the_queue(moco):
    moco.enqueue(unit(7, DIM), torch.arange(7))

    assert int(moco.state_dict()["position"]) == 7


def test_the_loss_is_the_cross_entropy_of_the_own_key_against_all_others(moco):
    q, k = unit(3, DIM), unit(3, DIM)
    logits = torch.cat([q @ k.T, q @ moco.queue.T], dim=1) / 0.2
    wanted = -(logits.diagonal() - logits.logsumexp(dim=1)).mean()

    loss, _ = moco.loss(q, k, torch.full((3,), UNLABELLED))

    torch.testing.assert_close(loss, wanted)


def test_keys_with_the_querys_own_label_are_no_negatives(moco):
    q, k = unit(3, DIM), unit(3, DIM)
    labels = torch.tensor([5, 5, 6])
    moco.enqueue(unit(10, DIM), torch.tensor([5] * 9 + [7]))
    logits = torch.cat([q @ k.T, q @ moco.queue.T], dim=1) / 0.2
    logits[0, 1] = logits[1, 0] = -torch.inf
    logits[:2, 3:12] = -torch.inf
    wanted = -(logits.diagonal() - logits.logsumexp(dim=1)).mean()

    loss, _ = moco.loss(q, k, labels)

    torch.testing.assert_close(loss, wanted)


def test_accuracy_counts_queries_whose_own_key_is_nearest(moco):
    k = unit(4, DIM)
    wrong_for_the_last = k.clone()
    wrong_for_the_last[3] = k[0]

    _, accuracy = moco.loss(wrong_for_the_last, k, torch.full((4,), UNLABELLED))

    assert float(accuracy) == 0.75


def test_the_slow_copy_follows_without_gradients(moco):
    fast = moco.query.head[0].weight
    slow = moco.key.head[0].weight
    with torch.no_grad():
        fast.add_(1.0)
    gap = (fast - slow).detach().clone()

    moco.follow()

    torch.testing.assert_close((fast - slow).detach(), 0.9 * gap)
    assert not any(parameter.requires_grad for parameter in moco.key.parameters())


def test_the_loss_falls_on_a_problem_that_can_be_learned():
    """Rows differ in one direction of 16 and carry noise in all others."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU())
    moco = MoCo(encoder, inputs=12, dim=DIM, queue_size=64)
    optimizer = torch.optim.AdamW(moco.query.parameters(), lr=1e-2)
    labels = torch.full((16,), UNLABELLED)
    losses = []
    for _ in range(60):
        signal = torch.eye(16) * 3
        q = moco.query((signal + 0.3 * torch.randn(16, 16)).reshape(16, 1, 4, 4))
        k = moco.keys((signal + 0.3 * torch.randn(16, 16)).reshape(16, 1, 4, 4))
        loss, _ = moco.loss(q, k, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        moco.follow()
        losses.append(float(loss.detach()))

    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
