"""Classical sharpness measures: one grey frame in, one number out, higher is sharper.

Every measure is computed on the frame divided by its own light, so gain, lamp power and bleaching
cancel and a frame that only grows brighter with defocus does not look sharper. Measures of power
have the share of the pixel noise subtracted: a frame of nothing but noise scores about 0, and
a little below 0 as often as above. No scale is shared between measures or specimens.

A frame without contrast, or smaller than the filter, scores 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from models.errors import UnknownScorer
from models.frame import as_grey_float, background, inspect, noise_sigma
from models.scorer import FrameScore

Float32 = NDArray[np.float32]
Measure = Callable[[Float32], float]


def normalised_variance(image: Float32) -> float:
    """Variance over squared mean.

    F. Groen, I. Young and G. Ligthart, "A comparison of different focus functions for use in
    autofocus algorithms", Cytometry 6 (1985) 81-91; squared mean, so that gain cancels.
    """
    relative, noise = _relative(image)
    return float(np.var(relative, dtype=np.float64)) - noise**2


def tenengrad(image: Float32) -> float:
    """Mean squared Sobel gradient.

    J. M. Tenenbaum, "Accommodation in computer vision", PhD thesis, Stanford 1970; as in
    E. Krotkov, "Focusing", Int. J. Computer Vision 1 (1988) 223-237. No threshold.
    """
    across = np.outer([1, 2, 1], [-1, 0, 1])
    return _filter_energy(image, across) + _filter_energy(image, across.T)


def brenner(image: Float32) -> float:
    """Mean squared difference of pixels two apart, along rows and along columns.

    J. F. Brenner et al., "An automated microscope for cytologic research", J. Histochemistry and
    Cytochemistry 24 (1976) 100-111; the original has one direction.
    """
    apart = np.array([[-1, 0, 1]])
    return _filter_energy(image, apart) + _filter_energy(image, apart.T)


def laplacian_variance(image: Float32) -> float:
    """Variance of the 4-neighbour Laplacian.

    J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study",
    Proc. ICPR 15 (2000) vol. 3, 314-317.
    """
    return _filter_energy(image, np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]))


def smd(image: Float32) -> float:
    """Sum-modulus-difference: mean absolute difference of neighbours, rows plus columns.

    R. A. Jarvis, "Focus optimization criteria for computer image processing", Microscope 24 (1976)
    163-180.
    """
    relative, noise = _relative(image)
    return _mean_modulus(np.diff(relative, axis=1), noise) + _mean_modulus(
        np.diff(relative, axis=0), noise
    )


def tamura(image: Float32) -> float:
    """Tamura coefficient: square root of standard deviation over mean.

    H. Tamura, S. Mori and T. Yamawaki, "Textural features corresponding to visual perception",
    IEEE Trans. SMC 8 (1978) 460-473; as a focus measure P. Memmolo et al., "Automatic focusing in
    digital holography and its application to stretched holograms", Optics Letters 36 (2011) 1945.
    """
    return max(normalised_variance(image), 0.0) ** 0.25


def fft_high_frequency(image: Float32) -> float:
    """Spectral power above a quarter of the Nyquist frequency.

    N. B. Nill and B. H. Bouzas, "Objective image quality measure derived from digital image power
    spectra", Optical Engineering 31 (1992) 813-825, without their model of the eye.
    """
    return _band_power(image, low=0.25, high=1.0)


def vollath_f4(image: Float32) -> float:
    """Autocorrelation at one pixel less that at two, mean of rows and columns.

    D. Vollath, "Automatic focusing by correlative methods", J. Microscopy 147 (1987) 279-288, on
    the frame less its mean. White noise is correlated with nothing and drops out by itself,
    however its strength varies over the frame.
    """
    relative, _ = _relative(image)
    if min(image.shape) < 3:
        return 0.0
    deviation = relative - np.float32(cv2.mean(relative)[0])
    rows = _mean_product(deviation[1:], deviation[:-1]) - _mean_product(
        deviation[2:], deviation[:-2]
    )
    columns = _mean_product(deviation[:, 1:], deviation[:, :-1]) - _mean_product(
        deviation[:, 2:], deviation[:, :-2]
    )
    return (rows + columns) / 2


def mid_band_power(image: Float32) -> float:
    """Spectral power between 1/8 and 1/2 of the Nyquist frequency.

    After the transverse mid-band power by which the program waveorder (github.com/mehta-lab)
    finds the plane in focus. Its band is a share of the optical cut-off; a model knows no optics,
    so here it is a share of the highest frequency of the camera.
    """
    return _band_power(image, low=0.125, high=0.5)


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "normalised_variance": normalised_variance,
        "tenengrad": tenengrad,
        "brenner": brenner,
        "laplacian_variance": laplacian_variance,
        "smd": smd,
        "tamura": tamura,
        "fft_high_frequency": fft_high_frequency,
        "vollath_f4": vollath_f4,
        "mid_band_power": mid_band_power,
    }
)

DEFAULT_MEASURE = "vollath_f4"
"""Why this one: docs/benchmarks/classical.md."""

# Of pixels up to this a point of light is highest in focus. Of 0.75 wavelength / NA it lies inside
# one pixel there, which no measure of neighbours tells from noise, and is highest beside focus.
_REFEREE_PIXEL = 0.6

# Standard deviation of the Gaussian of coarse contrast, in wavelengths / NA.
_SMOOTHED_OVER = 5.0
_LEAST_GAUSSIANS = 12

_BACKGROUND_SHARE = 0.75


@dataclass(frozen=True)
class ClassicalScorer:
    """A `models.scorer.Scorer` made of one measure.

    Parameters
    ----------
    measure : str
        A key of `MEASURES`.
    pixel : float, optional
        Of what the measure is taken: of means over as many camera pixels as fit in this multiple of
        wavelength / NA, where the sampling of a frame is told; else of the camera's own. Some
        detail goes, and more of the noise. Coarse contrast is told beside it.

    Raises
    ------
    UnknownScorer
        When no measure has this name.
    """

    measure: str = DEFAULT_MEASURE
    pixel: float | None = None

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UnknownScorer(
                f"no classical measure is called {self.measure!r}; "
                f"choose from {', '.join(MEASURES)}"
            )

    @property
    def name(self) -> str:
        """Name of the measure, and whether it is taken of the frame itself."""
        return self.measure if self.pixel is None else f"{self.measure}, binned"

    @property
    def head(self) -> None:
        """None: nothing is fitted."""
        return None

    @property
    def absolute(self) -> bool:
        """False: the score depends on the specimen."""
        return False

    @property
    def watched_by(self) -> None:
        """None: a classical measure needs no referee."""

    def score(
        self,
        image: NDArray[np.generic],
        *,
        bit_depth: int | None = None,
        sampling: float | None = None,
    ) -> FrameScore:
        """Score one grey frame; see `models.scorer.Scorer.score`."""
        stats = inspect(image, bit_depth=bit_depth)
        frame = as_grey_float(image)
        coarse = None
        if self.pixel is not None and sampling is not None:
            coarse = coarse_contrast(frame, sampling)
            frame = _binned(frame, max(1, int(self.pixel / sampling + 1e-6)))
        return FrameScore(
            score=MEASURES[self.measure](frame),
            coarse_contrast=coarse,
            dark=stats.dark,
            saturated=stats.saturated,
            fingerprint=stats.fingerprint,
        )


def referee() -> ClassicalScorer:
    """Whoever watches a learned score: docs/decisions/0018-a-referee-that-sees-in-the-dark.md."""
    return ClassicalScorer(DEFAULT_MEASURE, _REFEREE_PIXEL)


def coarse_contrast(image: Float32, sampling: float) -> float | None:
    """Variance of the frame's light, smoothed over some ten wavelengths / NA.

    Geometrical optics: detail is blurred when light spreads over as much as its size, so this has a
    focus curve some ten times as wide as that of the finest detail. Useless as a focus score, but
    from ten depths of field away it still tells on which side focus is.

    Parameters
    ----------
    image : ndarray of shape (height, width), float32
        Camera counts.
    sampling : float
        Camera pixel as a multiple of wavelength / NA.

    Returns
    -------
    float or None
        In units of the squared light, as of all measures here; 0 and more, noise included. None of
        a frame that holds fewer than a dozen such Gaussians side by side: light that comes and goes
        at its borders would outweigh the rest.
    """
    if min(image.shape) * sampling < _LEAST_GAUSSIANS * _SMOOTHED_OVER:
        return None
    relative, _ = _relative(image)
    n = max(1, round(1 / sampling))
    smooth = cv2.GaussianBlur(_binned(relative, n), (0, 0), _SMOOTHED_OVER / (n * sampling))
    return float(np.var(smooth, dtype=np.float64))


def compare_on_stack(planes: Sequence[NDArray[np.generic]]) -> dict[str, list[float]]:
    """Score every plane of a z-stack with every measure: name -> one score a plane."""
    frames = [as_grey_float(plane) for plane in planes]
    return {name: [measure(frame) for frame in frames] for name, measure in MEASURES.items()}


def _binned(image: Float32, n: int) -> Float32:
    """Means of ``n`` x ``n`` pixels; what is left over at the end of rows and columns is cut."""
    height, width = (side // n for side in image.shape)
    if n == 1 or not height or not width:
        return image
    whole = image[: height * n, : width * n]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))


def _relative(image: Float32) -> tuple[Float32, float]:
    """Frame above its background, and its noise, both as multiples of the frame's light."""
    level = background(image)
    noise = noise_sigma(image)
    above = image - np.float32(level)
    # The background is camera offset in fluorescence but light in transmitted light, and a frame
    # does not say which. Most of it is taken off; the rest keeps the divisor from vanishing where
    # structure is faint. Anything from 0.7 to 0.8 does: docs/benchmarks/classical.md.
    light = float(cv2.mean(above)[0]) + (1 - _BACKGROUND_SHARE) * max(level, 0.0)
    light = math.hypot(light, noise)
    if light <= 1e-6 * abs(level) or light < 1e-30:
        return np.zeros_like(image), 0.0
    above /= np.float32(light)
    return above, noise / light


def _filter_energy(image: Float32, kernel: NDArray[np.generic]) -> float:
    relative, noise = _relative(image)
    weights = kernel.astype(np.float32)
    rows, columns = weights.shape[0] // 2, weights.shape[1] // 2
    if image.shape[0] <= 2 * rows or image.shape[1] <= 2 * columns:
        return 0.0
    inner = cv2.filter2D(relative, cv2.CV_32F, weights)[
        rows : image.shape[0] - rows, columns : image.shape[1] - columns
    ]
    return _mean_product(inner, inner) - noise**2 * float(np.square(weights).sum())


def _mean_modulus(difference: Float32, noise: float) -> float:
    if difference.size == 0:
        return 0.0
    # 2 / sqrt(pi) is E|d| for the difference of two pixels of Gaussian noise alone.
    return float(np.mean(np.abs(difference), dtype=np.float64)) - noise * 2 / math.sqrt(math.pi)


def _mean_product(a: Float32, b: Float32) -> float:
    return float(cv2.mean(cv2.multiply(a, b))[0])


def _band_power(image: Float32, *, low: float, high: float) -> float:
    relative, noise = _relative(image)
    height, width = image.shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    windowed = (relative - relative.mean()) * window.astype(np.float32)
    power = np.square(np.abs(scipy.fft.rfft2(windowed))) / float(np.sum(window**2))
    nyquist = 2 * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    band = (nyquist >= low) & (nyquist < high)
    if not band.any():
        return 0.0
    return float(power[band].mean(dtype=np.float64)) - noise**2
