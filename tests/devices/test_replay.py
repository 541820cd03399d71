"""Recorded z-stacks: reading them, and replaying them through a real core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from devices.errors import DeviceConfigError
from devices.micromanager import load_core, release
from devices.replay import write_config
from devices.replay.stack import load_stack, plane_positions

IRREGULAR_UM = (-3.5, -1.0, 0.0, 0.25, 4.0)


def planes(count: int = 5, dtype: type = np.uint16) -> np.ndarray:
    """Planes that tell their number: plane i is a ramp plus 20 i."""
    ramp = np.arange(12 * 16).reshape(12, 16) % 100
    return np.stack([ramp + 20 * i for i in range(count)]).astype(dtype)


def write_tiff(path: Path, values: np.ndarray, **metadata: object) -> Path:
    tifffile.imwrite(path, values, photometric="minisblack", **metadata)
    return path


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Any]:
    cores = []

    def open_core(config: Path) -> Any:
        cores.append(load_core(config))
        return cores[-1]

    yield open_core
    for core in cores:
        release(core)


def test_reads_a_multipage_tiff(tmp_path: Path) -> None:
    stack = load_stack(write_tiff(tmp_path / "s.tif", planes()))
    assert np.array_equal(stack.planes, planes())
    assert stack.planes.dtype == np.uint16
    assert stack.z_um is None


@pytest.mark.parametrize("unit", ["µm", "nm"])
def test_reads_plane_positions_of_an_ome_tiff(tmp_path: Path, unit: str) -> None:
    scale = {"µm": 1, "nm": 1000}[unit]
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeZ": 9.0,
        "Plane": {
            "PositionZ": [z * scale for z in IRREGULAR_UM],
            "PositionZUnit": [unit] * len(IRREGULAR_UM),
        },
    }
    path = write_tiff(tmp_path / "s.ome.tif", planes(), ome=True, metadata=metadata)
    stack = load_stack(path)
    assert stack.z_um == pytest.approx(IRREGULAR_UM)
    assert np.array_equal(stack.planes, planes())


def test_reads_the_physical_step_of_an_ome_tiff(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeZ": 500.0, "PhysicalSizeZUnit": "nm"}
    path = write_tiff(tmp_path / "s.ome.tif", planes(), ome=True, metadata=metadata)
    assert load_stack(path).z_um == pytest.approx((0, 0.5, 1, 1.5, 2))


def test_takes_the_first_channel_and_time_of_a_hyperstack(tmp_path: Path) -> None:
    values = np.zeros((2, 5, 3, 12, 16), np.uint16)
    values[0, :, 0] = planes()
    metadata = {"axes": "TZCYX", "PhysicalSizeZ": 0.3}
    path = write_tiff(tmp_path / "s.ome.tif", values, ome=True, metadata=metadata)
    stack = load_stack(path)
    assert np.array_equal(stack.planes, planes())
    assert stack.z_um == pytest.approx((0, 0.3, 0.6, 0.9, 1.2))


def test_reads_the_spacing_of_an_imagej_stack(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "spacing": 0.4, "unit": "um"}
    path = write_tiff(tmp_path / "s.tif", planes(), imagej=True, metadata=metadata)
    assert load_stack(path).z_um == pytest.approx((0, 0.4, 0.8, 1.2, 1.6))


def test_time_points_are_planes_when_there_is_no_z(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "s.tif", planes(), imagej=True, metadata={"axes": "TYX"})
    assert np.array_equal(load_stack(path).planes, planes())


@pytest.mark.parametrize("planar", [True, False])
def test_colour_becomes_the_mean(tmp_path: Path, planar: bool) -> None:
    grey = planes(3, np.uint8)
    axis = 1 if planar else -1
    colour = np.stack([grey, grey + 3, grey + 9], axis=axis)
    config = "separate" if planar else "contig"
    tifffile.imwrite(tmp_path / "s.tif", colour, photometric="rgb", planarconfig=config)
    assert np.array_equal(load_stack(tmp_path / "s.tif").planes, grey + 4)


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for i, plane in enumerate(planes(12, np.uint8)):
        cv2.imwrite(str(tmp_path / f"plane {i + 1}.png"), plane)
    (tmp_path / "notes.txt").write_text("not an image", encoding="utf-8")
    stack = load_stack(tmp_path)
    assert np.array_equal(stack.planes, planes(12, np.uint8))
    assert stack.z_um is None


def test_a_training_folder_is_read_by_the_z_in_its_names(tmp_path: Path) -> None:
    for z_um, plane in zip((-10, -1, 0, 2, 11), planes(), strict=True):
        write_tiff(tmp_path / f"S001_z{z_um}.tif", plane)
    stack = load_stack(tmp_path)
    assert stack.z_um == (-10, -1, 0, 2, 11)
    assert np.array_equal(stack.planes, planes())


def test_names_padded_with_zeros_number_the_planes(tmp_path: Path) -> None:
    for i, plane in enumerate(planes()):
        write_tiff(tmp_path / f"well_z{i:03}.tif", plane)
    assert load_stack(tmp_path).z_um is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.uint8, np.uint8),
        (np.uint16, np.uint16),
        (np.int32, np.uint16),
        (np.float32, np.float32),
        (np.float64, np.float32),
    ],
)
def test_keeps_values_in_a_type_a_camera_delivers(tmp_path: Path, given: type, kept: type) -> None:
    stack = load_stack(write_tiff(tmp_path / "s.tif", planes(dtype=given)))
    assert stack.planes.dtype == kept
    assert np.array_equal(stack.planes, planes())


def broken(folder: Path) -> Path:
    (folder / "s.tif").write_bytes(b"II*\0 this is no image")
    return folder / "s.tif"


def cut_off(folder: Path) -> Path:
    path = write_tiff(folder / "s.tif", planes())
    path.write_bytes(path.read_bytes()[:700])
    return path


def broken_in_folder(folder: Path) -> Path:
    (folder / "1.png").write_bytes(b"no image")
    return folder


def mixed_sizes(folder: Path) -> Path:
    write_tiff(folder / "1.tif", planes()[0])
    write_tiff(folder / "2.tif", planes()[0][:, :8])
    return folder


def mixed_pages(folder: Path) -> Path:
    write_tiff(folder / "1.tif", planes())
    return folder


def not_finite(folder: Path) -> Path:
    values = planes(dtype=np.float32)
    values[1, 2, 3] = np.nan
    return write_tiff(folder / "s.tif", values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "missing.tif", "no z-stack at"),
        (lambda folder: folder, "holds no images"),
        (broken, "cannot be read as a TIFF"),
        (cut_off, "s.tif"),
        (broken_in_folder, "1.png is not an image"),
        (mixed_sizes, "8 x 12 px uint16, but 1.tif is 16 x 12 px"),
        (mixed_pages, "1.tif holds 5 planes"),
        (not_finite, "not finite"),
    ],
)
def test_says_what_is_wrong_with_a_stack(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(DeviceConfigError, match=message):
        load_stack(make(tmp_path))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give z_step_um"),
        ({"z_step_um": 1.0, "z_positions_um": IRREGULAR_UM}, "not both"),
        ({"z_positions_um": (1.0, 2.0)}, "2 z positions for 5 planes"),
        ({"z_positions_um": (0, 1, 2, 3, float("nan"))}, "finite"),
        ({"z_positions_um": (0, 1, 2, 3, 3)}, "share a z position"),
        ({"z_step_um": 0.0}, "share a z position"),
    ],
)
def test_says_what_is_wrong_with_positions(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    stack = load_stack(write_tiff(tmp_path / "s.tif", planes()))
    with pytest.raises(DeviceConfigError, match=message):
        plane_positions(stack, **given)


def test_given_positions_overrule_recorded_ones(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeZ": 9.0}
    path = write_tiff(tmp_path / "s.ome.tif", planes(), ome=True, metadata=metadata)
    stack = load_stack(path)
    assert plane_positions(stack) == (0, 9, 18, 27, 36)
    assert plane_positions(stack, z_step_um=-0.5) == (0, -0.5, -1, -1.5, -2)
    assert plane_positions(stack, z_positions_um=IRREGULAR_UM) == IRREGULAR_UM


def snap(core: Any) -> np.ndarray:
    core.snapImage()
    return core.getImage()


def test_replays_an_irregular_stack_plane_by_plane(tmp_path: Path, opened: Any) -> None:
    path = write_tiff(tmp_path / "a, comma & ünïcode.tif", planes())
    config = write_config(path, tmp_path / "out", z_positions_um=IRREGULAR_UM)
    core = opened(config)
    assert core.getProperty("Z", "Planes") == 5
    assert core.getPosition() == IRREGULAR_UM[0]
    for asked, index in ((-3.4, 0), (-1.2, 1), (0.1, 2), (0.13, 3), (2.0, 3), (2.2, 4), (5.8, 4)):
        core.setPosition(asked)
        assert core.getPosition() == IRREGULAR_UM[index]
        assert np.array_equal(snap(core), planes()[index])


def test_replays_an_even_stack_that_runs_downwards(tmp_path: Path, opened: Any) -> None:
    core = opened(write_config(write_tiff(tmp_path / "s.tif", planes()), tmp_path, z_step_um=-2.0))
    core.setPosition(-6.0)
    assert np.array_equal(snap(core), planes()[3])


def test_replays_an_ome_tiff_as_recorded(tmp_path: Path, opened: Any) -> None:
    metadata = {"axes": "ZYX", "Plane": {"PositionZ": list(IRREGULAR_UM)}}
    path = write_tiff(tmp_path / "s.ome.tif", planes(), ome=True, metadata=metadata)
    core = opened(write_config(path, tmp_path))
    core.setPosition(4.0)
    assert core.getPosition() == 4.0
    assert np.array_equal(snap(core), planes()[4])


@pytest.mark.parametrize("wrong", [-5.5, 6.2, float("nan"), float("inf")])
def test_refuses_positions_beyond_the_stack(tmp_path: Path, opened: Any, wrong: float) -> None:
    path = write_tiff(tmp_path / "s.tif", planes())
    core = opened(write_config(path, tmp_path, z_positions_um=IRREGULAR_UM))
    with pytest.raises(ValueError, match=r"outside the recorded stack, -3\.5\.\.4 um"):
        core.setPosition(wrong)
    assert core.getPosition() == IRREGULAR_UM[0]


def test_roi_and_binning_of_a_replay(tmp_path: Path, opened: Any) -> None:
    core = opened(write_config(write_tiff(tmp_path / "s.tif", planes()), tmp_path, z_step_um=1.0))
    core.setROI(2, 4, 8, 6)
    assert np.array_equal(snap(core), planes()[0, 4:10, 2:10])
    core.setProperty("Camera", "Binning", "2")
    assert core.getROI() == [0, 0, 8, 6]
    assert snap(core)[0, 0] == round(float(planes()[0, :2, :2].mean()))
    assert snap(core).dtype == np.uint16


def test_two_replays_in_one_process_do_not_share_a_stage(tmp_path: Path, opened: Any) -> None:
    path = write_tiff(tmp_path / "s.tif", planes())
    one, two = (opened(write_config(path, tmp_path / n, z_step_um=1.0)) for n in ("1", "2"))
    one.setPosition(3.0)
    assert two.getPosition() == 0.0


@pytest.mark.parametrize("separator", [" ", ";", "; "])
def test_positions_in_a_cfg_by_hand(tmp_path: Path, opened: Any, separator: str) -> None:
    config = write_config(write_tiff(tmp_path / "s.tif", planes()), tmp_path, z_step_um=1.0)
    by_hand = separator.join(map(str, IRREGULAR_UM))
    lines = config.read_text(encoding="utf-8").splitlines()
    lines = [f"#py Property,Z,ZPositions,{by_hand}" if "ZPos" in line else line for line in lines]
    config.write_text("\n".join(lines), encoding="utf-8")
    core = opened(config)
    core.setPosition(0.2)
    assert core.getPosition() == 0.25


def test_positions_from_a_file(tmp_path: Path, opened: Any) -> None:
    config = write_config(write_tiff(tmp_path / "s.tif", planes()), tmp_path, z_step_um=1.0)
    (tmp_path / "z.csv").write_text(",".join(map(str, IRREGULAR_UM)), encoding="utf-8")
    lines = config.read_text(encoding="utf-8").splitlines()
    named = f"#py Property,Z,ZPositions,{tmp_path / 'z.csv'}"
    lines = [named if "ZPos" in line else line for line in lines]
    config.write_text("\n".join(lines), encoding="utf-8")
    core = opened(config)
    core.setPosition(0.2)
    assert core.getPosition() == 0.25


def test_a_stack_that_vanished_names_the_stage(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "s.tif", planes())
    config = write_config(path, tmp_path / "out", z_step_um=1.0)
    path.unlink()
    with pytest.raises(DeviceConfigError, match="'Z'"):
        load_core(config)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kept", [0.02, 0.9])
def test_a_tiff_that_was_cut_short_is_refused_with_its_name(tmp_path, compression, kept):
    whole = tmp_path / "whole.tif"
    frames = np.random.default_rng(0).integers(0, 4000, (5, 64, 64)).astype(np.uint16)
    tifffile.imwrite(whole, frames, compression=compression)
    content = whole.read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(content[: int(kept * len(content))])

    with pytest.raises(DeviceConfigError, match=r"cut\.tif"):
        load_stack(cut)
