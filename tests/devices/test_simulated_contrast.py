"""Phase contrast and interference contrast against waves that are added up one by one."""

import numpy as np
import pytest

from devices.simulated.contrast import InterferenceContrast, PhaseContrast
from devices.simulated.optics import Objective, TransferFunctions
from devices.simulated.render import Renderer
from devices.simulated.specimens import Specimen

FINE = Objective(na=0.75, immersion_index=1.0, wavelength_um=0.53, pixel_size_um=0.15)
SIDE = 128


def transparent(phase_rad):
    """Two smooth bumps, one of them lengthy, that only delay the light."""
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2
    matter = np.exp(-((x + 20) ** 2 + y**2) / 30) + np.exp(-((x - 15) ** 2 / 20 + y**2 / 200))
    return Specimen(((0.0, matter.astype(np.float32)),), "phase", "brightfield", 0.0, phase_rad)


def frequencies():
    """Pupil coordinates (fy, fx) of the image's frequency grid."""
    f = np.fft.fftfreq(SIDE, FINE.pixel_size_um) * FINE.wavelength_um / FINE.na
    return f[:, None], f[None, :]


def pupil(defocus_um):
    fy, fx = frequencies()
    rho_2 = fy**2 + fx**2
    cosine = np.sqrt(np.maximum(1 - FINE.na**2 * rho_2, 0))
    return (rho_2 <= 1) * np.exp(2j * np.pi / FINE.wavelength_um * defocus_um * (cosine - 1))


def image_of(specimen, source, filtered):
    """Intensity, the empty field being 1: every source point by itself, then all intensities.

    Parameters
    ----------
    source : list of (int, int)
        Frequencies of the illuminating plane waves, in steps of the grid.
    filtered : callable
        (spectrum of the transmitted wave relative to its own plane wave, source point) -> field.
    """
    field = np.exp(1j * specimen.phase_rad * specimen.layers[0][1].astype(float))
    spectrum, empty = np.fft.fft2(field), np.fft.fft2(np.ones_like(field))
    total = sum(np.abs(filtered(spectrum, point)) ** 2 for point in source)
    background = sum(np.abs(filtered(empty, point)) ** 2 for point in source)
    fy, fx = np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None, :]
    return np.fft.ifft2(np.fft.fft2(total / background) * np.sinc(fy) * np.sinc(fx)).real


def assert_alike(rendered, wanted):
    seen, truth = rendered.ravel() - 1, wanted.ravel() - 1
    assert np.corrcoef(seen, truth)[0, 1] > 0.995
    assert np.std(seen) == pytest.approx(np.std(truth), rel=0.06)


@pytest.mark.parametrize(
    ("width", "amplitude", "bright"), [(0.1, 0.5, False), (0.1, 0.5, True), (0.15, 0.8, False)]
)
@pytest.mark.parametrize("defocus_um", [0.0, 1.5])
def test_phase_contrast_is_what_adding_up_waves_gives(defocus_um, width, amplitude, bright):
    contrast = PhaseContrast(radius=0.5, width=width, amplitude=amplitude, bright=bright)
    fy, fx = frequencies()
    rho = np.hypot(fy, fx)
    in_ring = np.abs(rho - contrast.radius) < contrast.width / 2
    delayed = np.where(in_ring, contrast.amplitude, -1j if bright else 1j)
    behind = pupil(defocus_um) * delayed

    def filtered(spectrum, point):
        return np.fft.ifft2(np.roll(spectrum, point, (0, 1)) * behind)

    near = np.abs(rho - contrast.radius) < 0.3 * contrast.width
    source = [tuple(int(i) for i in point) for point in np.argwhere(near)]
    specimen = transparent(0.02)
    rendered = Renderer(specimen, FINE, contrast=contrast).relative(defocus_um)
    assert_alike(rendered, image_of(specimen, source, filtered))


@pytest.mark.parametrize("defocus_um", [0.0, 1.5])
def test_interference_contrast_is_what_adding_up_waves_gives(defocus_um):
    contrast = InterferenceContrast(shear=0.3, bias_rad=0.7, direction_rad=0.4)
    fy, fx = frequencies()
    along = fx * np.cos(contrast.direction_rad) + fy * np.sin(contrast.direction_rad)
    # Of the light relative to its own plane wave: the condenser's prism undoes the rest.
    prism = np.sin(contrast.bias_rad / 2 + np.pi * contrast.shear * along)

    def filtered(spectrum, point):
        return np.fft.ifft2(np.roll(spectrum * prism, point, (0, 1)) * pupil(defocus_um))

    source = [tuple(int(i) for i in p) for p in np.argwhere(np.hypot(fy, fx) < 0.5)]
    specimen = transparent(0.02)
    renderer = Renderer(specimen, FINE, condenser_na_ratio=0.5, contrast=contrast)
    assert_alike(renderer.relative(defocus_um), image_of(specimen, source, filtered))


@pytest.mark.parametrize(("width", "amplitude"), [(0.1, 0.5), (0.06, 0.3), (0.15, 0.8)])
def test_beside_the_ring_phase_becomes_two_over_its_amplitude_of_intensity(width, amplitude):
    """And no absorption: the background keeps its quarter of a wave however thin the ring is."""
    contrast = PhaseContrast(radius=0.5, width=width, amplitude=amplitude)
    fine = Objective(na=0.75, immersion_index=1.0, wavelength_um=0.53, pixel_size_um=0.02)
    functions = TransferFunctions(fine, (2048, 2048))
    absorption, phase = functions.transmitted(0.0, condenser_na_ratio=0.5, contrast=contrast)
    column = round(0.25 / (fine.wavelength_um / fine.na) * 2048 * fine.pixel_size_um)
    # Some directions of the wave still meet the ring.
    assert -2 / amplitude <= phase[0, column] < -0.75 * 2 / amplitude
    assert 0 <= absorption[0, column] < 0.25


@pytest.mark.parametrize(
    "make",
    [
        lambda: PhaseContrast(radius=0.95, width=0.15),
        lambda: PhaseContrast(amplitude=0.0),
        lambda: PhaseContrast(width=0.0),
        lambda: InterferenceContrast(bias_rad=0.0),
        lambda: InterferenceContrast(shear=0.0),
    ],
)
def test_an_impossible_contrast_is_refused(make):
    with pytest.raises(ValueError, match="Contrast"):
        make()


def test_the_sharpest_plane_of_a_phase_specimen_is_its_own_only_where_contrast_shows_it():
    aberrated = Objective(0.75, 1.0, 0.53, 0.15, spherical_waves=0.4)
    assert Renderer(transparent(0.1), aberrated).sharpest_defocus_um == 0
    seen = Renderer(transparent(0.1), aberrated, contrast=PhaseContrast())
    planes_um = np.linspace(-2, 2, 81)
    detail = [float(np.diff(seen.relative(float(z)), axis=1).var()) for z in planes_um]
    assert seen.sharpest_defocus_um == pytest.approx(planes_um[np.argmax(detail)], abs=0.35)
    assert abs(seen.sharpest_defocus_um) > 0.1


@pytest.mark.parametrize("contrast", [PhaseContrast(), InterferenceContrast()])
def test_what_is_transparent_is_seen_best_in_focus(contrast):
    specimen = transparent(0.1)
    with_contrast = Renderer(specimen, FINE, contrast=contrast)
    seen = [float(with_contrast.relative(z_um).std()) for z_um in (-6.0, 0.0, 6.0)]
    assert seen[1] > 1.3 * max(seen[0], seen[2])
    assert seen[1] > 20 * float(Renderer(specimen, FINE).relative(0.0).std())


@pytest.mark.parametrize("contrast", [None, PhaseContrast(), InterferenceContrast()])
@pytest.mark.parametrize("defocus_um", [0.0, 10.0])
def test_an_empty_field_stays_one(contrast, defocus_um):
    functions = TransferFunctions(FINE, (SIDE, SIDE))
    absorption, phase = functions.transmitted(defocus_um, condenser_na_ratio=0.5, contrast=contrast)
    assert absorption[0, 0] == pytest.approx(1, abs=1e-4)
    assert phase[0, 0] == pytest.approx(0, abs=1e-4)
