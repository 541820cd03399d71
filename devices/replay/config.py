"""Writes the ``.cfg`` that makes a microscope of a recorded z-stack."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from devices.replay.stack import load_stack, plane_positions

_CONFIG = """\
# A recorded z-stack as a microscope.
Property,Core,Initialize,0

#py pyDevice,Camera,devices.replay.devices,ReplayCamera
#py pyDevice,Z,devices.replay.devices,ReplayStage

#py Property,Camera,World,{world}
#py Property,Z,World,{world}
#py Property,Z,Stack,{stack}
#py Property,Z,ZPositions,{positions}

Property,Core,Initialize,1

#py Property,Core,Camera,Camera
#py Property,Core,Focus,Z
"""


def write_config(
    stack: Path,
    out_dir: Path,
    *,
    z_step_um: float | None = None,
    z_positions_um: Sequence[float] | None = None,
) -> Path:
    """Write ``replay.cfg`` for a recorded stack, after checking that the stack can be replayed.

    Parameters
    ----------
    stack : Path
        Multi-page TIFF, OME-TIFF, or folder of planes.
    out_dir : Path
        Where to write; made if need be.
    z_step_um : float, optional
        Distance from each plane to the next, um; the first is at 0.
    z_positions_um : sequence of float, optional
        Position of each plane, um. With neither, as recorded.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    DeviceConfigError
        If the stack cannot be read, or the z of its planes is not known.
    """
    positions = plane_positions(
        load_stack(stack), z_step_um=z_step_um, z_positions_um=z_positions_um
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    config = out_dir / "replay.cfg"
    text = _CONFIG.format(
        world=f"replay-{secrets.token_hex(4)}",  # two replays in one process must not share a stage
        stack=stack.resolve().as_uri(),
        positions=" ".join(map(repr, positions)),
    )
    config.write_text(text, encoding="utf-8")
    return config
