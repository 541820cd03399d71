"""A network in the ridge's place: learns what a ridge cannot, and repeats."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from autofocus.training.network import NetworkSettings, fit_network

QUICK = NetworkSettings(hidden=(32, 16), unseen=0.0, dropped=0.0, rows=64, epochs=30)


def bent(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A distance that is the size of an input, whatever its sign, in two units; 9 nuisances."""
    x = np.random.default_rng(seed).normal(0, 1, (count, 10))
    distance = np.abs(x[:, 0])
    return x, np.stack([distance, 1000 * distance], axis=1)


def test_a_network_learns_what_a_ridge_cannot():
    x, y = bent(2000, seed=0)
    unseen, wanted = bent(500, seed=1)
    network, ridge = fit_network(x, y, QUICK), Ridge(1.0).fit(x, y)

    def correlation(fitted, output):
        return np.corrcoef(fitted.predict(unseen)[:, output], wanted[:, output])[0, 1]

    assert correlation(ridge, 0) < 0.3
    # Neither output drowns the other, whatever its unit.
    assert correlation(network, 0) > 0.95
    assert correlation(network, 1) > 0.95
    assert network.predict(unseen)[:, 1].mean() == pytest.approx(wanted[:, 1].mean(), rel=0.1)


def test_the_same_seed_gives_the_same_network_and_leaves_torch_alone():
    x, y = bent(200, seed=0)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again = (fit_network(x, y, QUICK) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for one, other in zip(first.coefs_, again.coefs_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_fewer_rows_than_a_step_takes_are_enough():
    x, y = bent(20, seed=0)
    assert np.isfinite(fit_network(x, y).predict(x)).all()
