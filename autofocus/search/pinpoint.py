"""Where a calibrated rig's referee puts the peak that the score has found.

A classical measure means nothing by itself, and its curve has as many peaks as the specimen has
planes. But beside a peak that is known it is two to three times as steep as a learned score, and
how steep was measured: it tells the place better than it tells the peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autofocus.search.belief import STRETCH_SD, STRETCHES
from autofocus.search.protocol import Reading, RefereeBell

# Places that are weighed, about the score's.
REACH_DOF = 1.0
STEP_DOF = 0.02
# How far from there a measure counts, and from which share of the highest one.
NEAR_DOF = 4.0
FAINT = 0.02
LEAST_READINGS = 3
# Least standard deviation of the logarithm of a measure, and by how much it grows a depth of field
# from focus, where the bell is that of another specimen.
LEAST_SCATTER = 0.1
SCATTER_A_DOF = 0.1
# What no reading can tell, in depths of field.
UNKNOWN_DOF = 0.03
# Standard deviations by which both places may differ and still be one.
SAME = 3.0


@dataclass(frozen=True)
class Place:
    """A position and one standard deviation of it, um."""

    z_um: float
    sigma_um: float


def pinpointed(
    found: Place, curve: Sequence[Reading], bell: RefereeBell, *, dof_um: float
) -> Place:
    """The score's place and the referee's in one; the score's where they are not the same place.

    Parameters
    ----------
    found : Place
        By the score.
    curve : sequence of Reading
        Of the run.
    bell : RefereeBell
        As calibrated.
    dof_um : float
        Depth of field.
    """
    seen = _of_the_referee(found.z_um, curve, bell, dof_um)
    if seen is None:
        return found
    apart_um = abs(seen.z_um - found.z_um)
    if apart_um > SAME * np.hypot(seen.sigma_um, found.sigma_um):
        return found
    weights = np.array([found.sigma_um, seen.sigma_um]) ** -2.0
    z_um = np.average([found.z_um, seen.z_um], weights=weights)
    return Place(float(z_um), float(weights.sum() ** -0.5))


def _of_the_referee(
    near_um: float, curve: Sequence[Reading], bell: RefereeBell, dof_um: float
) -> Place | None:
    """Mean and standard deviation over all places, the width of the bell summed over."""
    close = [
        (reading.z_um, reading.referee)
        for reading in curve
        if reading.referee is not None
        and not reading.saturated
        and abs(reading.z_um - near_um) <= NEAR_DOF * dof_um
    ]
    top = max((value for _, value in close), default=0.0)
    clear = [(z, value) for z, value in close if value > FAINT * top]
    if top <= 0 or len(clear) < LEAST_READINGS:
        return None
    z, log = np.array([z for z, _ in clear]), np.log([value for _, value in clear])
    spread = max(bell.scatter, LEAST_SCATTER) + SCATTER_A_DOF * np.abs(z - near_um) / dof_um
    places = near_um + dof_um * np.arange(-REACH_DOF, REACH_DOF + STEP_DOF / 2, STEP_DOF)
    width_um = bell.width_um * STRETCHES[:, None, None]
    off = (z - places[:, None] - bell.offset_um) / width_um
    left = log + bell.exponent * np.log1p(off**2)
    weight = spread**-2.0 / np.sum(spread**-2.0)
    # Its height is that of this specimen: the one that fits best.
    left = left - (left @ weight)[..., None]
    misfit = np.sum((left / spread) ** 2, axis=-1)
    misfit = misfit + ((STRETCHES[:, None] - 1) / STRETCH_SD) ** 2
    chance = np.exp(-(misfit - misfit.min()) / 2).sum(axis=0)
    mean_um = np.average(places, weights=chance)
    spread_um = np.sqrt(np.average((places - mean_um) ** 2, weights=chance))
    return Place(float(mean_um), float(np.hypot(spread_um, UNKNOWN_DOF * dof_um)))
