"""A network in the ridge's place: learns what a ridge cannot, and repeats."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from autofocus.training import network
from autofocus.training.network import NetworkSettings, fit_network
from models.regressor import plain_regressor

QUICK = NetworkSettings(hidden=(32, 16), unseen=0.0, dropped=0.0, rows=64, epochs=30)


def bent(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Label and distance; the distance is the size of an input, whatever its sign; 9 nuisances."""
    x = np.random.default_rng(seed).normal(0, 1, (count, 10))
    distance = np.abs(4 * x[:, 0])
    return x, np.stack([1 / (1 + (distance / 2) ** 2), distance], axis=1)


def predicted(fitted, x):
    return plain_regressor(fitted, sigma=2.0).predict(x)


def test_a_network_learns_what_a_ridge_cannot():
    x, y = bent(2000, seed=0)
    unseen, wanted = bent(500, seed=1)
    fitted, ridge = fit_network(x, y, QUICK), Ridge(1.0).fit(x, y)

    def correlation(regressor, output):
        return np.corrcoef(predicted(regressor, unseen)[:, output], wanted[:, output])[0, 1]

    for output in (0, 1):
        assert correlation(ridge, output) < 0.3
        assert correlation(fitted, output) > 0.95
    farther = predicted(fitted, unseen)[:, 1] - wanted[:, 1]
    assert np.median(np.abs(farther)) < 0.3
    assert abs(np.median(farther[wanted[:, 1] < 2])) < 0.15


def test_classes_are_distances_that_are_as_likely_as_a_search_comes_upon_them():
    """Without anything to see: those learnt from, and as many again that are taken evenly in z."""
    x, y = bent(4000, seed=0)
    x[:] = 0

    fitted = fit_network(x, y, QUICK)
    score, distance, deviation = predicted(fitted, x[:1])[0]
    seen = np.append(y[:, 1], np.linspace(0, y[:, 1].max(), len(y)))
    middle = np.median(seen)

    assert (np.diff(fitted.classes_) > 0).all()
    assert 0 < fitted.classes_[0] < 0.2
    assert fitted.classes_[-1] < y[:, 1].max()
    assert fitted.predict_proba(x[:1]).sum() == pytest.approx(1, abs=1e-4)
    assert score == pytest.approx((1 / (1 + (seen / 2) ** 2)).mean(), abs=0.03)
    assert distance == pytest.approx(middle, abs=0.3)
    assert deviation == pytest.approx(np.sqrt(((seen - middle) ** 2).mean()), abs=0.3)


def test_a_distance_that_no_row_has_is_not_taken_for_likely():
    x, y = bent(4000, seed=0)
    told = np.where(y[:, 1] < 2, 0.5, 10.0)
    x[:, 0] = np.where(told < 1, -1, 1)

    fitted = fit_network(x, np.stack([y[:, 0], told], axis=1), QUICK)
    likely = fitted.predict_proba(x)

    assert (np.abs(fitted.classes_[likely.argmax(axis=1)] - told) < 0.7).all()
    between = (fitted.classes_ > 2) & (fitted.classes_ < 5)
    assert likely[:, between].sum(axis=1).max() < 0.1


@pytest.mark.parametrize("distance", [0.0, 0.3, 4.0, 12.0])
def test_what_is_told_is_a_gaussian_around_the_distance_folded_at_focus(distance):
    ends = network.class_ends(12.0, 36)
    told = network.class_shares(np.array([distance]), ends)[0]
    drawn = np.random.default_rng(0).normal(np.arcsinh(distance), ends[1], 200_000)
    counts = np.histogram(np.abs(drawn), ends)[0]

    assert told.sum() == pytest.approx(1)
    np.testing.assert_allclose(told, counts / counts.sum(), atol=0.005)


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
    assert np.isfinite(predicted(fit_network(x, y), x)).all()
