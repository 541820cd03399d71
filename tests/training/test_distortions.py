import numpy as np
import pytest
from scipy import fft, ndimage

from autofocus.training.defocus import LEVELS_DOF, DefocusBank, random_objectives
from autofocus.training.distortions import DISTORTIONS, LEVELS

SIDE = 128

# Kinds whose damage, as distance from the original, grows with the level.
ORDERED = sorted(set(DISTORTIONS) - {"denoise_median", "denoise_bilateral", "mean_shift"})
BLURS = ("gaussian_blur", "disk_blur", "motion_blur", "drift_blur")


@pytest.fixture(scope="module")
def image():
    """Blobs and fine grains over a faint background."""
    rng = np.random.default_rng(7)
    coarse = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 6)
    fine = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 1)
    field = np.clip(coarse / coarse.std(), 0, 3) * (1 + 0.5 * fine / fine.std())
    return np.clip(0.08 + 0.22 * field, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def bank():
    return DefocusBank(random_objectives(11, seed=0), (SIDE, SIDE))


def detail(image):
    return float(np.var(ndimage.laplace(image.astype(np.float64))))


def damaged(name, image, level, seed=0):
    return DISTORTIONS[name].apply(image, level, np.random.default_rng(seed))


def test_there_are_enough_kinds_and_nobody_can_add_to_them_by_accident():
    assert len(DISTORTIONS) >= 25
    with pytest.raises(TypeError):
        DISTORTIONS["more"] = DISTORTIONS["jpeg"]


@pytest.mark.parametrize("name", DISTORTIONS)
@pytest.mark.parametrize("level", range(LEVELS))
def test_the_result_is_an_image_of_the_same_kind_and_the_input_is_kept(name, level, image):
    before = image.copy()

    result = damaged(name, image, level)

    assert result.shape == image.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1
    assert not np.array_equal(result, image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_the_same_seed_gives_the_same_damage(name, image):
    np.testing.assert_array_equal(damaged(name, image, 2), damaged(name, image, 2))


@pytest.mark.parametrize("name", ORDERED)
def test_damage_grows_with_the_level(name, image):
    distance = [
        np.mean([np.abs(damaged(name, image, level, seed) - image).mean() for seed in range(4)])
        for level in range(LEVELS)
    ]

    assert distance == sorted(distance)
    assert distance[-1] > 1.5 * distance[0]


@pytest.mark.parametrize("name", ["denoise_median", "denoise_bilateral"])
def test_stronger_denoising_leaves_less_detail(name, image):
    left = [detail(damaged(name, image, level)) for level in range(LEVELS)]

    assert left == sorted(left, reverse=True)


def test_the_mean_moves_further_with_the_level(image):
    moved = [abs(float(damaged("mean_shift", image, k).mean() - image.mean())) for k in range(5)]

    assert moved == sorted(moved)


@pytest.mark.parametrize("name", BLURS)
def test_blur_keeps_the_light_and_loses_detail(name, image):
    results = [damaged(name, image, level) for level in range(LEVELS)]

    assert all(result.mean() == pytest.approx(image.mean(), rel=0.02) for result in results)
    left = [detail(result) for result in results]
    assert left == sorted(left, reverse=True)
    assert left[0] < detail(image)


def test_sharpening_sharpens(image):
    detailed = [detail(damaged("sharpen", image, level)) for level in range(LEVELS)]

    assert detail(image) < detailed[0]
    assert detailed == sorted(detailed)


def test_noise_has_the_stated_spread():
    grey = np.full((256, 256), 0.5, np.float32)

    read = damaged("read_noise", grey, 2)
    shot = damaged("poisson_noise", grey, 1)

    assert read.std() == pytest.approx(0.05, rel=0.05)
    assert shot.std() == pytest.approx(np.sqrt(0.5 * 250) / 250, rel=0.05)


@pytest.mark.parametrize("waves", [0.0, 0.25, -0.25])
@pytest.mark.parametrize("objective", range(0, 11, 2))
def test_defocus_keeps_the_light_and_loses_detail_with_each_level(objective, waves, image, bank):
    spectrum = fft.rfft2(image)

    blurred = [
        bank.blur(spectrum, level, objective=objective, spherical_waves=waves)
        for level in range(len(LEVELS_DOF))
    ]

    assert all(frame.dtype == np.float32 for frame in blurred)
    assert all(frame.mean() == pytest.approx(image.mean(), rel=1e-3) for frame in blurred)
    spread = [float(frame.var()) for frame in blurred]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] < image.var()


def test_aberration_makes_the_two_sides_of_focus_differ(image, bank):
    spectrum = fft.rfft2(image)

    above, below, ideal = (
        bank.blur(spectrum, 2, objective=4, spherical_waves=waves) for waves in (0.25, -0.25, 0)
    )

    assert np.abs(above - below).mean() > 0.05 * np.abs(above - image).mean()
    assert not np.allclose(above, ideal, atol=1e-3)


def test_a_transfer_function_is_computed_once(image, bank):
    fresh = DefocusBank(bank.objectives, bank.shape)
    spectrum = fft.rfft2(image)

    first = fresh.blur(spectrum, 1, objective=0)
    again = fresh.blur(spectrum, 1, objective=0)

    np.testing.assert_array_equal(first, again)
    assert len(fresh._transfers) == 1
