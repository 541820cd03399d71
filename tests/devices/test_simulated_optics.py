"""The physics of the simulated microscope, in numbers."""

import numpy as np
import pytest

from devices.simulated.optics import (
    Objective,
    depth_of_field_um,
    fluorescence_otf,
    transmitted_otf,
)
from devices.simulated.render import Renderer, camera_counts, expected_photons
from devices.simulated.specimens import Specimen

AIR_20X = Objective(na=0.75, immersion_index=1.0, wavelength_um=0.53, pixel_size_um=0.325)
OIL_100X = Objective(na=1.4, immersion_index=1.515, wavelength_um=0.53, pixel_size_um=0.065)
SHAPE = (64, 96)


def aberrated(waves):
    return Objective(0.75, 1.0, 0.53, 0.325, spherical_waves=waves)


def disc(shape=(96, 96), radius=8):
    y, x = np.indices(shape)
    inside = np.hypot(y - shape[0] / 2, x - shape[1] / 2) < radius
    return inside.astype(np.float32)


def fluorescent(layer, *, offset_um=0.0):
    return Specimen(((offset_um, layer),), "beads", "fluorescence")


def pupil_autocorrelation(objective, s, defocus_um, side=501):
    """OTF at normalised frequency s by brute force, on a grid of pupil points."""
    u = np.linspace(-1, 1, side)
    y, x = np.meshgrid(u, u, indexing="ij")
    left, right = (x + s / 2) ** 2 + y**2, (x - s / 2) ** 2 + y**2
    sine = objective.na / objective.immersion_index

    def waves(rho_2):
        cosine = np.sqrt(np.maximum(1 - sine**2 * rho_2, 0))
        defocus = objective.immersion_index / objective.wavelength_um * defocus_um * cosine
        return defocus + objective.spherical_waves * (6 * rho_2**2 - 6 * rho_2 + 1)

    both = (left <= 1) & (right <= 1)
    return float((np.cos(2 * np.pi * (waves(left) - waves(right))) * both).sum() * 4) / (
        np.pi * (side - 1) ** 2
    )


def test_depth_of_field_of_a_20x_is_1_376_um():
    # 0.53 / 0.5625 + 0.325 / 0.75
    assert depth_of_field_um(AIR_20X) == pytest.approx(0.94222 + 0.43333, abs=1e-4)


@pytest.mark.parametrize("defocus_dof", [0, 0.5, 3, 20])
@pytest.mark.parametrize("objective", [AIR_20X, OIL_100X, aberrated(0.5)])
def test_defocus_loses_no_light(objective, defocus_dof):
    defocus_um = defocus_dof * depth_of_field_um(objective)
    otf = fluorescence_otf(objective, defocus_um=defocus_um, shape=SHAPE)
    assert otf.shape == (64, 49)
    assert otf.dtype == np.float32
    assert otf[0, 0] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("defocus_dof", [0.5, 2, 6, 20])
@pytest.mark.parametrize("objective", [AIR_20X, OIL_100X, aberrated(0.5)])
def test_otf_is_the_autocorrelation_of_the_pupil(objective, defocus_dof):
    defocus_um = defocus_dof * depth_of_field_um(objective)
    shape = (512, 512)
    otf = fluorescence_otf(objective, defocus_um=defocus_um, shape=shape)
    for column in (1, 3, 10, 40):
        frequency = column / (shape[1] * objective.pixel_size_um)
        s = frequency * objective.wavelength_um / objective.na
        wanted = pupil_autocorrelation(objective, s, defocus_um)
        wanted *= np.sinc(frequency * objective.pixel_size_um)
        assert otf[0, column] == pytest.approx(wanted, abs=4e-3)


def test_nothing_passes_beyond_the_cutoff():
    fine = Objective(0.3, 1.0, 0.53, 0.2)
    otf = fluorescence_otf(fine, defocus_um=1.0, shape=(256, 256))
    cutoff = 2 * 0.3 / 0.53
    frequency = np.hypot(np.fft.fftfreq(256, 0.2)[:, None], np.fft.rfftfreq(256, 0.2))
    assert not otf[frequency > cutoff * 1.001].any()
    assert otf[(frequency < cutoff * 0.3)].all()


def test_a_defocused_point_spreads_as_wide_as_geometry_says():
    defocus_um, side = 20.0, 512
    otf = fluorescence_otf(AIR_20X, defocus_um=defocus_um, shape=(side, side))
    psf = np.fft.fftshift(np.fft.irfft2(otf))
    y, x = np.indices(psf.shape) - side // 2
    radius_um = np.hypot(y, x) * AIR_20X.pixel_size_um
    # tan(asin(0.75)) * 20 um = 22.7 um
    assert psf[radius_um < 22.7 * 1.08].sum() > 0.97
    assert psf[radius_um < 22.7 * 0.8].sum() < 0.85


def test_defocus_is_symmetric_without_aberration_and_not_with():
    for objective, alike in ((AIR_20X, True), (aberrated(0.3), False)):
        below = fluorescence_otf(objective, defocus_um=-2.0, shape=SHAPE)
        above = fluorescence_otf(objective, defocus_um=2.0, shape=SHAPE)
        assert np.allclose(below, above, atol=1e-4) == alike


def test_aberration_lowers_contrast_in_focus():
    perfect = fluorescence_otf(AIR_20X, defocus_um=0.0, shape=SHAPE)
    blurred = fluorescence_otf(aberrated(0.3), defocus_um=0.0, shape=SHAPE)
    assert blurred.sum() < 0.8 * perfect.sum()


@pytest.mark.parametrize("ratio", [0.3, 0.6, 1.0])
def test_transmitted_light_keeps_its_mean_and_hides_phase_in_focus(ratio):
    absorption, phase = transmitted_otf(
        AIR_20X, defocus_um=0.0, shape=SHAPE, condenser_na_ratio=ratio
    )
    assert absorption[0, 0] == pytest.approx(1.0, abs=1e-5)
    assert np.abs(phase).max() < 1e-6
    _, defocused = transmitted_otf(AIR_20X, defocus_um=2.0, shape=SHAPE, condenser_na_ratio=ratio)
    # A condenser as wide as the objective hides phase at every height.
    assert (np.abs(defocused).max() > 0.1) == (ratio < 1)
    assert abs(defocused[0, 0]) < 1e-5


def test_a_full_condenser_images_like_fluorescence_in_focus():
    absorption, _ = transmitted_otf(AIR_20X, defocus_um=0.0, shape=SHAPE, condenser_na_ratio=1.0)
    incoherent = fluorescence_otf(AIR_20X, defocus_um=0.0, shape=SHAPE)
    assert np.allclose(absorption, incoherent, atol=2e-3)


def test_phase_contrast_changes_sign_through_focus():
    _, below = transmitted_otf(AIR_20X, defocus_um=-1.0, shape=SHAPE, condenser_na_ratio=0.5)
    _, above = transmitted_otf(AIR_20X, defocus_um=1.0, shape=SHAPE, condenser_na_ratio=0.5)
    assert np.allclose(below, -above, atol=1e-4)


def test_a_phase_specimen_has_its_least_contrast_in_focus():
    specimen = Specimen(((0.0, disc()),), "phase", "brightfield", density=0.0, phase_rad=0.5)
    renderer = Renderer(specimen, AIR_20X)
    contrast = [float(renderer.relative(z).std()) for z in np.linspace(-4, 4, 17)]
    assert np.argmin(contrast[4:13]) == 4
    assert contrast[8] < 0.05 * max(contrast)


def test_an_absorbing_specimen_is_as_dark_as_its_density_says():
    specimen = Specimen(((0.0, disc(radius=24)),), "absorption", "brightfield", density=0.7)
    image = Renderer(specimen, AIR_20X).relative(0.0)
    assert image[48, 48] == pytest.approx(np.exp(-0.7), abs=0.02)
    assert image[4, 4] == pytest.approx(1.0, abs=0.02)


def test_energy_is_conserved_and_focus_is_sharpest():
    specimen = fluorescent(disc())
    images = [
        expected_photons(specimen, AIR_20X, defocus_um=z, photons=200, background=10)
        for z in (0.0, 1.0, 3.0, 10.0)
    ]
    total = images[0].sum()
    assert [image.sum() for image in images] == pytest.approx([total] * 4, rel=1e-3)
    spread = [image.std() for image in images]
    assert spread == sorted(spread, reverse=True)


def test_photons_are_those_of_the_structure_in_focus():
    for radius in (3, 20):
        image = expected_photons(
            fluorescent(disc(radius=radius)), AIR_20X, defocus_um=0, photons=200, background=10
        )
        light = image - 10.0
        assert (light**2).sum() / light.sum() == pytest.approx(200, rel=1e-3)
    assert image[48, 48] == pytest.approx(210, rel=0.1)
    assert image[4, 4] == pytest.approx(10, abs=2)


def test_a_layer_above_is_sharp_at_its_own_height():
    renderer = Renderer(fluorescent(disc(), offset_um=5.0), AIR_20X)
    spread = {z: float(renderer.relative(z).std()) for z in (-5.0, 0.0, 5.0)}
    assert max(spread, key=spread.get) == 5.0


def counts_of(level, **camera):
    expected = np.full((400, 400), level, np.float32)
    return camera_counts(expected, rng=np.random.default_rng(1), **camera).astype(float)


@pytest.mark.parametrize("level", [0.5, 3.0, 7.0, 9.0, 50.0, 5000.0])
def test_shot_noise_has_the_variance_of_its_mean(level):
    counts = counts_of(level, read_noise_e=0.0, offset=0.0, gain=4.0) / 4
    assert counts.mean() == pytest.approx(level, rel=0.01)
    assert counts.var() == pytest.approx(level, rel=0.03)


def test_read_noise_gain_and_offset_add_up():
    counts = counts_of(100.0, read_noise_e=5.0, gain=2.0, offset=300.0)
    assert counts.mean() == pytest.approx(500.0, rel=0.002)
    assert counts.var() == pytest.approx(4 * (100 + 25), rel=0.03)


def test_counts_saturate_at_the_bit_depth():
    counts = counts_of(6000.0, bit_depth=12)
    assert (counts == 4095).all()


def test_hot_pixels_stand_out():
    expected = np.full((50, 50), 10, np.float32)
    counts = camera_counts(
        expected, rng=np.random.default_rng(1), offset=0.0, hot_pixels=[(3, 4, 5000.0)]
    )
    assert counts[3, 4] > 4000
    assert np.delete(counts.ravel(), 3 * 50 + 4).max() < 60
    assert (expected == 10).all()


@pytest.mark.parametrize(
    "wrong", [{"na": 1.0}, {"na": -0.1}, {"wavelength_um": 0.0}, {"pixel_size_um": float("nan")}]
)
def test_refuses_an_objective_that_cannot_exist(wrong):
    values = {"na": 0.75, "immersion_index": 1.0, "wavelength_um": 0.53, "pixel_size_um": 0.3}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Objective(**{**values, **wrong})
