"""Where the referee puts a peak that the score has found.

A classical measure means nothing by itself, and its curve has as many peaks as the specimen has
planes. But beside one peak it is steeper than a learned score and falls nearly alike on both sides,
so it tells the place better than the peak. How wide that peak is belongs to the specimen, so widths
are summed over; readings on one flank alone tell little then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from autofocus.search.protocol import Reading

Float64 = NDArray[np.float64]

# How far from the peak a measure counts, and from which share of the highest one.
REACH_DOF = 4.0
FAINT = 0.03
LEAST_POSITIONS = 3
# The bells are 1 / (1 + (d / w)^2)^p: median of w, standard deviation of its logarithm, and p. By
# `autofocus bench curves`: (1.00, 0.51), 0.7 to 2.8 and scatters of 0.03 to 0.17; half width 0.69.
WIDTH_DOF = (1.0, 0.5)
WIDTHS = np.linspace(-2.2, 2.2, 12)
EXPONENTS = np.array([0.7, 1.0, 1.5, 2.2, 3.0])
# Standard deviation of the logarithm of a measure about the bell, and by how much it grows a depth
# of field from the peak.
SCATTERS = np.array([0.04, 0.08, 0.16, 0.32, 0.64])
SCATTER_A_DOF = 0.1
# Share of the likelihood that every place keeps: the referee's curve of some specimens is no bell,
# where focus is a minimum of contrast or between two layers.
NO_BELL = 0.2


def told_by_referee(
    z_um: Float64, curve: Sequence[Reading], *, near_um: float, dof_um: float
) -> Float64 | None:
    """How likely the referee's measures are if the peak is at each position.

    Parameters
    ----------
    z_um : ndarray of shape (positions,)
        Candidates for the peak, um.
    curve : sequence of Reading
        Those far from ``near_um``, saturated, or faint are left out.
    near_um : float
        Where the score has found the peak.
    dof_um : float
        Depth of field.

    Returns
    -------
    ndarray of shape (positions,) or None
        Likelihoods relative to their mean, never below `NO_BELL`; None where the referee saw the
        peak from fewer than three positions.
    """
    seen = [
        (reading.z_um, reading.referee)
        for reading in curve
        if reading.referee is not None
        and math.isfinite(reading.referee)
        and not reading.saturated
        and abs(reading.z_um - near_um) <= REACH_DOF * dof_um
    ]
    top = max((measure for _, measure in seen), default=0.0)
    clear = [(z, measure) for z, measure in seen if measure > FAINT * top]
    if top <= 0 or len({round(10 * z / dof_um) for z, _ in clear}) < LEAST_POSITIONS:
        return None
    at_dof = np.array([z for z, _ in clear]) / dof_um
    log_measure = np.log([measure for _, measure in clear])
    evidence = _evidence(z_um / dof_um, at_dof, log_measure, near_um / dof_um)
    likelihood = np.exp(evidence - evidence.max())
    return np.asarray((1 - NO_BELL) * likelihood / likelihood.mean() + NO_BELL)


def _evidence(
    planes_dof: Float64, at_dof: Float64, log_measure: Float64, near_dof: float
) -> Float64:
    """Log evidence of a peak at each plane: all bells and scatters, any height."""
    median, spread = WIDTH_DOF
    width = median * np.exp(spread * WIDTHS)
    off = (at_dof - planes_dof[:, None]) / width[:, None, None]
    bell = EXPONENTS[:, None, None, None] * np.log1p(off**2)
    # What the height would have to be, by each reading: (exponents, widths, planes, readings).
    height = log_measure + bell
    sd = np.hypot(SCATTERS[:, None], SCATTER_A_DOF * np.abs(at_dof - near_dof))
    weight = sd**-2.0
    total = weight.sum(axis=1)
    # The height is the weighted mean, and integrated out: a flat prior in its logarithm.
    left = height**2 @ weight.T - (height @ weight.T) ** 2 / total
    constant = -np.log(sd).sum(axis=1) - np.log(total) / 2
    prior = -(WIDTHS**2) / 2
    return np.asarray(logsumexp(constant - left / 2 + prior[:, None, None], axis=(0, 1, 3)))
