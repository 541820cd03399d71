"""Where a pass goes: evenly spaced positions inside the bounds, in the direction of travel."""

from __future__ import annotations

import math

from autofocus.search.protocol import SearchSettings

# Wide enough to cross the default range in few exposures, narrow enough that one position always
# falls on the flank of a focus curve, whose full width is two to four depths of field.
COARSE_STEP_DOF = 3.0


def coarse_step_um(settings: SearchSettings) -> float:
    """Distance between coarse positions in um; at least five of them span the range."""
    step_um = settings.coarse_step_um or COARSE_STEP_DOF * settings.dof_um
    return min(step_um, settings.range_um / 4)


def fine_step_um(settings: SearchSettings) -> float:
    """Distance between the last positions around the peak, um."""
    return max(2 * settings.tolerance_um, settings.dof_um / 2)


def least_width_um(settings: SearchSettings) -> float:
    """Half width of the narrowest peak worth believing: a quarter of the depth of field.

    Measures that square gradients are that narrow on sharp edges without noise; what is narrower
    is one reading that differs from its neighbours.
    """
    return settings.dof_um / 4


def clear_um(settings: SearchSettings) -> float:
    """Distance from a peak beyond which a reading no longer belongs to it, um."""
    return max(coarse_step_um(settings), 2 * settings.dof_um)


def coarse_positions(settings: SearchSettings) -> tuple[float, ...]:
    """Positions of the first pass: the range, both ends included, cut at the bounds.

    The start position, read before, is left out.

    Returns
    -------
    tuple of float
        Positions in um in the direction of travel, at most one coarse step apart.
    """
    low, high = range_ends(settings)
    # The small slack keeps rounding from adding a position nobody asked for.
    intervals = max(1, math.ceil((high - low) / coarse_step_um(settings) - 1e-6))
    positions = [low + (high - low) * i / intervals for i in range(intervals)] + [high]
    # The start has been read already; a second exposure there would tell nothing new.
    near_um = 0.1 * (high - low) / intervals
    return along(settings, [z for z in positions if abs(z - settings.start_z_um) > near_um])


def range_ends(settings: SearchSettings) -> tuple[float, float]:
    """Lowest and highest position of the range, cut at the bounds, um."""
    half_um = settings.range_um / 2
    return (
        inside_bounds(settings, settings.center_um - half_um),
        inside_bounds(settings, settings.center_um + half_um),
    )


def extension_count(settings: SearchSettings) -> int:
    """Positions of one extension, at most: a quarter of the range."""
    return max(3, math.ceil(settings.range_um / 4 / coarse_step_um(settings)))


def extension_positions(settings: SearchSettings, end_um: float, sign: int) -> tuple[float, ...]:
    """Positions that continue the range beyond one of its ends, inside the bounds.

    Parameters
    ----------
    end_um : float
        The outermost position visited so far on that side.
    sign : int
        +1 to go on above ``end_um``, -1 below.

    Returns
    -------
    tuple of float
        Empty when the bound is closer than half a coarse step.
    """
    step_um = coarse_step_um(settings)
    count = extension_count(settings)
    wanted = [end_um + sign * step_um * (i + 1) for i in range(count)]
    bound = settings.z_max_um if sign > 0 else settings.z_min_um
    inside = [z for z in wanted if (bound - z) * sign >= 0]
    last = inside[-1] if inside else end_um
    if len(inside) < count and (bound - last) * sign >= step_um / 2:
        inside.append(bound)
    return along(settings, inside)


def fine_positions(
    settings: SearchSettings, *, center_um: float, step_um: float
) -> tuple[float, ...]:
    """Four positions around ``center_um``, ``step_um`` apart, none of them outside the bounds.

    Near a bound the group is moved, not clipped: two readings at one z would count twice.
    """
    half_um = 1.5 * step_um
    span_um = settings.z_max_um - settings.z_min_um
    if span_um < 2 * half_um:
        half_um = span_um / 2
    middle = min(max(center_um, settings.z_min_um + half_um), settings.z_max_um - half_um)
    positions = (middle + half_um * k for k in (-1.0, -1 / 3, 1 / 3, 1.0))
    return along(settings, [inside_bounds(settings, z) for z in positions])


def inside_bounds(settings: SearchSettings, z_um: float) -> float:
    """``z_um``, or the bound it exceeds; absorbs rounding and a fit that points outside."""
    return min(max(z_um, settings.z_min_um), settings.z_max_um)


def along(settings: SearchSettings, positions: list[float]) -> tuple[float, ...]:
    """The positions in the direction of travel."""
    return tuple(sorted(positions, reverse=settings.direction < 0))
