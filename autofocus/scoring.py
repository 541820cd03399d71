"""Score frames that were taken elsewhere: in a file, or sent by a client."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from autofocus.search.alike import may_be_as_near
from models.errors import ImageError
from models.patches import Anchor
from models.scorer import FrameScore, Scorer

# How much lower the score of a plane may be that is as sharp as the best, for scorers that do not
# tell how sure they are: twice the scatter of readings about a focus curve, and what half a depth
# of field beside focus takes away.
INDISTINCT = 0.05


@runtime_checkable
class AnchoringScorer(Scorer, Protocol):
    """A scorer that can look at the same pixels in every frame of a run."""

    def anchor(self, image: NDArray[np.generic]) -> Anchor:
        """Patches and normalisation chosen on this frame."""

    def score(
        self,
        image: NDArray[np.generic],
        *,
        bit_depth: int | None = None,
        sampling: float | None = None,
        anchor: Anchor | None = None,
    ) -> FrameScore:
        """Score one frame; without an anchor it is anchored to itself."""


@dataclass(frozen=True)
class ScoredPlanes:
    """Some planes and what a scorer says of them.

    Attributes
    ----------
    scores : tuple of FrameScore
        One a plane, in the order given; at least one.
    anchors : tuple of Anchor or None
        What each was scored with; None for scorers that take none.
    best : int
        Index of the sharpest plane; see `sharpest`.
    """

    scores: tuple[FrameScore, ...]
    anchors: tuple[Anchor | None, ...]
    best: int

    @property
    def anchor(self) -> Anchor | None:
        """For further frames of the same run: the patches of the best plane, as it was scored.

        Its normalisation is left out: by the counts of a sharp plane, blurred ones look flat and
        unlike anything the head has seen (decision 15).
        """
        anchor = self.anchors[self.best]
        return None if anchor is None else replace(anchor, normalisation=None)


def score_planes(
    scorer: Scorer,
    planes: Iterable[NDArray[np.generic]],
    *,
    bit_depth: int | None = None,
    sampling: float | None = None,
    anchor: Anchor | None = None,
    in_order: bool = True,
) -> ScoredPlanes:
    """Score planes one after the other, exactly as a run scores its frames.

    Parameters
    ----------
    scorer : Scorer
        Who scores.
    planes : iterable of ndarray of shape (height, width), integer or float
        Raw camera counts; at least one.
    bit_depth : int, optional
        Bits the camera really uses.
    sampling : float, optional
        Camera pixel as a multiple of wavelength / NA; see `models.scorer.Scorer.score`.
    anchor : Anchor, optional
        From an earlier frame of the same run; by default every plane is anchored to itself.
    in_order : bool
        The planes are one stack, in order of z; see `sharpest`.

    Raises
    ------
    ImageError
        For a plane that cannot be scored, an anchor that does not fit it, or an anchor for a
        scorer that takes none.
    """
    if anchor is not None and not isinstance(scorer, AnchoringScorer):
        raise ImageError(f"{scorer.name} takes no anchor; leave it out")
    scored = [_score(scorer, plane, bit_depth, sampling, anchor) for plane in planes]
    scores, anchors = zip(*scored, strict=True)
    return ScoredPlanes(scores, anchors, sharpest(scores, refereed=scorer.absolute and in_order))


def is_in_order(z_um: Sequence[float | None]) -> bool:
    """Whether planes follow each other in z, up or down; taken for granted where z is not known."""
    known = [z for z in z_um if z is not None]
    return known == sorted(known) or known == sorted(known, reverse=True)


def sharpest(scores: Sequence[FrameScore], *, refereed: bool) -> int:
    """Index of the sharpest of some planes.

    The highest score. A score of absolute meaning says the same of several planes, and of each with
    some noise; which of those is the sharpest, the referee says, where there is one. Which
    planes those are follows from how sure the scorer is of each distance, or else from the scores.

    Parameters
    ----------
    scores : sequence of FrameScore
        At least one.
    refereed : bool
        The planes are one stack in order of z, so that the referee can compare them, and their
        score means 1 in focus and 0 far away; otherwise the score alone decides.
    """
    best = max(range(len(scores)), key=lambda plane: scores[plane].score)
    referee = [each.referee for each in scores if each.referee is not None]
    if not refereed or len(referee) < len(scores):
        return best
    alike = [
        plane
        for plane, each in enumerate(scores)
        # The referee of a clipped frame says nothing of its sharpness.
        if not each.saturated and _may_be_as_sharp(each, scores[best])
    ]
    return max(alike, key=lambda plane: referee[plane], default=best)


def _may_be_as_sharp(plane: FrameScore, best: FrameScore) -> bool:
    """Whether their scorer cannot tell a plane from the best one of its stack."""
    estimated, nearest, deviation = plane.defocus_dof, best.defocus_dof, plane.defocus_sd_dof
    if estimated is None or nearest is None or deviation is None:
        return plane.score >= best.score - INDISTINCT
    return may_be_as_near(estimated, deviation, nearest)


def _score(
    scorer: Scorer,
    plane: NDArray[np.generic],
    bit_depth: int | None,
    sampling: float | None,
    anchor: Anchor | None,
) -> tuple[FrameScore, Anchor | None]:
    if not isinstance(scorer, AnchoringScorer):
        return scorer.score(plane, bit_depth=bit_depth, sampling=sampling), None
    used = anchor or scorer.anchor(plane)
    return scorer.score(plane, bit_depth=bit_depth, sampling=sampling, anchor=used), used
