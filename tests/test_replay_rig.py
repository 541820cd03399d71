"""A recorded z-stack in the place of hardware."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from autofocus.config import Rig, load_rig
from autofocus.errors import RequestError
from autofocus.focus import FocusResult, run_focus
from autofocus.planning import FocusRequest
from autofocus.replay import replay_rig
from devices import DeviceConfigError, Microscope
from models.classical import ClassicalScorer

EVEN_UM = tuple(0.5 * i for i in range(25))
UNEVEN_UM = tuple(float(z) for z in np.cumsum([0, 3, 1, 2, 4, 1, 1, 2, 5, 3, 2, 4, 6, 3]))


def record(path: Path, z_um: tuple[float, ...], in_focus: int | None) -> Path:
    """Render beads that blur with distance from one plane, with camera noise, into a TIFF."""
    random = np.random.default_rng(7)
    beads = np.zeros((160, 160))
    if in_focus is not None:
        beads[tuple(random.integers(10, 150, size=(2, 40)))] = 60_000.0
    step_um = float(np.median(np.diff(z_um)))
    planes = []
    for z in z_um:
        defocus = 0.0 if in_focus is None else abs(z - z_um[in_focus]) / step_um
        light = gaussian_filter(beads, 1.0 + 0.6 * defocus)
        planes.append(random.poisson(light + 100.0) + random.normal(0.0, 2.0, light.shape))
    tifffile.imwrite(path, np.clip(planes, 0, 65535).astype(np.uint16), photometric="minisblack")
    return path


def focus(rig: Rig, start_um: float) -> FocusResult:
    with Microscope.open(rig.microscope) as microscope:
        microscope.move_to(start_um)
        return run_focus(
            rig, microscope, ClassicalScorer("tenengrad"), FocusRequest(), run_id="test"
        )


@pytest.mark.parametrize(("z_um", "in_focus"), [(EVEN_UM, 15), (EVEN_UM, 6), (UNEVEN_UM, 6)])
@pytest.mark.parametrize("start", [0, -1, 4])
def test_ends_on_the_plane_in_focus(
    tmp_path: Path, z_um: tuple[float, ...], in_focus: int, start: int
) -> None:
    stack = record(tmp_path / "stack.tif", z_um, in_focus)
    rig = replay_rig(load_rig(), stack, tmp_path, z_positions_um=z_um)

    result = focus(rig, z_um[start])

    assert result.locked, result.reason
    assert result.final_z_um == pytest.approx(z_um[in_focus])
    assert {point.z_um for point in result.curve} <= set(z_um)


def test_an_empty_field_is_not_locked(tmp_path: Path) -> None:
    stack = record(tmp_path / "stack.tif", EVEN_UM, None)
    rig = replay_rig(load_rig(), stack, tmp_path, z_step_um=0.5)

    result = focus(rig, EVEN_UM[4])

    assert not result.locked
    assert result.final_z_um == pytest.approx(EVEN_UM[4])


def test_the_depth_of_field_comes_from_the_stack_unless_the_rig_took_it(tmp_path: Path) -> None:
    stack = record(tmp_path / "stack.tif", EVEN_UM, 6)
    rig = load_rig()

    guessed = replay_rig(rig, stack, tmp_path, z_step_um=0.5)
    known = replay_rig(rig, stack, tmp_path, z_step_um=0.5, keep_optics=True)

    assert guessed.optics_for(None).depth_of_field_um() == pytest.approx(1.0)
    assert known.optics_for(None) == rig.optics_for(None)


def test_refuses_what_cannot_be_replayed(tmp_path: Path) -> None:
    stack = record(tmp_path / "stack.tif", EVEN_UM, 6)
    tifffile.imwrite(tmp_path / "single.tif", np.ones((20, 20), np.uint16))
    rig = load_rig()

    with pytest.raises(DeviceConfigError, match="does not tell the z"):
        replay_rig(rig, stack, tmp_path)
    with pytest.raises(DeviceConfigError, match="3 z positions for 25 planes"):
        replay_rig(rig, stack, tmp_path, z_positions_um=(0.0, 1.0, 2.0))
    with pytest.raises(DeviceConfigError, match="no z-stack"):
        replay_rig(rig, tmp_path / "none.tif", tmp_path, z_step_um=0.5)
    with pytest.raises(RequestError, match="single plane"):
        replay_rig(rig, tmp_path / "single.tif", tmp_path, z_step_um=0.5)
