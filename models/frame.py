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
# Full scales of 8- to 16-bit converters, in the low bits of a number or in the high ones of 16.
_FULL_SCALES = frozenset(
    {float(2**bits - 1) for bits in range(8, 17)}
    | {float((2**bits - 1) << (16 - bits)) for bits in range(8, 17)}
)
_QUANTISATION = 1 / math.sqrt(12)
_SMALLEST_LEVEL = 8
_SAMPLES = 1 << 14


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
    full = _seen_full_scale(counts, _full_scale(image.dtype, bit_depth))
    fraction = cv2.countNonZero((counts >= full).view(np.uint8)) / counts.size
    return FrameStats(
        height=image.shape[0],
        width=image.shape[1],
        offset=offset,
        noise=noise,
        signal=signal,
        snr=signal / least_noise if least_noise > 0 else 0.0,
        saturated_fraction=fraction,
        dark=not _has_structure(counts, despeckled, least_noise),
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
    """Short hash of shape, dtype and pixels (first 16 hexadecimal digits of SHA-256).

    SHA-256, because processors have instructions for it: 2 ms for 1024 x 1024 px of 16 bit, where
    BLAKE2b takes 5.
    """
    digest = hashlib.sha256(f"{image.shape}{image.dtype.str}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:16]


def noise_sigma(counts: Float32) -> float:
    """Standard deviation of the pixel noise, counts; 0 for a noiseless frame.

    The second difference in both directions of J. Immerkaer, "Fast noise variance estimation",
    Computer Vision and Image Understanding 64 (1996) 300-302, is blind to constant and sloping
    areas; its mask has norm 6. Only the smaller half of the differences is averaged, so that
    edges do not count as noise, and the result, unlike a median, is not stepped by integer counts.
    """
    if min(counts.shape) < 3:
        return 0.0
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    magnitude = np.abs(_sample(cv2.filter2D(counts, cv2.CV_32F, mask)[1:-1]))
    half = (magnitude.size + 1) // 2
    smaller = np.partition(magnitude, half - 1)[:half]
    # 0.32465 is the mean of the smaller half of |x| for a normal x of standard deviation 1.
    return float(smaller.mean(dtype=np.float64)) / 0.32465 / 6


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
    step = max(1, values.size // _SAMPLES)
    # A stride that shares no factor with the width meets every column.
    while math.gcd(step, values.shape[1]) > 1:
        step += 1
    return values.ravel()[::step]


def _pyramid(counts: Float32) -> Iterator[Float32]:
    """Yield the frame, then 2 x 2 block means of it, again and again."""
    level = counts
    while min(level.shape) >= _SMALLEST_LEVEL:
        yield level
        height, width = level.shape[0] // 2, level.shape[1] // 2
        even = level[: 2 * height, : 2 * width]
        level = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)


def _has_structure(counts: Float32, despeckled: Float32, noise: float) -> bool:
    """Whether the pixels, or their block means at any scale, depend on their neighbours.

    The tests hold for independent pixels of any distribution, with noise of whole rows and
    columns (sCMOS, CCD) on top: neither is structure, nor are scattered hot pixels.
    """
    # Far beyond what survives a median there are only hot pixels. The same bounds for every pixel,
    # so independent pixels stay independent; wide ones, so few pixels tie at them.
    lowest, highest = float(despeckled.min()), float(despeckled.max())
    margin = (highest - lowest) / 2
    tamed = np.clip(counts, lowest - margin, highest + margin)
    least_sigma = 0.05 * noise
    for level in _pyramid(tamed):
        # In place: the frame is our copy, and the coarser levels want no bands either.
        deviation = level
        deviation -= np.float32(cv2.mean(level)[0])
        rows, columns = _bands(deviation, axis=1), _bands(deviation, axis=0)
        if _drifts(rows, least_sigma) or _drifts(columns, least_sigma):
            return True
        if rows.any() or columns.any():
            deviation -= rows + columns
        if _clustered(deviation) or _correlated(deviation, least_sigma):
            return True
    return False


def _bands(deviation: Float32, *, axis: int) -> Float32:
    """Means along `axis`, broadcastable against the frame.

    All 0 where they vary no more than means of independent pixels do: there, subtracting them
    would only break ties of integer counts by row and so make neighbours alike.
    """
    means = cv2.reduce(deviation, axis, cv2.REDUCE_AVG)
    independent = _dot(deviation, deviation) / deviation.size / deviation.shape[axis]
    return means if np.mean(means**2) > 2 * independent else np.zeros_like(means)


def _clustered(deviation: Float32) -> bool:
    """Whether the brightest or the darkest pixels lie together.

    5 of the 9 pixels of a window are among the brightest share p of a frame of independent pixels
    with probability below 126 p^5; p is such that this happens in one frame of 100 000.
    """
    share = (1e-5 / (126 * deviation.size)) ** 0.2
    low, high = np.quantile(_sample(deviation), (share, 1 - share))
    return _most_of_a_window(deviation > high) or _most_of_a_window(deviation < low)


def _most_of_a_window(mask: NDArray[np.bool_]) -> bool:
    return bool(cv2.medianBlur(mask.view(np.uint8), 3)[1:-1, 1:-1].any())


def _correlated(deviation: Float32, least_sigma: float) -> bool:
    """Whether diagonal neighbours are alike, with a common part of more than `least_sigma`.

    Over n independent pixels each of the two correlations has mean 0 and variance 1 / n. The few
    pairs that wrap from the end of one row to the start of another are independent as well.
    """
    flat, width = deviation.ravel(), deviation.shape[1]
    falling = _dot(flat[width + 1 :], flat[: -width - 1])
    rising = _dot(flat[width - 1 :], flat[: 1 - width])
    bound = 5.5 * _dot(flat, flat) / math.sqrt(2 * flat.size)
    return (falling + rising) / 2 > max(bound, flat.size * least_sigma**2)


def _drifts(bands: Float32, least_sigma: float) -> bool:
    """Whether bands up to 7 apart are alike or opposite: stripes or shading, not noise of rows."""
    line = bands.ravel()
    # A few bright columns of a worn sensor are no pattern.
    usual = 4 * np.median(np.abs(line))
    line = np.clip(line, -usual, usual)
    bound = max(5.5 * _dot(line, line) / math.sqrt(line.size), line.size * least_sigma**2)
    return any(abs(_dot(line[lag:], line[:-lag])) > bound for lag in range(1, 8))


def _dot(a: Float32, b: Float32) -> float:
    return float(np.vdot(a, b))


def _seen_full_scale(counts: Float32, told: float) -> float:
    """The camera's maximum as told, or a lower one where the frame's own pixels pile up.

    Adapters say 16 bit of cameras that stop at 4095. A hundredth of all pixels at the highest
    count of the frame, and that a full scale of some converter, is no coincidence.
    """
    top = float(counts.max())
    if math.isinf(told) or top >= told or top not in _FULL_SCALES:
        return told
    share = cv2.countNonZero((counts == top).view(np.uint8)) / counts.size
    return top if share > 0.01 else told


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
