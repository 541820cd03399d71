"""A recorded z-stack as a rig: the same run, on frames that were taken before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autofocus.config import Objective, Rig, SearchDefaults
from autofocus.errors import RequestError
from devices import MicroscopeSettings
from devices.replay import write_config
from devices.replay.stack import load_stack, plane_positions

# Of the distance between planes: who records a z-stack takes two or three planes a depth of field.
_DOF_STEPS = 2.0
# Of the whole stack: one recorded much finer than its depth of field is still searched in steps.
_DOF_OF_STACK = 1 / 25
# A frame costs nothing here, so the first pass looks at every plane, up to this many.
_PLANES_AT_FIRST = 50


def replay_rig(
    rig: Rig,
    stack: Path,
    folder: Path,
    *,
    z_step_um: float | None = None,
    z_positions_um: Sequence[float] | None = None,
    keep_optics: bool = False,
) -> Rig:
    """Put a recorded stack in the place of a rig's hardware.

    Parameters
    ----------
    rig : Rig
        Gives scorer, folders and, with ``keep_optics``, the optics.
    stack : Path
        Multi-page TIFF, OME-TIFF, or folder of planes.
    folder : Path
        Where the ``.cfg`` is written; needed as long as the rig is used.
    z_step_um, z_positions_um : optional
        Where the planes are; see `devices.replay.write_config`.
    keep_optics : bool
        Whether the rig's optics took the stack. Otherwise the depth of field is guessed from the
        distance between its planes.

    Raises
    ------
    DeviceConfigError
        If the stack cannot be read, or the z of its planes is not known.
    RequestError
        If it holds a single plane.
    """
    recorded = load_stack(stack)
    z_um = np.sort(plane_positions(recorded, z_step_um=z_step_um, z_positions_um=z_positions_um))
    if len(z_um) < 2:
        raise RequestError(f"{stack} holds a single plane; there is nothing to search")
    steps_um = np.diff(z_um)
    span_um = float(np.ptp(z_um))
    optics = rig.objectives[0].optics
    if not keep_optics:
        dof_um = max(_DOF_STEPS * float(np.median(steps_um)), _DOF_OF_STACK * span_um)
        optics = replace(optics, dof_um=dof_um)
    return replace(
        rig,
        name=f"replay of {stack.name}",
        microscope=MicroscopeSettings(
            config=write_config(stack, folder, z_step_um=z_step_um, z_positions_um=z_positions_um),
            z_min_um=float(z_um[0]),
            z_max_um=float(z_um[-1]),
            # The stage reports the plane it is on, at most half a step from where it was sent.
            arrival_tolerance_um=0.51 * float(steps_um.max()),
        ),
        objectives=(Objective(None, optics, rig.objectives[0].head),),
        # From any start, the whole stack lies within twice its length.
        search=SearchDefaults(
            2 * span_um,
            rig.search.range_dof,
            max(float(np.median(steps_um)), span_um / _PLANES_AT_FIRST),
            0,
        ),
    )
