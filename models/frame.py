"""What one frame looks like before anybody scores it: offset, noise, structure, saturation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.errors import ImageError

Float32 = NDArray[np.float32]

_LARGEST_COUNT = 1e12
_QUANTISATION = 1 / math.sqrt(12)
_SMALLEST_LEVEL = 8
_SAMPLES = 1 << 16


@dataclass(frozen=True)
class FrameStats:
    """What can be said of a frame without knowing what is in it. Counts are the camera's.

    Attributes
    ----------
    height, width : int
        Size in px.
    offset : float
        Level of the darkest extended areas, counts: camera offset plus whatever background the
        specimen has everywhere.
    noise : float
        One standard deviation of the pixel noise, counts; structure does not count as noise.
    signal : float
        Height of the brightest structure above ``offset``, counts; single hot pixels do not count.
    snr : float
        ``signal / noise``, with the quantisation of integer counts as the least noise.
    saturated_fraction : float
        Share of all pixels at the camera's maximum, 0..1.
    dark : bool
        Nothing in the frame stands above its offset and noise. Independent of the bit depth.
    saturated : bool
        More than 1 % of the pixels, or of the pixels of the structure, are at the maximum.
    fingerprint : str
        Equal for frames with identical shape, dtype and pixels.
    """

    height: int
    width: int
    offset: float
    noise: float
    signal: float
    snr: float
    saturated_fraction: float
    dark: bool
    saturated: bool
    fingerprint: str


def inspect(image: NDArray[np.generic], *, bit_depth: int | None = None) -> FrameStats:
    """Measure offset, noise and structure of one grey frame.

    Parameters
    ----------
    image : ndarray of shape (height, width), any integer or float type
        Raw camera counts, not scaled.
    bit_depth : int, optional
        Bits the camera really uses (12 in a uint16 frame). Decides ``saturated`` and nothing
        else. Without it the maximum is that of an integer dtype; float frames have none.

    Raises
    ------
    ImageError
        For an array that is not a grey frame of finite numbers, or a bit depth outside 1..64.
    """
    counts = as_grey_float(image)
    quantisation = _QUANTISATION if np.issubdtype(image.dtype, np.integer) else 0.0
    noise = noise_sigma(counts)
    offset = background(counts)
    despeckled = cv2.medianBlur(counts, 3)
    signal = max(float(despeckled.max()) - offset, 0.0)
    least_noise = max(noise, quantisation)
    full = _full_scale(image.dtype, bit_depth)
    fraction = float(np.mean(counts >= full)) if math.isfinite(full) else 0.0
    return FrameStats(
        height=image.shape[0],
        width=image.shape[1],
        offset=offset,
        noise=noise,
        signal=signal,
        snr=signal / least_noise if least_noise > 0 else 0.0,
        saturated_fraction=fraction,
        dark=not _has_structure(counts, least_noise),
        saturated=fraction > 0.01
        or (fraction > 0 and _clipped_share(despeckled, full, offset, signal, noise) > 0.01),
        fingerprint=fingerprint(image),
    )


def as_grey_float(image: NDArray[np.generic]) -> Float32:
    """Return the frame as float32 counts, or say why it cannot be scored.

    Raises
    ------
    ImageError
        When the array is not 2-D, is empty, is not numeric, or holds NaN, infinities or numbers
        no camera counts to (beyond 1e12).
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(f"expected a NumPy array of shape (height, width), got {type(image)}")
    if image.ndim == 3:
        raise ImageError(
            f"expected one grey frame, got shape {image.shape}; pick one channel or plane, or "
            "convert colour to grey before scoring"
        )
    if image.ndim != 2 or image.size == 0:
        raise ImageError(f"expected a non-empty frame (height, width), got shape {image.shape}")
    if image.dtype.kind not in "uif":
        raise ImageError(f"expected integer or float counts, got dtype {image.dtype}")
    if image.dtype.kind == "f" and not _within_range(image):
        raise ImageError(
            f"frame of dtype {image.dtype} holds NaN, infinities or counts beyond "
            f"{_LARGEST_COUNT:.0e}; correct the camera's or the file's conversion"
        )
    return np.ascontiguousarray(image, dtype=np.float32)


def _within_range(image: NDArray[np.generic]) -> bool:
    # NaN fails both comparisons, so no separate test is needed.
    return bool(image.min() >= -_LARGEST_COUNT) and bool(image.max() <= _LARGEST_COUNT)


def fingerprint(image: NDArray[np.generic]) -> str:
    """Short hash of shape, dtype and pixels (BLAKE2b, 16 hexadecimal digits)."""
    digest = hashlib.blake2b(f"{image.shape}{image.dtype.str}".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def noise_sigma(counts: Float32) -> float:
    """Standard deviation of the pixel noise, counts; 0 for a noiseless frame.

    The second difference in both directions of J. Immerkaer, "Fast noise variance estimation",
    Computer Vision and Image Understanding 64 (1996) 300-302, is blind to constant and sloping
    areas. Its mean is replaced by the median, so that edges do not count as noise either.
    """
    if min(counts.shape) < 3:
        return 0.0
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    curvature = cv2.filter2D(counts, cv2.CV_32F, mask)[1:-1, 1:-1]
    return float(np.median(np.abs(_sample(curvature)))) / 0.6745 / 6


def background(counts: Float32) -> float:
    """Level of the darkest extended areas, counts: 2nd percentile of the means of 8 x 8 blocks.

    Blocks rather than pixels, so that read noise does not push the level below the truth.
    """
    blocks = counts
    for level in _pyramid(counts):
        blocks = level
        if blocks.shape[0] * 8 <= counts.shape[0]:
            break
    return float(np.percentile(blocks, 2))


def _sample(values: Float32) -> Float32:
    step = max(1, math.isqrt(values.size // _SAMPLES))
    return values[::step, ::step]


def _pyramid(counts: Float32) -> Iterator[Float32]:
    """Yield the frame, then 2 x 2 block means of it, again and again."""
    level = counts
    while min(level.shape) >= _SMALLEST_LEVEL:
        yield level
        height, width = level.shape[0] // 2, level.shape[1] // 2
        even = level[: 2 * height, : 2 * width]
        level = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)


def _has_structure(counts: Float32, noise: float) -> bool:
    return any(_clustered(level) or _correlated(level, noise) for level in _pyramid(counts))


def _clustered(level: Float32) -> bool:
    """Whether the brightest or the darkest pixels lie together.

    If pixels are independent, whatever their distribution, 5 of the 9 pixels of a 3 x 3 window
    are among the brightest share p of the frame with probability below 126 p^5. p is chosen so
    that this happens in one frame of 100 000. A hot pixel or a bright column is never 5 of 9.
    """
    share = (1e-5 / (126 * level.size)) ** 0.2
    low, high = np.quantile(_sample(level), (share, 1 - share))
    return any(
        bool(
            (
                cv2.boxFilter(
                    mask.view(np.uint8), -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT
                )
                >= 5
            ).any()
        )
        for mask in (level > high, level < low)
    )


def _correlated(level: Float32, noise: float) -> bool:
    """Whether diagonal neighbours are alike.

    Over n independent pixels the correlation has mean 0 and standard deviation 1 / sqrt(n).
    Diagonals, because the noise of whole rows or columns (sCMOS, CCD) is not structure.
    """
    low, high = np.quantile(_sample(level), (0.002, 0.998))
    clipped = np.clip(level, low, high)
    clipped -= clipped.mean()
    falling = cv2.mean(cv2.multiply(clipped[1:, 1:], clipped[:-1, :-1]))[0]
    rising = cv2.mean(cv2.multiply(clipped[1:, :-1], clipped[:-1, 1:]))[0]
    covariance = (falling + rising) / 2
    variance = float(np.mean(np.square(clipped)))
    significant = covariance * math.sqrt(2 * level.size) > 5.5 * variance
    return significant and covariance > (0.05 * noise) ** 2


def _full_scale(dtype: np.dtype[np.generic], bit_depth: int | None) -> float:
    if bit_depth is not None:
        if not 1 <= bit_depth <= 64:
            raise ImageError(f"bit_depth = {bit_depth} must be between 1 and 64")
        return float((1 << bit_depth) - 1)
    return (
        float(2 ** (8 * dtype.itemsize - (dtype.kind == "i")) - 1)
        if dtype.kind in "ui"
        else math.inf
    )


def _clipped_share(
    despeckled: Float32, full: float, offset: float, signal: float, noise: float
) -> float:
    structure = despeckled > offset + max(5 * noise, 0.1 * signal)
    return float(np.mean(despeckled[structure] >= full)) if structure.any() else 0.0
