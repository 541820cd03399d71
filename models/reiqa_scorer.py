"""Re-IQA features and a head as a scorer, watched by a classical measure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.head import Head
from models.patches import Anchor
from models.reiqa import ReIQA
from models.scorer import FrameScore, Scorer
from models.side_by_side import side_by_side


@dataclass(frozen=True)
class ReIQAScorer:
    """A `models.scorer.Scorer`.

    Parameters
    ----------
    extractor : ReIQA
        Frame to features.
    fitted : Head
        Features to score; must belong to the extractor, as `models.head.load_head` ensures.
    referee : Scorer
        Classical measure of the same frames; also says whether they are dark or saturated.
    """

    extractor: ReIQA
    fitted: Head
    referee: Scorer

    @property
    def name(self) -> str:
        """``reiqa-compact`` or ``reiqa-published``."""
        return f"reiqa-{self.extractor.settings.layout}"

    @property
    def head(self) -> str:
        """Name and short hash of the head."""
        return self.fitted.manifest.title

    @property
    def absolute(self) -> bool:
        """Whether 1 means in focus on every specimen and objective."""
        return self.fitted.manifest.label.absolute

    @property
    def watched_by(self) -> str:
        """Name of the referee."""
        return self.referee.name

    def anchor(self, image: NDArray[np.generic]) -> Anchor:
        """Patches and normalisation of this frame, for all frames of a run."""
        return self.extractor.anchor(image)

    def score(
        self,
        image: NDArray[np.generic],
        *,
        bit_depth: int | None = None,
        sampling: float | None = None,
        anchor: Anchor | None = None,
    ) -> FrameScore:
        """Score one grey frame; see `models.scorer.Scorer.score`.

        Parameters
        ----------
        image : ndarray of shape (height, width), integer or float
            Raw camera counts.
        bit_depth : int, optional
            Bits the camera really uses.
        sampling : float, optional
            Camera pixel as a multiple of wavelength / NA.
        anchor : Anchor, optional
            From a frame of the same run and size; by default the frame is anchored to itself.
        """
        features, watched = side_by_side(
            lambda: self.extractor.features(image, anchor),
            lambda: self.referee.score(image, bit_depth=bit_depth, sampling=sampling),
        )
        predicted = self.fitted.predict(features, sampling)
        return FrameScore(
            score=predicted.score,
            referee=watched.score,
            defocus_dof=predicted.defocus_dof,
            defocus_sd_dof=predicted.defocus_sd_dof,
            coarse_contrast=watched.coarse_contrast,
            dark=watched.dark,
            saturated=watched.saturated,
            out_of_distribution=predicted.out_of_distribution,
            fingerprint=watched.fingerprint,
        )
