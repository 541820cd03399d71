"""Overlapping crop pairs and the half-swap of Re-IQA, on copies.

In the original both crops are views of one tensor, so the in-place exchange corrupts their
overlap. Everything here returns memory of its own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Tiles = NDArray[np.float32]

OVERLAP = (0.10, 0.30)


def overlap_offset(side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Offset (dy, dx) between two crops that share 10 to 30 % of their area.

    The share and the direction are uniform; an offset that rounding pushed out of the bounds is
    drawn again.

    Parameters
    ----------
    side : int
        Side of both crops, pixels; at least 8.
    """
    while True:
        share = rng.uniform(*OVERLAP)
        first = rng.uniform(0, side * (1 - share))
        second = side - share * side**2 / (side - first)
        offset = np.array([round(first), round(second)])
        if not _within_bounds(side, offset):
            continue
        dy, dx = rng.permutation(offset) * rng.choice((-1, 1), 2)
        return int(dy), int(dx)


def overlapping_crops(tiles: Tiles, side: int, rng: np.random.Generator) -> tuple[Tiles, Tiles]:
    """Two copies cut from the same two places of every tile.

    Parameters
    ----------
    tiles : ndarray of shape (n, height, width)
        Versions of one image, at least 1.9 ``side`` each way so that no crop needs padding.
    side : int
        Side of the crops, pixels.

    Returns
    -------
    first, second : ndarrays of shape (n, side, side)
    """
    height, width = tiles.shape[1:]
    needed = math.ceil((2 - OVERLAP[0]) * side)
    if min(height, width) < needed:
        raise ValueError(
            f"tiles of {height} x {width} px are too small for crops of {side} px: "
            f"they need {needed} px each way"
        )
    dy, dx = overlap_offset(side, rng)
    y = int(rng.integers(max(0, -dy), height - side - max(0, dy) + 1))
    x = int(rng.integers(max(0, -dx), width - side - max(0, dx) + 1))
    first = tiles[:, y : y + side, x : x + side].copy()
    second = tiles[:, y + dy : y + dy + side, x + dx : x + dx + side].copy()
    return first, second


def half_swap(first: Tiles, second: Tiles, rows: slice) -> tuple[Tiles, Tiles]:
    """Exchange the two crops in ``rows``.

    Afterwards a query meets, among its negatives, keys with its very own pixels under another
    distortion: only the distortion tells them apart.
    """
    swapped_first, swapped_second = first.copy(), second.copy()
    swapped_first[rows], swapped_second[rows] = second[rows], first[rows]
    return swapped_first, swapped_second


def _within_bounds(side: int, offset: NDArray[np.int_]) -> bool:
    share = (side - offset[0]) * (side - offset[1]) / side**2
    return bool(OVERLAP[0] <= share <= OVERLAP[1])
