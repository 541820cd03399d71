"""Where in a frame the network looks: inside the specimen, at the sharpest patches apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from models.errors import ImageError, require
from models.frame import as_grey_float
from models.normalise import Highlights, Normalisation, percentile_normalisation
from models.roi import specimen_mask

UInt8 = NDArray[np.uint8]
Positions = NDArray[np.intp]
Scalar = TypeVar("Scalar", bound=np.generic)

_LARGEST_COUNT = 1e30
_PROPOSALS = 10_000
# Steps of evenly spread proposals: powers of the plastic number (M. Roberts, "The unreasonable
# effectiveness of quasirandom sequences", 2018). No library's sequence: two versions may differ.
_STEPS = np.array([0.7548776662466927, 0.5698402909980532])
# Up to so many patches a side, a few dozen at any place leave nothing out.
_COVERED_PATCHES = 2


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
        Top left corners, px, in the frame after `without_border` and `pad_to`. Where there are
        more than the network takes, each frame chooses its own sharpest among them.
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
        if window is not None and not _usable(window):
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
    def border_px(self) -> int: ...  # noqa: D102
    @property
    def min_roi_cover(self) -> float: ...  # noqa: D102
    @property
    def p_low(self) -> float: ...  # noqa: D102
    @property
    def p_high(self) -> float: ...  # noqa: D102
    @property
    def sharpness_sigma_px(self) -> float: ...  # noqa: D102
    @property
    def most_overlap(self) -> float: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


def require_possible(choice: PatchChoice) -> None:
    """Refuse impossible values of what `PatchChoice` names, but for numbers of patches.

    Raises
    ------
    ValueError
        Naming the first that is impossible.
    """
    require(
        0 < choice.sharpness_sigma_px <= choice.patch_size / 4,
        f"sharpness_sigma_px = {choice.sharpness_sigma_px} must be positive and at most a "
        "quarter of the patch",
    )
    require(0 <= choice.most_overlap <= 1, f"most_overlap = {choice.most_overlap}: 0..1")
    require(0 <= choice.min_roi_cover <= 1, f"min_roi_cover = {choice.min_roi_cover}: 0..1")
    require(choice.border_px >= 0, f"border_px = {choice.border_px} must not be negative")
    require(
        0 <= choice.p_low < choice.p_high <= 100,
        f"p_low = {choice.p_low} must be below p_high = {choice.p_high}, both within 0..100",
    )


def choose_anchor(image: NDArray[np.generic], choice: PatchChoice) -> Anchor:
    """Patches and normalisation chosen on this frame, to be used on it and on others.

    On one machine the same image always gives the same anchor.

    Raises
    ------
    ImageError
        When the image is not a grey frame of finite numbers.
    """
    counts = as_grey_float(image)
    normalisation = _normalisation(image, choice)
    frame = _for_ranking(without_border(counts, choice), normalisation)
    candidates = _candidates(pad_to(specimen_mask(to_8bit(frame)), choice.patch_size), choice)
    best_first = _sharpest_first(pad_to(frame, choice.patch_size), candidates, choice)
    top = apart(
        best_first,
        size=choice.patch_size,
        count=choice.top_patches,
        most_overlap=choice.most_overlap,
    )
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
    padded = pad_to(without_border(counts, choice), choice.patch_size)
    _require_fit(anchor, counts.shape, padded.shape, choice)
    normalisation = anchor.normalisation or _normalisation(image, choice)
    positions = np.array(anchor.positions)
    if len(positions) > choice.top_patches:
        best_first = _sharpest_first(_for_ranking(padded, normalisation), positions, choice)
        positions = best_first[: choice.top_patches]
    return normalisation.apply(cut(padded, positions, choice.patch_size), highlights)


def without_border(frame: NDArray[Scalar], choice: PatchChoice) -> NDArray[Scalar]:
    """Frame without what cameras and programs write on its border, where mirrors would repeat it.

    A frame lower than a patch loses ``choice.border_px`` rows at the top and as many at the bottom,
    one narrower than a patch loses columns left and right; of a tiny frame something is left.
    Such sides are continued by reflection (`pad_to`), which would make a sharp line in the middle
    of a patch of a border, and in a small frame a border weighs in the percentiles. Larger frames
    are left as they are.
    """
    height, width = (_kept(side, choice) for side in frame.shape)
    return frame[height, width]


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

    Positions are proposed evenly over the frame; the first ``count`` distinct ones whose patch
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
    inside = proposals[_patch_means(area, proposals, size) >= min_cover]
    chosen = _distinct(inside)[:count]
    if len(chosen) == count:
        return chosen
    grid = _grid(mask.shape, size, size // 4)
    cover = _patch_means(area, grid, size)  # share of specimen
    best_first = np.argsort(-cover, kind="stable")
    spare = grid[best_first[: np.count_nonzero(cover)]]
    return _distinct(np.concatenate([chosen, spare]))[:count]


def covering_positions(mask: UInt8, *, size: int, min_cover: float) -> Positions:
    """Positions that leave nothing of a large specimen out: a grid of half-patch steps.

    A point of a large frame is in none of a few dozen patches more often than not, and where a
    single bead is all there is, it has to be in one.

    Parameters
    ----------
    mask, size, min_cover
        As of `sample_positions`. Half of the most that a patch holds is enough where that is less
        than ``min_cover``, as with small things scattered over the frame.

    Returns
    -------
    ndarray of shape (n, 2), int
        (y, x) of top left corners, distinct; none in frames of at most two patches a side, which
        the positions of `sample_positions` cover.
    """
    if max(mask.shape) <= _COVERED_PATCHES * size:
        return np.empty((0, 2), np.intp)
    grid = _grid(mask.shape, size, math.ceil(size / 2))
    cover = _patch_means(cv2.integral(mask), grid, size)
    return grid[(cover > 0) & (cover >= min(min_cover, cover.max() / 2))]


def cut(frame: NDArray[Scalar], positions: Positions, size: int) -> NDArray[Scalar]:
    """Patches at the positions: shape (n, size, size), dtype of the frame."""
    return np.stack([frame[y : y + size, x : x + size] for y, x in positions])


def sharpest_first(
    frame: NDArray[np.float32], positions: Positions, *, size: int, sigma_px: float
) -> Positions:
    """The positions by the variance of the Laplacian in their patches, largest first.

    Parameters
    ----------
    frame : ndarray of shape (height, width), float32
        A normalised frame, 0 and up.
    positions : ndarray of shape (n, 2), int
        (y, x) of top left corners.
    size : int
        Side of a patch, px.
    sigma_px : float
        Of the Gaussian before the Laplacian, which takes away the noise of single pixels; the
        frame is halved first.

    Notes
    -----
    Variance of the Laplacian: J. L. Pech-Pacheco et al., Proc. ICPR 15 (2000) vol. 3, 314-317;
    of the Gaussian's: D. Marr and E. Hildreth, Proc. R. Soc. Lond. B 207 (1980) 187-217.
    """
    # By two exactly: any other ratio would smooth the middle of the frame more than its borders.
    height, width = (side // 2 for side in frame.shape)
    even = frame[: 2 * height, : 2 * width]
    half = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
    laplacian = cv2.Laplacian(cv2.GaussianBlur(half, (0, 0), sigma_px / 2), cv2.CV_32F)
    total, squares = cv2.integral2(laplacian, sdepth=cv2.CV_64F, sqdepth=cv2.CV_64F)
    mean, mean_square = (_patch_means(area, positions // 2, size // 2) for area in (total, squares))
    variances = mean_square - mean**2
    return positions[np.argsort(-variances, kind="stable")]


def apart(best_first: Positions, *, size: int, count: int, most_overlap: float) -> Positions:
    """The best positions that keep apart from one another.

    Of many candidates the best lie around one spot, and a thick specimen would be in focus
    wherever its sharpest spot is.

    Parameters
    ----------
    best_first : ndarray of shape (n, 2), int
        (y, x) of top left corners.
    size : int
        Side of a patch, px.
    count : int
        Positions wanted. Where too few keep apart, the best of the others are the rest.
    most_overlap : float
        Share of a patch that it may have in common with a better one, 0..1.

    Returns
    -------
    ndarray of shape (min(count, n), 2), int
    """
    chosen, crowded = best_first[:1], best_first[:0]
    for position in best_first[1:]:
        if len(chosen) == count:
            return chosen
        shared = np.clip(size - np.abs(chosen - position), 0, None).prod(axis=1) / size**2
        if (shared <= most_overlap).all():
            chosen = np.concatenate([chosen, [position]])
        elif len(crowded) < count:
            crowded = np.concatenate([crowded, [position]])
    return np.concatenate([chosen, crowded])[:count]


def to_8bit(normalised: NDArray[np.float32]) -> UInt8:
    """Float to 0..255, rounded down; compressed highlights are 255."""
    levels = normalised * np.float32(255)
    return np.minimum(levels, np.float32(255), out=levels).astype(np.uint8)


def _kept(side: int, choice: PatchChoice) -> slice:
    border = min(choice.border_px, (side - 1) // 2) if side < choice.patch_size else 0
    return slice(border, side - border)


def _normalisation(image: NDArray[np.generic], choice: PatchChoice) -> Normalisation:
    inside = without_border(image, choice)
    return percentile_normalisation(inside, p_low=choice.p_low, p_high=choice.p_high)


def _usable(window: Normalisation) -> bool:
    """Whether float32, in which frames are normalised, holds it."""
    width = window.hi - window.lo
    return abs(window.lo) <= _LARGEST_COUNT and 1 / _LARGEST_COUNT <= width <= _LARGEST_COUNT


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


def _candidates(mask: UInt8, choice: PatchChoice) -> Positions:
    size, min_cover = choice.patch_size, choice.min_roi_cover
    covering = covering_positions(mask, size=size, min_cover=min_cover)
    sampled = sample_positions(
        mask, size=size, count=choice.patches, min_cover=min_cover, seed=choice.seed
    )
    return _distinct(np.concatenate([covering, sampled]))


def _for_ranking(counts: NDArray[np.float32], normalisation: Normalisation) -> NDArray[np.float32]:
    # With highlights whether the network sees them or not: where beads cover less of a frame than
    # the upper percentile leaves out, it lies in the noise, and of clipped counts noise decides.
    return normalisation.apply(counts, "compress")


def _sharpest_first(
    frame: NDArray[np.float32], positions: Positions, choice: PatchChoice
) -> Positions:
    return sharpest_first(
        frame, positions, size=choice.patch_size, sigma_px=choice.sharpness_sigma_px
    )


def _proposals(shape: tuple[int, ...], size: int, seed: int) -> Positions:
    """Top left corners; the centres are evenly spread, patches at the border are moved inside."""
    start = np.random.default_rng(seed).random(2)
    centres = (start + np.arange(_PROPOSALS)[:, None] * _STEPS) % 1 * shape
    return np.clip(np.rint(centres) - size // 2, 0, np.array(shape) - size).astype(np.intp)


def _grid(shape: tuple[int, ...], size: int, step: int) -> Positions:
    """Steps alike in frames of any size, so that patches overlap alike; the last ends the frame."""
    rows, columns = (
        np.append(np.arange(0, side - size, step), side - size).astype(np.intp) for side in shape
    )
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _patch_means(
    integral: NDArray[np.generic], positions: Positions, size: int
) -> NDArray[np.float64]:
    """Mean over each patch, from the integral image."""
    y, x = positions.T
    inside = (
        integral[y + size, x + size]
        - integral[y, x + size]
        - integral[y + size, x]
        + integral[y, x]
    )
    return inside / size**2


def _distinct(positions: Positions) -> Positions:
    y, x = positions.T.astype(np.int64)
    _, first = np.unique((y << 32) | x, return_index=True)
    return positions[np.sort(first)]


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a whole number of pixels")
    return value
