"""Where focus is expected, from earlier locks here or nearby.

The last lock at this place is taken as it is. Without one, a plane is laid through the nearest
locks, each weighted by its own uncertainty, with slopes as slides and dishes have them where the
locks alone do not tell (Bayesian linear regression; C. Bishop, *Pattern Recognition and Machine
Learning*, 2006, section 3.3). Each lock is then predicted from the others: where those predictions
are worse than they claim, the specimen is no plane, and the uncertainty grows by as much. Whatever
it is from, it grows with the age of the newest lock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

import numpy as np

from autofocus.config import Rig
from autofocus.planning import FocusRequest, search_settings
from autofocus.runs import Place, RunRecord, RunStore
from devices import MicroscopeState

# How focus walks while a microscope stands: allowance, not a measurement of anybody's.
DRIFT_UM_PER_SQRT_H = 1.0
# Half a degree: most slides and dishes lie flatter.
SLOPE_UM_PER_MM = 10.0
# Locks closer together than this share of the frame's shorter side are at the same place.
SAME_PLACE_FIELDS = 0.25
# A lock is not taken as surer than this: see `planning.TOLERANCE_DOF`.
LEAST_SIGMA_DOF = 0.25
# Three of them to each side are as much as a run without any expectation crosses.
MOST_SIGMA_DOF = 8.0
MOST_NEIGHBOURS = 8
OLDEST = timedelta(hours=24)
MOST_RUNS = 300


@dataclass(frozen=True)
class Lock:
    """A run that ended in focus.

    Attributes
    ----------
    run_id : str
        Name of the run.
    at : datetime
        When it began, UTC.
    xy_um : tuple of float
        Where the XY stage was.
    z_um, sigma_um : float
        Its in-focus plane and one standard deviation.
    """

    run_id: str
    at: datetime
    xy_um: tuple[float, float]
    z_um: float
    sigma_um: float


@dataclass(frozen=True)
class Prediction:
    """Where focus is expected.

    Attributes
    ----------
    z_um, sigma_um : float
        Its middle and one standard deviation, drift included.
    locks : tuple of Lock
        What it is from, newest first.
    here : bool
        From the last lock at this very place.
    """

    z_um: float
    sigma_um: float
    locks: tuple[Lock, ...]
    here: bool


def predict(
    locks: Sequence[Lock],
    *,
    xy_um: tuple[float, float],
    field_um: float,
    dof_um: float,
    now: datetime,
) -> Prediction | None:
    """Where focus is expected at a place.

    Parameters
    ----------
    locks : sequence of Lock
        Of the same rig, objective and channel; any order.
    xy_um : tuple of float
        The place.
    field_um : float
        Shorter side of the frame in the specimen, um.
    dof_um : float
        Depth of field, um.
    now : datetime
        UTC.

    Returns
    -------
    Prediction or None
        None without a lock, and when the uncertainty exceeds `MOST_SIGMA_DOF` depths of field:
        nothing is near, or all of it long ago.
    """
    newest_first = sorted(locks, key=lambda lock: lock.at, reverse=True)
    apart_um = SAME_PLACE_FIELDS * field_um
    at_this_place = [lock for lock in newest_first if math.dist(lock.xy_um, xy_um) <= apart_um]
    used = at_this_place[:1] or _nearest(newest_first, xy_um, apart_um)
    if not used:
        return None
    plane = _Plane(used, xy_um, least_sigma_um=LEAST_SIGMA_DOF * dof_um)
    z_um, sigma_um = plane.at_the_place()
    drift_um = DRIFT_UM_PER_SQRT_H * math.sqrt(_hours(now - used[0].at))
    sigma_um = math.hypot(sigma_um, drift_um)
    if sigma_um > MOST_SIGMA_DOF * dof_um:
        return None
    return Prediction(z_um, sigma_um, tuple(used), here=bool(at_this_place))


def earlier_locks(runs: RunStore, rig: Rig, place: Place, *, now: datetime) -> tuple[Lock, ...]:
    """Locks of the last day on this rig, through the same objective and channel.

    At most the newest `MOST_RUNS` runs are looked at.
    """
    found = []
    for record in islice(_newest_first(runs), MOST_RUNS):
        if now - record.started_at > OLDEST:
            break
        if record.rig == rig.name and (lock := _lock_of(record, place)):
            found.append(lock)
    return tuple(found)


def warmed(
    request: FocusRequest, runs: RunStore, rig: Rig, *, state: MicroscopeState, now: datetime
) -> tuple[FocusRequest, str]:
    """Fill in where focus is expected, for a request that wants a warm start.

    Parameters
    ----------
    request : FocusRequest
        With ``warm_start``.
    runs : RunStore
        Where the earlier runs are.
    rig : Rig
        The microscope.
    state : MicroscopeState
        As it is now, XY included.
    now : datetime
        UTC.

    Returns
    -------
    FocusRequest
        With an expectation, or without one where nothing is known.
    str
        For a person: from which runs, or why from none.

    Raises
    ------
    RequestError
        When the request says itself where focus is expected, or contradicts the rig's limits.
    """
    settings, _ = search_settings(rig, request, state=state, absolute=False)
    cold = replace(request, warm_start=False)
    place = place_of(request, state)
    if place.xy_um is None:
        return cold, "no warm start: without an XY stage nobody knows where earlier runs were"
    expected = predict(
        earlier_locks(runs, rig, place, now=now),
        xy_um=place.xy_um,
        field_um=_field_um(rig, state),
        dof_um=settings.dof_um,
        now=now,
    )
    if expected is None:
        return cold, "no warm start: no lock near enough in the last day"
    told = _told(expected)
    if not settings.z_min_um <= expected.z_um <= settings.z_max_um:
        limits = f"{settings.z_min_um:.2f}..{settings.z_max_um:.2f} um"
        return cold, f"no warm start: {told}, but that is outside the permitted {limits}"
    warm = replace(cold, expected_z_um=expected.z_um, expected_sigma_um=expected.sigma_um)
    return warm, f"warm start: {told}"


def place_of(request: FocusRequest, state: MicroscopeState) -> Place:
    """Where a run with this request is."""
    return Place(state.xy_um, state.objective, request.channel or state.channel)


class _Plane:
    """The plane through some locks, in mm from the place that is asked for.

    With a single lock it is level, and as uncertain as slopes may be.
    """

    def __init__(
        self, locks: Sequence[Lock], xy_um: tuple[float, float], *, least_sigma_um: float
    ) -> None:
        away_mm = (np.array([lock.xy_um for lock in locks]) - np.array(xy_um)) / 1000
        self._rows = np.column_stack([np.ones(len(locks)), away_mm])
        self._z_um = np.array([lock.z_um for lock in locks])
        own_um = [max(lock.sigma_um, least_sigma_um) for lock in locks]
        newest = max(lock.at for lock in locks)
        # All of them have drifted together since the newest; that is added by who asks.
        drifted = [DRIFT_UM_PER_SQRT_H**2 * _hours(newest - lock.at) for lock in locks]
        self._variance = np.square(own_um) + np.array(drifted)

    def at_the_place(self) -> tuple[float, float]:
        """Height and one standard deviation, um."""
        everything = np.ones(len(self._z_um), bool)
        z_um, variance = self._predict(everything, np.array([1.0, 0.0, 0.0]))
        return z_um, math.sqrt(variance) * max(1.0, self._too_sure())

    def _too_sure(self) -> float:
        """How much farther locks are from what the others say than these claim, root mean square.

        1 where there is no third lock to tell.
        """
        count = len(self._z_um)
        if count < 3:
            return 1.0
        squares = []
        for left_out in range(count):
            others = np.arange(count) != left_out
            z_um, variance = self._predict(others, self._rows[left_out])
            squares.append(
                (self._z_um[left_out] - z_um) ** 2 / (variance + self._variance[left_out])
            )
        return math.sqrt(sum(squares) / count)

    def _predict(self, which: np.ndarray, row: np.ndarray) -> tuple[float, float]:
        rows, weights = self._rows[which], 1 / self._variance[which]
        middle_um = float(np.average(self._z_um[which], weights=weights))
        known = (rows * weights[:, None]).T @ rows + np.diag([0, *[SLOPE_UM_PER_MM**-2] * 2])
        spread = np.linalg.inv(known)
        plane = spread @ (rows * weights[:, None]).T @ (self._z_um[which] - middle_um)
        return middle_um + float(row @ plane), float(row @ spread @ row)


def _nearest(
    newest_first: Sequence[Lock], xy_um: tuple[float, float], apart_um: float
) -> list[Lock]:
    """The last lock of each of the nearest places, newest first."""
    places: list[Lock] = []
    for lock in newest_first:
        if all(math.dist(lock.xy_um, other.xy_um) > apart_um for other in places):
            places.append(lock)
    nearest = sorted(places, key=lambda lock: math.dist(lock.xy_um, xy_um))[:MOST_NEIGHBOURS]
    return sorted(nearest, key=lambda lock: lock.at, reverse=True)


def _newest_first(runs: RunStore) -> Iterator[RunRecord]:
    return (runs.read(run_id) for run_id in runs.ids())


def _lock_of(record: RunRecord, place: Place) -> Lock | None:
    result, where = record.result, record.place
    if not (result and result.locked and where and where.xy_um) or result.z_um is None:
        return None
    if (where.objective, where.channel) != (place.objective, place.channel):
        return None
    return Lock(
        record.run_id, record.started_at, where.xy_um, result.z_um, result.z_uncertainty_um or 0.0
    )


def _field_um(rig: Rig, state: MicroscopeState) -> float:
    pixel_um = rig.optics_for(state.objective).pixel_size_um * state.binning
    return min(state.roi.width, state.roi.height) * pixel_um


def _told(expected: Prediction) -> str:
    names = ", ".join(lock.run_id for lock in expected.locks)
    where = "the last lock here" if expected.here else f"{len(expected.locks)} nearby"
    return f"{expected.z_um:.2f} +- {expected.sigma_um:.2f} um expected from {where} ({names})"


def _hours(age: timedelta) -> float:
    return max(0.0, age.total_seconds() / 3600)
