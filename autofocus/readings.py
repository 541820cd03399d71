"""A frame becomes a reading: the one place where a scorer meets a microscope's frame."""

from __future__ import annotations

import math

from autofocus.optics import Optics
from autofocus.search.protocol import Reading
from devices import Frame
from models.errors import ModelError
from models.scorer import Scorer


def reading_of(frame: Frame, scorer: Scorer, optics: Optics) -> Reading:
    """Score a frame.

    Raises
    ------
    ModelError
        When the scorer cannot, or what it or its referee says is no number: compared with anything
        that is false, which every later check would take for consent.
    """
    scored = scorer.score(
        frame.image, bit_depth=frame.bit_depth, sampling=optics.sampling(frame.binning)
    )
    said = (scored.score, scored.referee, scored.defocus_dof, scored.defocus_sd_dof)
    if not all(math.isfinite(each) for each in said if each is not None):
        raise ModelError(
            f"{scorer.name} scored the frame at {frame.z_um:.2f} um as {scored.score}, its referee "
            f"as {scored.referee}, its distance from focus as {scored.defocus_dof} +- "
            f"{scored.defocus_sd_dof} depths of field; choose another scorer"
        )
    return Reading(
        z_um=frame.z_um,
        score=scored.score,
        referee=scored.referee,
        defocus_dof=scored.defocus_dof,
        defocus_sd_dof=scored.defocus_sd_dof,
        coarse_contrast=scored.coarse_contrast,
        dark=scored.dark,
        saturated=scored.saturated,
        out_of_distribution=scored.out_of_distribution,
        fingerprint=scored.fingerprint,
    )
