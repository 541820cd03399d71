"""Ways in which a micrograph goes wrong: 36 kinds at 5 levels, for grey images.

Every function has the signature ``(image, level, rng) -> image``: ``image`` float32 of shape
(h, w) in [0, 1], ``level`` 0 (slight) to 4 (severe). Re-IQA's 26 distortions are for colour
photographs; those that mean something on a grey frame are kept, with working code, and joined by
what cameras, lamps and objectives do. Defocus comes from a pupil function and needs the optics of
the image, so it enters through `with_defocus`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Distort = Callable[[Image, int, np.random.Generator], Image]

LEVELS = 5


@dataclass(frozen=True)
class Distortion:
    """One kind of damage.

    Attributes
    ----------
    apply : callable
        ``(image, level, rng) -> image``.
    after_camera : bool
        It happens to the recorded frame (compression, hot pixels), not to the light reaching the
        camera (blur, haze): photon noise is added before it instead of after.
    """

    apply: Distort
    after_camera: bool = False


def gaussian_blur(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Gaussian of sigma 0.5 to 5 px."""
    return cv2.GaussianBlur(image, (0, 0), (0.5, 1.0, 2.0, 3.0, 5.0)[level])


def disk_blur(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Mean over a disk of radius 1 to 8 px: defocus as geometrical optics has it."""
    radius = (1.0, 2.0, 3.0, 5.0, 8.0)[level]
    y, x = _centred_grid(2 * math.ceil(radius) + 1)
    return _convolve(image, np.clip(radius + 0.5 - np.hypot(y, x), 0, 1))


def motion_blur(image: Image, level: int, rng: np.random.Generator) -> Image:
    """A straight stroke of 3 to 23 px in any direction: the stage had not settled."""
    half = (3, 5, 9, 15, 23)[level] / 2
    angle = rng.uniform(0, math.pi)
    along = np.linspace(-half, half, 4 * math.ceil(half) + 1)
    return _convolve(image, _track_kernel(along * math.sin(angle), along * math.cos(angle)))


def drift_blur(image: Image, level: int, rng: np.random.Generator) -> Image:
    """A wandering track of 2 to 16 px during the exposure: thermal drift and vibration."""
    extent = (2.0, 4.0, 7.0, 11.0, 16.0)[level]
    track = np.cumsum(rng.normal(size=(2, 64)), axis=1)
    track -= track.mean(axis=1, keepdims=True)
    track *= extent / 2 / np.hypot(*track).max()
    return _convolve(image, _track_kernel(track[0], track[1]))


def poisson_noise(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Shot noise of 800 down to 8 photons in the brightest pixel."""
    photons = (800.0, 250.0, 80.0, 25.0, 8.0)[level]
    return _clip(rng.poisson(image * photons) / photons)


def read_noise(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Signal-independent Gaussian noise of 1 to 20 % of the range."""
    return _add_noise(image, (0.01, 0.025, 0.05, 0.1, 0.2)[level], rng)


def multiplicative_noise(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Speckle: noise of 3 to 50 % of each pixel's value."""
    return _add_noise(image, (0.03, 0.07, 0.15, 0.3, 0.5)[level] * image, rng)


def impulse_noise(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Salt and pepper in 0.1 to 5 % of the pixels."""
    share = (0.001, 0.005, 0.01, 0.02, 0.05)[level]
    draw = rng.random(image.shape, dtype=np.float32)
    return np.where(draw < share, (draw < share / 2).astype(np.float32), image)


def hot_pixels(image: Image, level: int, rng: np.random.Generator) -> Image:
    """0.01 to 0.4 % of the pixels shine on their own, each at its own brightness."""
    share = (1e-4, 3e-4, 8e-4, 2e-3, 4e-3)[level]
    hot = rng.random(image.shape, dtype=np.float32) < share
    return _clip(image + hot * rng.uniform(0.3, 1.0, image.shape))


def haze(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Out-of-focus light over everything: 15 to 90 % of the frame becomes a smooth veil."""
    share = (0.15, 0.3, 0.5, 0.7, 0.9)[level]
    veil = cv2.GaussianBlur(image, (0, 0), max(image.shape) / 10)
    return _clip((1 - share) * image + share * (0.5 * veil + 0.5 * image.mean()))


def background(image: Image, level: int, rng: np.random.Generator) -> Image:
    """A constant pedestal (autofluorescence, stray light) of 10 to 90 % of the range."""
    pedestal = (0.1, 0.25, 0.45, 0.7, 0.9)[level]
    return _clip(pedestal + (1 - pedestal) * image)


def dimming(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Bleaching: 60 % down to 3 % of the light is left; the camera's noise does the rest."""
    return _clip(image * (0.6, 0.35, 0.2, 0.08, 0.03)[level])


def brightening(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Exposure 1.3 to 8 times too long; what exceeds the range is lost."""
    return _clip(image * (1.3, 1.8, 2.7, 4.5, 8.0)[level])


def saturation(image: Image, level: int, rng: np.random.Generator) -> Image:
    """The brightest 1 to 30 % of the pixels all read full."""
    top = np.quantile(image, (0.99, 0.97, 0.93, 0.85, 0.7)[level])
    return _clip(image / max(float(top), 1e-3))


def black_clipping(image: Image, level: int, rng: np.random.Generator) -> Image:
    """An offset set too low: the darkest 10 to 80 % of the pixels all read zero."""
    floor = float(np.quantile(image, (0.1, 0.25, 0.45, 0.65, 0.8)[level]))
    return _clip((image - floor) / max(1 - floor, 1e-3))


def contrast_up(image: Image, level: int, rng: np.random.Generator) -> Image:
    """A sigmoid of growing slope about the mean."""
    slope = (2.0, 4.0, 7.0, 12.0, 20.0)[level]
    curve = 1 / (1 + np.exp(-slope * (image - image.mean())))
    return _stretch(curve)


def contrast_down(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Everything drawn to the mean: 70 % down to 5 % of the contrast is left."""
    return _clip(image.mean() + (0.7, 0.45, 0.25, 0.12, 0.05)[level] * (image - image.mean()))


def gamma_up(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Exponent 1.2 to 4: faint parts vanish."""
    return _clip(image ** (1.2, 1.5, 2.0, 3.0, 4.0)[level])


def gamma_down(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Exponent 0.85 to 0.25: faint parts come forward."""
    return _clip(image ** (0.85, 0.7, 0.55, 0.4, 0.25)[level])


def mean_shift(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Offset of 4 to 30 % of the range, either way."""
    shift = (0.04, 0.08, 0.13, 0.2, 0.3)[level]
    return _clip(image + shift * rng.choice((-1, 1)))


def uneven_illumination(image: Image, level: int, rng: np.random.Generator) -> Image:
    """A bright spot off-centre; the far corners keep 80 % down to 10 % of the light."""
    left = (0.8, 0.6, 0.4, 0.2, 0.1)[level]
    height, width = image.shape
    cy, cx = rng.uniform(-0.5, 1.5, 2) * (height, width)
    y, x = np.ogrid[:height, :width]
    away = ((y - cy) ** 2 + (x - cx) ** 2).astype(np.float32)
    return _clip(image * left ** (away / away.max()))


def gradient(image: Image, level: int, rng: np.random.Generator) -> Image:
    """A ramp of stray light across the frame, 8 to 100 % of the range at its high side."""
    height = (0.08, 0.2, 0.4, 0.7, 1.0)[level]
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    ramp = y * math.sin(angle) + x * math.cos(angle)
    ramp = (ramp - ramp.min()) / (ramp.max() - ramp.min())
    return _clip((image + height * ramp) / (1 + height))


def stripes(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Sinusoidal bands of period 4 to 40 px: interference, mains flicker on a rolling shutter."""
    depth = (0.03, 0.07, 0.15, 0.25, 0.4)[level]
    angle, phase = rng.uniform(0, 2 * math.pi, 2)
    wave = 2 * math.pi / math.exp(rng.uniform(math.log(4), math.log(40)))
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    bands = np.sin(wave * (y * math.sin(angle) + x * math.cos(angle)) + phase)
    return _clip(image * (1 - depth) + depth * (0.5 + 0.5 * bands))


def column_pattern(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Each column has its own offset: the fixed pattern of a scientific CMOS camera."""
    spread = (0.01, 0.02, 0.04, 0.08, 0.15)[level]
    return _clip(image + spread * rng.standard_normal((1, image.shape[1])))


def pixel_gain(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Flat field left uncorrected: patchy gain of 3 to 40 %, grains of 2 to 6 px."""
    spread = (0.03, 0.07, 0.13, 0.25, 0.4)[level]
    grains = rng.standard_normal(image.shape, dtype=np.float32)
    grains = cv2.GaussianBlur(grains, (0, 0), rng.uniform(1, 3))
    return _clip(image * (1 + spread * grains / grains.std()))


def dust(image: Image, level: int, rng: np.random.Generator) -> Image:
    """2 to 32 soft dark spots: dirt far from the specimen plane."""
    shade = _blobs(image.shape, (2, 4, 8, 16, 32)[level], rng, ring=False)
    return _clip(image * (1 - 0.7 * shade))


def rings(image: Image, level: int, rng: np.random.Generator) -> Image:
    """1 to 16 diffraction rings from dirt in a coherent beam."""
    return _clip(image + 0.35 * _blobs(image.shape, (1, 2, 4, 8, 16)[level], rng, ring=True))


def ghost(image: Image, level: int, rng: np.random.Generator) -> Image:
    """A reflection between lenses: a displaced copy holding 8 to 60 % of the light."""
    share = (0.08, 0.15, 0.25, 0.4, 0.6)[level]
    dy, dx = rng.integers(6, 40, 2) * rng.choice((-1, 1), 2)
    return _clip((1 - share) * image + share * np.roll(image, (dy, dx), axis=(0, 1)))


def jpeg(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Compression at quality 60 down to 5."""
    quality = (60, 40, 25, 12, 5)[level]
    done, code = cv2.imencode(".jpg", _to_uint8(image), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"cannot compress an image of shape {image.shape}")
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE), np.float32) / np.float32(255)


def quantise(image: Image, level: int, rng: np.random.Generator) -> Image:
    """32 down to 3 grey values."""
    steps = (32, 16, 8, 5, 3)[level] - 1
    return (np.round(image * steps) / steps).astype(np.float32)


def resolution_bicubic(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Shrunk 1.5 to 8 times and brought back with bicubic interpolation."""
    return _lose_resolution(image, (1.5, 2, 3, 5, 8)[level], cv2.INTER_CUBIC)


def resolution_bilinear(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Shrunk 1.5 to 8 times and brought back with bilinear interpolation."""
    return _lose_resolution(image, (1.5, 2, 3, 5, 8)[level], cv2.INTER_LINEAR)


def resolution_nearest(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Every second to sixth pixel, repeated: aliasing and blocks."""
    step = (2, 3, 4, 5, 6)[level]
    small = np.ascontiguousarray(image[::step, ::step])
    big = cv2.resize(small, None, fx=step, fy=step, interpolation=cv2.INTER_NEAREST)
    return big[: image.shape[0], : image.shape[1]]


def pixelate(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Means over blocks of 2 to 10 px: binning shown at full size."""
    block = (2, 3, 4, 6, 10)[level]
    height, width = image.shape
    small_size = (math.ceil(width / block), math.ceil(height / block))
    small = cv2.resize(image, small_size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def sharpen(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Unsharp masking of strength 0.5 to 10: halos and amplified noise."""
    strength = (0.5, 1.2, 2.5, 5.0, 10.0)[level]
    return _clip(image + strength * (image - cv2.GaussianBlur(image, (0, 0), 1.5)))


def denoise_median(image: Image, level: int, rng: np.random.Generator) -> Image:
    """A noisy frame after a median filter of 3 to 11 px: flat patches with hard edges."""
    noisy = _to_uint8(_add_noise(image, 0.05, rng))
    return cv2.medianBlur(noisy, (3, 5, 7, 9, 11)[level]).astype(np.float32) / 255


def denoise_bilateral(image: Image, level: int, rng: np.random.Generator) -> Image:
    """A noisy frame after an edge-keeping filter of growing range."""
    noisy = _add_noise(image, 0.04, rng)
    return _clip(cv2.bilateralFilter(noisy, 7, (0.08, 0.14, 0.22, 0.35, 0.6)[level], 2.5))


def local_shuffle(image: Image, level: int, rng: np.random.Generator) -> Image:
    """4 to 64 squares of 16 px replaced by a neighbour at most 8 px away (non-eccentricity)."""
    out = image.copy()
    side, reach = 16, 8
    limits = (image.shape[0] - side - reach, image.shape[1] - side - reach)
    for _ in range((4, 8, 16, 32, 64)[level]):
        y, x = rng.integers(reach, limits[0]), rng.integers(reach, limits[1])
        dy, dx = rng.integers(-reach, reach + 1, 2)
        out[y : y + side, x : x + side] = image[y + dy : y + dy + side, x + dx : x + dx + side]
    return out


def jitter_warp(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Pixels displaced at random by 0.3 to 3 px: turbulence, an unstable scan."""
    spread = (0.3, 0.6, 1.0, 1.8, 3.0)[level]
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    y += spread * rng.standard_normal(image.shape, dtype=np.float32)
    x += spread * rng.standard_normal(image.shape, dtype=np.float32)
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def line_jitter(image: Image, level: int, rng: np.random.Generator) -> Image:
    """Rows displaced against each other by 0.4 to 6 px: vibration under a rolling shutter."""
    spread = (0.4, 0.8, 1.5, 3.0, 6.0)[level]
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    x += spread * rng.standard_normal((image.shape[0], 1), dtype=np.float32)
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


DISTORTIONS: Mapping[str, Distortion] = MappingProxyType(
    {
        "gaussian_blur": Distortion(gaussian_blur),
        "disk_blur": Distortion(disk_blur),
        "motion_blur": Distortion(motion_blur),
        "drift_blur": Distortion(drift_blur),
        "poisson_noise": Distortion(poisson_noise, after_camera=True),
        "read_noise": Distortion(read_noise, after_camera=True),
        "multiplicative_noise": Distortion(multiplicative_noise, after_camera=True),
        "impulse_noise": Distortion(impulse_noise, after_camera=True),
        "hot_pixels": Distortion(hot_pixels, after_camera=True),
        "haze": Distortion(haze),
        "background": Distortion(background),
        "dimming": Distortion(dimming),
        "brightening": Distortion(brightening, after_camera=True),
        "saturation": Distortion(saturation, after_camera=True),
        "black_clipping": Distortion(black_clipping, after_camera=True),
        "contrast_up": Distortion(contrast_up),
        "contrast_down": Distortion(contrast_down),
        "gamma_up": Distortion(gamma_up, after_camera=True),
        "gamma_down": Distortion(gamma_down, after_camera=True),
        "mean_shift": Distortion(mean_shift),
        "uneven_illumination": Distortion(uneven_illumination),
        "gradient": Distortion(gradient),
        "stripes": Distortion(stripes),
        "column_pattern": Distortion(column_pattern, after_camera=True),
        "pixel_gain": Distortion(pixel_gain),
        "dust": Distortion(dust),
        "rings": Distortion(rings),
        "ghost": Distortion(ghost),
        "jpeg": Distortion(jpeg, after_camera=True),
        "quantise": Distortion(quantise, after_camera=True),
        "resolution_bicubic": Distortion(resolution_bicubic, after_camera=True),
        "resolution_bilinear": Distortion(resolution_bilinear, after_camera=True),
        "resolution_nearest": Distortion(resolution_nearest, after_camera=True),
        "pixelate": Distortion(pixelate, after_camera=True),
        "sharpen": Distortion(sharpen, after_camera=True),
        "denoise_median": Distortion(denoise_median, after_camera=True),
        "denoise_bilateral": Distortion(denoise_bilateral, after_camera=True),
        "local_shuffle": Distortion(local_shuffle, after_camera=True),
        "jitter_warp": Distortion(jitter_warp),
        "line_jitter": Distortion(line_jitter),
    }
)


def _clip(image: NDArray[np.floating]) -> Image:
    return np.clip(image, 0, 1).astype(np.float32, copy=False)


def _stretch(image: NDArray[np.floating]) -> Image:
    low, high = float(image.min()), float(image.max())
    return _clip((image - low) / max(high - low, 1e-6))


def _to_uint8(image: Image) -> NDArray[np.uint8]:
    return np.round(image * 255).astype(np.uint8)


def _add_noise(image: Image, sigma: float | Image, rng: np.random.Generator) -> Image:
    return _clip(image + sigma * rng.standard_normal(image.shape, dtype=np.float32))


def _convolve(image: Image, kernel: NDArray[np.floating]) -> Image:
    kernel = (kernel / kernel.sum()).astype(np.float32)
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def _centred_grid(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    axis = np.arange(side) - side // 2
    return axis[:, None].astype(float), axis[None, :].astype(float)


def _track_kernel(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Time spent in each pixel along a track, shared bilinearly between neighbours."""
    half = math.ceil(max(np.abs(y).max(), np.abs(x).max()))
    kernel = np.zeros((2 * half + 3, 2 * half + 3))
    y, x = y + half + 1, x + half + 1
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - y0, x - x0
    np.add.at(kernel, (y0, x0), (1 - fy) * (1 - fx))
    np.add.at(kernel, (y0, x0 + 1), (1 - fy) * fx)
    np.add.at(kernel, (y0 + 1, x0), fy * (1 - fx))
    np.add.at(kernel, (y0 + 1, x0 + 1), fy * fx)
    return kernel


def _blobs(
    shape: tuple[int, ...], count: int, rng: np.random.Generator, *, ring: bool
) -> NDArray[np.float32]:
    """Sum of ``count`` discs (0..1) or decaying ring patterns (-1..1), each in its own square."""
    canvas = np.zeros(shape, np.float32)
    for _ in range(count):
        radius = rng.uniform(5, 18)
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        rows = slice(max(0, int(cy - 2 * radius)), int(cy + 2 * radius) + 1)
        columns = slice(max(0, int(cx - 2 * radius)), int(cx + 2 * radius) + 1)
        y, x = np.ogrid[: shape[0], : shape[1]]
        away = np.hypot(y[rows] - cy, x[:, columns] - cx) / radius
        canvas[rows, columns] += (
            np.cos(9 * away) * np.exp(-2 * away**2) if ring else np.exp(-(away**4))
        )
    return np.clip(canvas, -1, 1)


def _lose_resolution(image: Image, factor: float, interpolation: int) -> Image:
    height, width = image.shape
    small_size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = cv2.resize(image, small_size, interpolation=cv2.INTER_AREA)
    return _clip(cv2.resize(small, (width, height), interpolation=interpolation))
