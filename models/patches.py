"""Where in a frame the network looks: candidates inside the specimen, the sharpest of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from models.errors import ImageError
from models.frame import as_grey_float
from models.normalise import Highlights, Normalisation, percentile_normalisation
from models.roi import specimen_mask

UInt8 = NDArray[np.uint8]
Positions = NDArray[np.intp]
Scalar = TypeVar("Scalar", bound=np.generic)

_PROPOSALS = 10_000


@dataclass(frozen=True)
class Anchor:
    """Patch positions and normalisation, fixed for all frames of one run.

    A frame scored by itself is anchored to itself. Frames that share an anchor are compared on
    the same pixels, which takes the noise of choosing anew out of the focus curve.

    Attributes
    ----------
    shape : tuple of int
        Height and width of the frames it is for, px.
    positions : tuple of (y, x)
        Top left corners, px, in the frame after `pad_to`. Where there are more than the network
        takes, each frame chooses its own sharpest among them.
    normalisation : Normalisation or None
        None lets every frame be normalised by its own percentiles.
    """

    shape: tuple[int, int]
    positions: tuple[tuple[int, int], ...]
    normalisation: Normalisation | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values; see `from_dict`."""
        window = self.normalisation
        return {
            "shape": list(self.shape),
            "positions": [list(position) for position in self.positions],
            "lo": None if window is None else window.lo,
            "hi": None if window is None else window.hi,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Anchor:
        """Rebuild what `to_dict` gave, exactly.

        Raises
        ------
        ImageError
            For missing or impossible values; an anchor comes back from outside the process.
        """
        try:
            height, width = (_whole(side) for side in values["shape"])
            positions = tuple((_whole(y), _whole(x)) for y, x in values["positions"])
            lo, hi = values["lo"], values["hi"]
            window = None if lo is None and hi is None else Normalisation(float(lo), float(hi))
        except (KeyError, TypeError, ValueError) as error:
            message = f"not an anchor ({error!r}); send back the one you were given"
            raise ImageError(message) from error
        if not positions or min(height, width) < 1:
            raise ImageError("the anchor has no patches; send back the one you were given")
        if window is not None and not 0 < window.hi - window.lo < math.inf:
            raise ImageError(f"the anchor's lo = {lo} must be below hi = {hi}, both finite counts")
        return cls((height, width), positions, window)


class PatchChoice(Protocol):
    """Settings that decide which patches of a frame the network sees.

    `models.reiqa.ExtractorSettings` says what each means.
    """

    @property
    def patch_size(self) -> int: ...  # noqa: D102
    @property
    def patches(self) -> int: ...  # noqa: D102
    @property
    def top_patches(self) -> int: ...  # noqa: D102
    @property
    def min_roi_cover(self) -> float: ...  # noqa: D102
    @property
    def p_low(self) -> float: ...  # noqa: D102
    @property
    def p_high(self) -> float: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


def choose_anchor(image: NDArray[np.generic], choice: PatchChoice) -> Anchor:
    """Patches and normalisation chosen on this frame, to be used on it and on others.

    The same image always gives the same anchor.

    Raises
    ------
    ImageError
        When the image is not a grey frame of finite numbers.
    """
    counts = as_grey_float(image)
    normalisation = percentile_normalisation(image, p_low=choice.p_low, p_high=choice.p_high)
    frame8 = to_8bit(normalisation.apply(counts))
    candidates = sample_positions(
        pad_to(specimen_mask(frame8), choice.patch_size),
        size=choice.patch_size,
        count=choice.patches,
        min_cover=choice.min_roi_cover,
        seed=choice.seed,
    )
    patches8 = cut(pad_to(frame8, choice.patch_size), candidates, choice.patch_size)
    top = candidates[sharpest(patches8, choice.top_patches)]
    return Anchor(
        shape=(counts.shape[0], counts.shape[1]),
        positions=tuple((int(y), int(x)) for y, x in top),
        normalisation=normalisation,
    )


def anchored_patches(
    image: NDArray[np.generic],
    anchor: Anchor,
    choice: PatchChoice,
    highlights: Highlights = "clip",
) -> NDArray[np.float32]:
    """Normalised patches that the network sees; ``highlights`` as of `Normalisation.apply`.

    Returns
    -------
    ndarray of shape (n, patch_size, patch_size), float32
        0 is dark, 1 the upper percentile; n <= ``choice.top_patches``.

    Raises
    ------
    ImageError
        When the image is not a grey frame of finite numbers, or the anchor is for another size.
    """
    counts = as_grey_float(image)
    padded = pad_to(counts, choice.patch_size)
    _require_fit(anchor, counts.shape, padded.shape, choice)
    normalisation = anchor.normalisation or percentile_normalisation(
        image, p_low=choice.p_low, p_high=choice.p_high
    )
    counts_of_patches = cut(padded, np.array(anchor.positions), choice.patch_size)
    patches = normalisation.apply(counts_of_patches, highlights)
    if len(patches) <= choice.top_patches:
        return patches
    return patches[sharpest(to_8bit(patches), choice.top_patches)]


def pad_to(frame: NDArray[Scalar], size: int) -> NDArray[Scalar]:
    """Frame whose sides are at least ``size`` px, continued by reflection on both sides.

    Frames that are large enough are returned unchanged.
    """
    rows, columns = (max(0, size - side) for side in frame.shape)
    if rows == columns == 0:
        return frame
    return np.pad(
        frame, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)), "symmetric"
    )


def sample_positions(
    mask: UInt8, *, size: int, count: int, min_cover: float, seed: int
) -> Positions:
    """Patch positions inside the specimen.

    Positions are proposed uniformly over the frame; the first ``count`` distinct ones whose patch
    holds enough specimen are taken. The proposals depend on the shape of the frame and on the
    seed only, never on the mask: a mask that changes a little from frame to frame changes few
    positions, and the same image always gives the same ones.

    Where too few proposals hold enough specimen, the rest are those of a regular grid (steps of at
    most a quarter patch) with most specimen, best first; patches without any are left out.

    Parameters
    ----------
    mask : ndarray of shape (height, width), uint8
        1 in the specimen, 0 outside; at least ``size`` px on each side.
    size : int
        Side of a patch, px.
    count : int
        Positions wanted.
    min_cover : float
        Least share of specimen in a patch, 0..1.
    seed : int
        Of the proposals.

    Returns
    -------
    ndarray of shape (n, 2), int
        (y, x) of top left corners, distinct, n <= count. At least one if the mask is not empty.
    """
    area = cv2.integral(mask)
    proposals = _proposals(mask.shape, size, seed)
    inside = proposals[_cover(area, proposals, size) >= min_cover]
    chosen = _distinct(inside)[:count]
    if len(chosen) == count:
        return chosen
    grid = _grid(mask.shape, size)
    cover = _cover(area, grid, size)
    best_first = np.argsort(-cover, kind="stable")
    spare = grid[best_first[: np.count_nonzero(cover)]]
    return _distinct(np.concatenate([chosen, spare]))[:count]


def cut(frame: NDArray[Scalar], positions: Positions, size: int) -> NDArray[Scalar]:
    """Patches at the positions: shape (n, size, size), dtype of the frame."""
    return np.stack([frame[y : y + size, x : x + size] for y, x in positions])


def sharpest(patches8: UInt8, count: int) -> Positions:
    """Indices of the ``count`` patches with the largest variance of the Laplacian, best first.

    Parameters
    ----------
    patches8 : ndarray of shape (n, height, width), uint8
        Normalised patches, 0..255.
    count : int
        Indices wanted; all are returned where there are fewer.

    Notes
    -----
    Variance of the Laplacian: J. L. Pech-Pacheco et al., Proc. ICPR 15 (2000) vol. 3, 314-317.
    """
    variances = np.array([_laplacian_variance(patch) for patch in patches8])
    return np.argsort(-variances, kind="stable")[:count]


def to_8bit(normalised: NDArray[np.float32]) -> UInt8:
    """Float to 0..255, rounded down; compressed highlights are 255."""
    levels = normalised * np.float32(255)
    return np.minimum(levels, np.float32(255), out=levels).astype(np.uint8)


def _require_fit(
    anchor: Anchor, shape: tuple[int, ...], padded: tuple[int, ...], choice: PatchChoice
) -> None:
    if anchor.shape != shape:
        raise ImageError(
            f"the anchor is for frames of {anchor.shape} px (height, width), this one has "
            f"{shape}; start a new run without an anchor"
        )
    last_y, last_x = (side - choice.patch_size for side in padded)
    if len(anchor.positions) > choice.patches or any(
        y > last_y or x > last_x for y, x in anchor.positions
    ):
        raise ImageError(
            f"the anchor's patches do not fit a frame of {shape} px with at most "
            f"{choice.patches} patches of {choice.patch_size} px; it was made with other settings"
        )


def _laplacian_variance(patch8: UInt8) -> float:
    laplacian = cv2.Laplacian(patch8, cv2.CV_16S)
    # Five times as fast as cv2.meanStdDev; sums of whole numbers, so they are exact.
    mean = cv2.sumElems(laplacian)[0] / laplacian.size
    return cv2.norm(laplacian, cv2.NORM_L2SQR) / laplacian.size - mean**2


def _proposals(shape: tuple[int, ...], size: int, seed: int) -> Positions:
    free = np.array(shape) - size + 1
    return (np.random.default_rng(seed).random((_PROPOSALS, 2)) * free).astype(np.intp)


def _grid(shape: tuple[int, ...], size: int) -> Positions:
    rows, columns = (_steps(side - size, size // 4) for side in shape)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _steps(last: int, largest_step: int) -> NDArray[np.intp]:
    return np.linspace(0, last, math.ceil(last / largest_step) + 1).astype(np.intp)


def _cover(area: NDArray[np.int32], positions: Positions, size: int) -> NDArray[np.float64]:
    """Share of specimen in each patch, from the integral image of the mask."""
    y, x = positions.T
    inside = area[y + size, x + size] - area[y, x + size] - area[y + size, x] + area[y, x]
    return inside / size**2


def _distinct(positions: Positions) -> Positions:
    y, x = positions.T.astype(np.int64)
    _, first = np.unique((y << 32) | x, return_index=True)
    return positions[np.sort(first)]


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a whole number of pixels")
    return value
