"""A z-stack around the present position: planned, checked, then taken plane by plane."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from autofocus.config import Rig
from autofocus.errors import RequestError
from autofocus.focus import Abort
from devices import (
    Acquisition,
    AcquisitionSettings,
    Frame,
    Halted,
    Microscope,
    MicroscopeState,
    MoveFailed,
)

# A head knows only what it was shown: runs begin this far from focus, and further.
HALF_RANGE_DOF = 20.0
STEP_DOF = 0.5
LEAST_PLANES = 3
MOST_PLANES = 301
# A stack waits in memory until it is complete: 1 GiB of 16-bit counts.
MOST_PX = 1 << 29


@dataclass(frozen=True)
class StackRequest:
    """Which planes to take and how; None leaves the choice to the rig.

    Attributes
    ----------
    half_range_um, half_range_dof : float or None
        How far to go to each side, um or depths of field; at most one of the two.
    step_um, step_dof : float or None
        Distance between planes; at most one of the two.
    camera : AcquisitionSettings
        For this stack only.
    """

    half_range_um: float | None = None
    half_range_dof: float | None = None
    step_um: float | None = None
    step_dof: float | None = None
    camera: AcquisitionSettings = field(default_factory=AcquisitionSettings)


@dataclass(frozen=True)
class StackPlan:
    """What taking a stack means.

    Attributes
    ----------
    z_um : tuple of float
        Positions in the order of travel, which ends towards the specimen.
    dof_um : float
        Depth of field.
    pixel_size_um : float
        Of the frames, in the specimen.
    sampling : float or None
        See `autofocus.optics.Optics.sampling`.
    """

    z_um: tuple[float, ...]
    dof_um: float
    pixel_size_um: float
    sampling: float | None


def plan_stack(rig: Rig, request: StackRequest, *, state: MicroscopeState) -> StackPlan:
    """Say where a stack would go; moves nothing.

    Raises
    ------
    RequestError
        When a plane would leave the rig's limits, or there are too few or too many.
    """
    optics = rig.optics_for(state.objective)
    binning = request.camera.binning or state.binning
    dof_um = optics.depth_of_field_um(binning)
    half_um = _um("half_range", request.half_range_um, request.half_range_dof, dof_um)
    step_um = _um("step", request.step_um, request.step_dof, dof_um)
    half_um = HALF_RANGE_DOF * dof_um if half_um is None else half_um
    step_um = STEP_DOF * dof_um if step_um is None else step_um
    # The small slack keeps rounding from losing the plane at the end of the range.
    each_side = math.floor(half_um / step_um + 1e-6)
    _require_count(2 * each_side + 1, half_um, step_um)
    _require_memory(2 * each_side + 1, request, state, binning)
    up = [state.z_um + step_um * k for k in range(-each_side, each_side + 1)]
    _require_inside(rig, up, here_um=state.z_um)
    towards_minus = rig.microscope.towards_specimen == "-"
    return StackPlan(
        z_um=tuple(reversed(up) if towards_minus else up),
        dof_um=dof_um,
        pixel_size_um=optics.pixel_size_um * binning,
        sampling=optics.sampling(binning),
    )


def acquire_stack(
    rig: Rig,
    microscope: Microscope,
    request: StackRequest,
    *,
    abort: Abort,
    on_frame: Callable[[Frame], None] = lambda frame: None,
) -> tuple[Frame, ...]:
    """Take a stack and put the microscope back as it was, z included, whatever happens.

    Must be called from the hardware thread.

    Parameters
    ----------
    abort : Abort
        Watched before every move and every exposure.
    on_frame : callable, optional
        Told of every plane as it is taken.

    Returns
    -------
    tuple of Frame
        In ascending z.

    Raises
    ------
    RequestError
        When the stack must be refused; nothing has moved.
    Halted
        When it was stopped or aborted.
    DeviceError
        When the hardware fails.
    """
    plan = plan_stack(rig, request, state=microscope.refresh())
    microscope.resume()
    frames: list[Frame] = []
    with microscope.acquisition(request.camera) as acquisition:
        for z_um in plan.z_um:
            frames.append(_plane(microscope, acquisition, z_um, abort, len(frames)))
            on_frame(frames[-1])
        _refuse_if_stopped(microscope, abort, len(frames))
    _require_apart(frames, plan)
    return tuple(sorted(frames, key=lambda frame: frame.z_um))


def _plane(
    microscope: Microscope, acquisition: Acquisition, z_um: float, abort: Abort, taken: int
) -> Frame:
    _refuse_if_stopped(microscope, abort, taken)
    microscope.move_to(z_um)
    _refuse_if_stopped(microscope, abort, taken)
    frame = microscope.snap()
    acquisition.verify_unchanged()
    return frame


def _refuse_if_stopped(microscope: Microscope, abort: Abort, taken: int) -> None:
    if abort.is_set() or microscope.halted:
        raise Halted(f"the z-stack was stopped after {taken} planes; none is kept")


def _um(name: str, um: float | None, dof: float | None, dof_um: float) -> float | None:
    if um is not None and dof is not None:
        raise RequestError(f"give {name}_um or {name}_dof, not both")
    return um if dof is None else dof * dof_um


def _require_count(planes: int, half_um: float, step_um: float) -> None:
    if not LEAST_PLANES <= planes <= MOST_PLANES:
        raise RequestError(
            f"{half_um:.3g} um to each side in steps of {step_um:.3g} um are {planes} planes; "
            f"{LEAST_PLANES} to {MOST_PLANES} can be taken"
        )


def _require_memory(
    planes: int, request: StackRequest, state: MicroscopeState, binning: int
) -> None:
    roi = request.camera.roi or state.roi
    rescaled = 1.0 if request.camera.roi else (state.binning / binning) ** 2
    pixels = planes * roi.width * roi.height * rescaled
    if pixels > MOST_PX:
        raise RequestError(
            f"{planes} planes of this size are {pixels / 1e6:.0f} megapixels, at most "
            f"{MOST_PX / 1e6:.0f} can be taken; take fewer planes, a smaller roi or more binning"
        )


def _require_inside(rig: Rig, z_um: list[float], *, here_um: float) -> None:
    low, high = rig.microscope.permitted_um(here_um)
    if z_um[0] < low or z_um[-1] > high:
        raise RequestError(
            f"the z-stack would go from {z_um[0]:.2f} to {z_um[-1]:.2f} um, permitted from "
            f"{here_um:.2f} um are {low:.2f} to {high:.2f} um; take a smaller half range or move "
            "the stage first"
        )


def _require_apart(frames: list[Frame], plan: StackPlan) -> None:
    """A plane whose position is not known is no training data."""
    for before, after in pairwise(frames):
        if (after.z_um - before.z_um) * (plan.z_um[-1] - plan.z_um[0]) <= 0:
            raise MoveFailed(
                f"the stage was sent on by {abs(plan.z_um[1] - plan.z_um[0]):.3g} um, but reads "
                f"{before.z_um:.3f} um, then {after.z_um:.3f} um; take larger steps"
            )
