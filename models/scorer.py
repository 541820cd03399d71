"""What every scorer offers: an image in, a `FrameScore` out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FrameScore:
    """What a scorer says of one frame.

    Attributes
    ----------
    score : float
        Focus score, higher is sharper; finite.
    referee : float or None
        A classical measure of the same frame, when the scorer is watched by one.
    defocus_dof : float or None
        Estimated distance to the in-focus plane in depths of field, without sign. From ten on it
        means that and more.
    defocus_sd_dof : float or None
        How far off it may be, root mean square, where the head tells.
    coarse_contrast : float or None
        How much the smoothed frame varies, when a referee watches: not sharpness, but seen from
        farther away; see `models.classical.coarse_contrast`.
    dark, saturated, out_of_distribution : bool
        Reasons to distrust the score; see `models.frame` and `models.head`.
    fingerprint : str
        Equal for frames with identical pixels.
    """

    score: float
    referee: float | None = None
    defocus_dof: float | None = None
    defocus_sd_dof: float | None = None
    coarse_contrast: float | None = None
    dark: bool = False
    saturated: bool = False
    out_of_distribution: bool = False
    fingerprint: str = ""


class Scorer(Protocol):
    """Anything that turns an image into a focus score."""

    @property
    def name(self) -> str:
        """Name on the wire, e.g. ``reiqa-compact`` or ``tenengrad``."""

    @property
    def head(self) -> str | None:
        """Name and short hash of the fitted head, None for measures without one."""

    @property
    def absolute(self) -> bool:
        """Whether scores mean the same on every specimen: 1 in focus, 0 hopeless."""

    @property
    def watched_by(self) -> str | None:
        """Name of the measure behind `FrameScore.referee`, None without one."""

    def score(
        self,
        image: NDArray[np.generic],
        *,
        bit_depth: int | None = None,
        sampling: float | None = None,
    ) -> FrameScore:
        """Score one grey frame.

        Parameters
        ----------
        image : ndarray of shape (height, width), uint8, uint16 or float32
            Raw camera counts, not scaled.
        bit_depth : int, optional
            Bits the camera really uses (12 in a uint16 frame), to know its maximum.
        sampling : float, optional
            Camera pixel in the specimen as a multiple of wavelength / NA; 0.25 is Nyquist's rate.
            A frame alone does not tell how many depths of field its blur amounts to: d of them
            blur by some d (1 + 1 / sampling) pixels. Scorers without an absolute scale ignore it.

        Raises
        ------
        ImageError
            For an empty, non-2-D or non-finite array.
        """
