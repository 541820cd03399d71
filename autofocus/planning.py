"""What a run may do, decided before anything moves: limits, range, steps, worst case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autofocus.config import Rig, SearchDefaults
from autofocus.errors import RequestError
from autofocus.search.protocol import Expectation, SearchSettings
from autofocus.search.strategies import STRATEGIES, Strategy
from devices import MicroscopeSettings, MicroscopeState, Roi

# A quarter of the depth of field cannot be seen by eye.
TOLERANCE_DOF = 0.25
# A focus curve and some background on each side of it, so that a peak can be told from none.
LEAST_RANGE_DOF = 20.0
NO_RANGE_DOF = 0.01
# Ten times the usual range. Memory and time for judging a curve grow with the square of its length.
MOST_RANGE_DOF = 500


@dataclass(frozen=True)
class FocusRequest:
    """What to focus on and how far to go; None leaves the choice to the rig file.

    Attributes
    ----------
    range_um, range_dof : float or None
        Full width of the first pass, um or depths of field; at most one of the two.
    center_um : float or None
        Middle of the first pass; None is the start position, or the middle of ``z_min_um`` and
        ``z_max_um`` when both are given.
    z_min_um, z_max_um : float or None
        Bounds of this run, inside those of the rig.
    expected_z_um, expected_sigma_um : float or None
        Where focus is expected, with one standard deviation; both or none. The range then covers
        three of them to each side.
    warm_start : bool
        Let earlier locks nearby say where focus is expected; see `autofocus.warm_start`.
    strategy, scorer, head : str or None
        By name.
    roi : Roi or None
        Camera region for this run, px.
    exposure_ms, channel, binning : optional
        Camera settings for this run; put back afterwards.
    channel_offset_um : float
        Added to the in-focus position after a lock: focus in one channel, image in another.
    tolerance_um : float or None
        How closely the peak is wanted; None is a quarter of the depth of field.
    max_exposures, max_dose_ms, max_seconds : optional
        Budgets; a run that would exceed one ends with ``budget``.
    max_extensions : int or None
        How often the range may grow past an end that holds the best score.
    on_failure : {"return", "stay"}
        Where the stage is left unless the run locks.
    save_frames : bool
        Keep the frames in the run's folder.
    """

    range_um: float | None = None
    range_dof: float | None = None
    center_um: float | None = None
    z_min_um: float | None = None
    z_max_um: float | None = None
    expected_z_um: float | None = None
    expected_sigma_um: float | None = None
    warm_start: bool = False
    strategy: str = "coarse_to_fine"
    scorer: str | None = None
    head: str | None = None
    roi: Roi | None = None
    exposure_ms: float | None = None
    channel: str | None = None
    channel_offset_um: float = 0.0
    binning: int | None = None
    tolerance_um: float | None = None
    max_exposures: int | None = None
    max_dose_ms: float | None = None
    max_seconds: float | None = None
    max_extensions: int | None = None
    on_failure: Literal["return", "stay"] = "return"
    save_frames: bool = False


@dataclass(frozen=True)
class FocusPlan:
    """What a run would do, without doing it.

    Attributes
    ----------
    z_um : tuple of float
        Positions of the first pass, um.
    z_lowest_um, z_highest_um : float
        The run never leaves these, whatever its channel offset and the rig's backlash.
    worst_case_exposures : int
        Largest number of exposures, the budget considered.
    worst_case_dose_ms : float
        Largest sum of exposure times.
    dof_um, tolerance_um : float
        Depth of field and tolerance in use.
    strategy : str
        Name of the search.
    notes : tuple of str
        What was cut or chosen on the caller's behalf.
    """

    z_um: tuple[float, ...]
    z_lowest_um: float
    z_highest_um: float
    worst_case_exposures: int
    worst_case_dose_ms: float
    dof_um: float
    tolerance_um: float
    strategy: str
    notes: tuple[str, ...]


def plan(rig: Rig, request: FocusRequest, *, state: MicroscopeState, absolute: bool) -> FocusPlan:
    """Say what a run would do; moves nothing.

    Parameters
    ----------
    absolute : bool
        Whether the score has absolute meaning; such runs may take more exposures.

    Raises
    ------
    RequestError
        When the request contradicts itself or the rig's limits.
    """
    strategy = strategy_of(request)
    settings, notes = search_settings(rig, request, state=state, absolute=absolute)
    worst = strategy.worst_case_exposures(settings)
    if request.max_exposures is not None:
        worst = min(worst, request.max_exposures)
    dose_ms = worst * (request.exposure_ms or state.exposure_ms)
    if request.max_dose_ms is not None:
        dose_ms = min(dose_ms, request.max_dose_ms)
    lowest_um, highest_um = _reach_um(rig, request, settings)
    return FocusPlan(
        z_um=strategy.first_positions(settings),
        z_lowest_um=lowest_um,
        z_highest_um=highest_um,
        worst_case_exposures=worst,
        worst_case_dose_ms=dose_ms,
        dof_um=settings.dof_um,
        tolerance_um=settings.tolerance_um,
        strategy=request.strategy,
        notes=notes,
    )


def search_settings(
    rig: Rig, request: FocusRequest, *, state: MicroscopeState, absolute: bool
) -> tuple[SearchSettings, tuple[str, ...]]:
    """Turn a request into um, inside every limit, with a note for everything that was cut.

    Raises
    ------
    RequestError
        When the request contradicts itself or the rig's limits.
    """
    binning = request.binning or state.binning
    dof_um = rig.optics_for(state.objective).depth_of_field_um(binning)
    return settings_within(
        rig.microscope,
        rig.search,
        request,
        start_z_um=_start_um(rig.microscope, state.z_um),
        dof_um=dof_um,
        absolute=absolute,
    )


def _start_um(limits: MicroscopeSettings, here_um: float) -> float:
    """Where a run begins: a stage at a limit may read back just beyond it."""
    inside_um = limits.into_limits(here_um)
    return inside_um if abs(inside_um - here_um) <= limits.arrival_tolerance_um else here_um


def settings_within(
    limits: MicroscopeSettings,
    defaults: SearchDefaults,
    request: FocusRequest,
    *,
    start_z_um: float,
    dof_um: float,
    absolute: bool,
) -> tuple[SearchSettings, tuple[str, ...]]:
    """`search_settings` of a microscope that need not be ours.

    Raises
    ------
    RequestError
        When the request contradicts itself or the limits.
    """
    low, high, notes = _envelope(limits, request, start_z_um=start_z_um)
    range_um = _range_um(defaults, request, dof_um)
    _require_sensible(range_um, dof_um)
    center_um = _center_um(request, start_z_um=start_z_um, low=low, high=high)
    if center_um - range_um / 2 < low or center_um + range_um / 2 > high:
        notes.append(
            f"range {center_um - range_um / 2:.2f}..{center_um + range_um / 2:.2f} um cut to the "
            f"permitted {low:.2f}..{high:.2f} um"
        )
    extensions = request.max_extensions
    settings = SearchSettings(
        start_z_um=start_z_um,
        z_min_um=low,
        z_max_um=high,
        center_um=center_um,
        range_um=range_um,
        dof_um=dof_um,
        tolerance_um=request.tolerance_um or TOLERANCE_DOF * dof_um,
        direction=-1 if limits.towards_specimen == "-" else 1,
        max_extensions=defaults.max_extensions if extensions is None else extensions,
        coarse_step_um=defaults.coarse_step_um,
        absolute=absolute,
        expected=_expectation(request),
    )
    return settings, tuple(notes)


def _envelope(
    limits: MicroscopeSettings, request: FocusRequest, *, start_z_um: float
) -> tuple[float, float, list[str]]:
    """Positions this run may visit: limits of the rig, of the request, and towards the specimen."""
    notes: list[str] = []
    low, high = limits.z_min_um, limits.z_max_um
    for name, value in (("z_min_um", request.z_min_um), ("z_max_um", request.z_max_um)):
        if value is not None and not low <= value <= high:
            raise RequestError(f"{name} = {value} um is outside the rig's {low}..{high} um")
    low = low if request.z_min_um is None else request.z_min_um
    high = high if request.z_max_um is None else request.z_max_um
    permitted_low, permitted_high = limits.permitted_um(start_z_um)
    if permitted_low > low or permitted_high < high:
        low, high = max(low, permitted_low), min(high, permitted_high)
        end = low if limits.towards_specimen == "-" else high
        notes.append(f"at most {limits.max_towards_um} um towards the specimen: to {end:.2f}")
    # The channel offset is applied after the lock and must not leave the bounds either.
    low, high = (
        max(low, low - request.channel_offset_um),
        min(high, high - request.channel_offset_um),
    )
    if low >= high:
        raise RequestError(
            f"nothing is left to search between {low:.2f} and {high:.2f} um; "
            "check z_min_um, z_max_um, channel_offset_um and the rig's max_towards_um"
        )
    return low, high, notes


def _reach_um(rig: Rig, request: FocusRequest, settings: SearchSettings) -> tuple[float, float]:
    """Where a run can get in all: the start, the channel offset and the run-up included."""
    limits, offset_um = rig.microscope, request.channel_offset_um
    run_up_um = settings.direction * limits.backlash_um
    low = min(settings.z_min_um + min(offset_um, 0.0), settings.start_z_um) - max(run_up_um, 0.0)
    high = max(settings.z_max_um + max(offset_um, 0.0), settings.start_z_um) - min(run_up_um, 0.0)
    return max(low, limits.z_min_um), min(high, limits.z_max_um)


def _range_um(defaults: SearchDefaults, request: FocusRequest, dof_um: float) -> float:
    if request.range_um is not None and request.range_dof is not None:
        raise RequestError("give range_um or range_dof, not both")
    if request.range_um is not None:
        return request.range_um
    if request.range_dof is not None:
        return request.range_dof * dof_um
    if request.expected_sigma_um is not None:
        return max(6 * request.expected_sigma_um, LEAST_RANGE_DOF * dof_um)
    if request.z_min_um is not None and request.z_max_um is not None:
        return request.z_max_um - request.z_min_um
    return defaults.range_um or defaults.range_dof * dof_um


def _require_sensible(range_um: float, dof_um: float) -> None:
    if range_um < NO_RANGE_DOF * dof_um:
        raise RequestError(
            f"a range of {range_um:g} um is less than {NO_RANGE_DOF} depths of field of "
            f"{dof_um:g} um, within which nothing changes; give a larger range_um"
        )
    if range_um > MOST_RANGE_DOF * dof_um:
        raise RequestError(
            f"a range of {range_um:g} um is more than {MOST_RANGE_DOF} depths of field of "
            f"{dof_um:g} um; give a smaller range_um, and check the units of the optics"
        )


def _center_um(request: FocusRequest, *, start_z_um: float, low: float, high: float) -> float:
    for name in ("center_um", "expected_z_um"):
        middle_um: float | None = getattr(request, name)
        if middle_um is not None and not low <= middle_um <= high:
            raise RequestError(
                f"{name} = {middle_um} um is outside the permitted {low:.2f}..{high:.2f} um"
            )
        if middle_um is not None:
            return middle_um
    if request.z_min_um is not None and request.z_max_um is not None:
        return (low + high) / 2
    return min(max(start_z_um, low), high)


def _expectation(request: FocusRequest) -> Expectation | None:
    z_um, sigma_um = request.expected_z_um, request.expected_sigma_um
    if request.warm_start and (z_um is not None or request.center_um is not None):
        raise RequestError("give warm_start, expected_z_um or center_um: one of them")
    if (z_um is None) != (sigma_um is None):
        raise RequestError("give expected_z_um and expected_sigma_um together, or neither")
    if z_um is None or sigma_um is None:
        return None
    if request.center_um is not None:
        raise RequestError("give center_um or expected_z_um, not both")
    return Expectation(z_um, sigma_um)


def strategy_of(request: FocusRequest) -> Strategy:
    """The search that a request names.

    Raises
    ------
    RequestError
        When there is none of that name.
    """
    known = STRATEGIES
    if request.strategy not in known:
        raise RequestError(
            f"strategy {request.strategy!r} is unknown; there are {', '.join(known)}"
        )
    return known[request.strategy]
