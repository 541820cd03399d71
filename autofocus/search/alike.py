"""What a scorer, by its own account, cannot tell apart."""

from __future__ import annotations

# Deviations by which a frame may be nearer to focus than it is estimated; see decision 26.
UNSURE_SD = 0.5


def may_be_as_near(estimated_dof: float, deviation_dof: float, nearest_dof: float) -> bool:
    """Whether a frame may be as near to focus as another one.

    Parameters
    ----------
    estimated_dof, deviation_dof : float
        Its distance from focus in depths of field, as its scorer estimates it, and how far off that
        may be, root mean square.
    nearest_dof : float
        The estimated distance of the other one.
    """
    return estimated_dof - UNSURE_SD * deviation_dof <= nearest_dof
