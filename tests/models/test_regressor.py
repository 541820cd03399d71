"""What a network of distances says: label, distance and how sure it is."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from models.regressor import PlainRegressor, plain_regressor


def always(*logits: float, distances: list[float], sigma: float = 2.0) -> PlainRegressor:
    """Says the same of every input."""
    offset = np.array(logits)
    return PlainRegressor(((np.zeros((2, len(offset))), offset),), np.array(distances), sigma)


def test_of_one_possible_distance_it_is_sure():
    regressor = always(-50, 50, -50, distances=[0.0, 3.0, 9.0], sigma=3.0)

    assert regressor.predict(np.ones((1, 2)))[0] == pytest.approx([0.5, 3.0, 0.0], abs=1e-9)


def test_between_two_it_says_the_mean_label_the_middle_and_how_far_they_are():
    regressor = always(0, 0, distances=[0.0, 2.0])

    assert regressor.predict(np.ones((1, 2)))[0] == pytest.approx([0.75, 1.0, 1.0])


def test_the_distance_is_the_median_not_the_mean():
    regressor = always(0, 0, 0, 0, 0, distances=[0.0, 1.0, 2.0, 3.0, 100.0])

    assert regressor.predict(np.ones((1, 2)))[0, 1] == pytest.approx(2.0)


def test_huge_logits_and_many_rows_are_fine():
    slope = np.array([[1e4, -1e4, 0.0]])
    regressor = PlainRegressor(((slope, np.zeros(3)),), np.array([0.0, 1.0, 2.0]), sigma=2.0)

    said = regressor.predict(np.array([[1.0], [-1.0]]))

    assert said[0] == pytest.approx([1.0, 0.0, 0.0])
    assert said[1] == pytest.approx([0.8, 1.0, 0.0])


@pytest.mark.parametrize(
    ("slopes", "distances", "says"),
    [
        ([np.zeros((2, 3)), np.zeros((4, 2))], [0.0, 1.0], "cannot follow 3"),
        ([np.zeros((2, 3))], [0.0, 1.0], "3 outputs cannot stand for"),
        ([np.zeros((2, 3))], [0.0, 1.0, 1.0], "must grow"),
        ([np.zeros((2, 3))], [0.0, 1.0, np.nan], "must grow"),
        ([np.full((2, 3), np.nan)], [0.0, 1.0, 2.0], "no numbers"),
    ],
)
def test_maps_that_do_not_fit_are_refused(slopes, distances, says):
    affine = tuple((slope, np.zeros(slope.shape[1])) for slope in slopes)

    with pytest.raises(ValueError, match=says):
        PlainRegressor(affine, np.array(distances), sigma=2.0)


def test_a_ridge_is_read_as_it_predicts():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 2))
    ridge = Ridge(1.0).fit(x, y)

    regressor = plain_regressor(ridge, sigma=2.0)

    assert regressor.linear
    np.testing.assert_allclose(regressor.predict(x), ridge.predict(x))
