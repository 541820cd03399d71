"""Which planes belong to which stack, and where they were taken."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from autofocus.errors import DataError
from autofocus.training.stack_index import ZSource, index_stacks, read_index, write_index
from autofocus.training.z_positions import varying_number, z_by_pattern


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        tifffile.imwrite(folder / name, np.full((8, 8), number, np.uint16))


@pytest.mark.parametrize(
    ("stems", "z_um"),
    [
        (["S1_z-10", "S1_z+3", "S1_z3.5"], (-10.0, 3.0, 3.5)),
        (["z0um", "z2.5um"], (0.0, 2.5)),
        (["a_Z-1_ch0", "a_Z1_ch0"], (-1.0, 1.0)),
        (["z007", "z008"], None),  # numbered, not positioned
        (["fizz3", "fizz4"], None),
        (["z1", "plane"], None),
        (["z1_t1", "z1_t2"], None),
        (["z1a", "z2a"], None),
    ],
)
def test_z_in_names(stems: list[str], z_um: tuple[float, ...] | None) -> None:
    assert z_by_pattern(stems) == z_um


@pytest.mark.parametrize(
    ("stems", "numbers"),
    [
        (["251025Lbb_Sample5_1_AA", "251025Lbb_Sample5_17_AA"], (1, 17)),
        (["img_001", "img_002"], (1, 2)),
        (["t1_p1", "t2_p2"], None),
        (["a1", "b2"], None),
        (["a", "b"], None),
    ],
)
def test_the_one_number_that_varies(stems: list[str], numbers: tuple[int, ...] | None) -> None:
    assert varying_number(stems) == numbers


def test_planes_are_in_the_order_of_their_z_and_stacks_in_natural_order(tmp_path: Path) -> None:
    for name in ("S10", "S2"):
        touch(tmp_path / name, f"{name}_z10.tif", f"{name}_z-10.tif", f"{name}_z9.tif")
    stacks = index_stacks(tmp_path)
    assert [stack.name for stack in stacks] == ["S2", "S10"]
    assert stacks[0].z_um.tolist() == [-10, 9, 10]
    assert [p.path.name for p in stacks[0].planes] == ["S2_z-10.tif", "S2_z9.tif", "S2_z10.tif"]


def test_equal_base_names_in_two_folders_are_two_stacks(tmp_path: Path) -> None:
    for day in ("monday", "tuesday"):
        touch(tmp_path / day / "S001", "S001_z0.tif", "S001_z1.tif")
    stacks = index_stacks(tmp_path)
    assert [stack.name for stack in stacks] == ["monday/S001", "tuesday/S001"]
    assert len({plane.key for stack in stacks for plane in stack.planes}) == 4


def test_numbers_times_the_step_where_names_have_no_z(tmp_path: Path) -> None:
    touch(tmp_path / "s", *(f"251025Lbb_Sample5_{n}_AA.tif" for n in (1, 2, 10)))
    (stack,) = index_stacks(tmp_path, ZSource(step_um=0.5))
    assert stack.z_um.tolist() == [0.5, 1.0, 5.0]
    assert stack.z_from == "numbers"


def test_no_z_is_an_error_that_names_the_stack_and_says_what_to_do(tmp_path: Path) -> None:
    touch(tmp_path / "ok", "z0.tif", "z1.tif")
    touch(tmp_path / "mute", "Sample5_1_AA.tif", "Sample5_2_AA.tif")
    with pytest.raises(DataError, match=r"stack mute .*--z-pattern .*--z-step .*--z-csv"):
        index_stacks(tmp_path)
    (mute, _) = index_stacks(tmp_path, ZSource(required=False))
    assert [plane.z_um for plane in mute.planes] == [None, None]


def test_names_that_differ_in_two_numbers_need_more_than_a_step(tmp_path: Path) -> None:
    touch(tmp_path / "s", "p1_t17.tif", "p2_t31.tif")
    with pytest.raises(DataError, match="more than one number"):
        index_stacks(tmp_path, ZSource(step_um=1.0))


def test_a_step_that_contradicts_the_names_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "s", "z1.tif", "z2.tif", "z3.tif")
    with pytest.raises(DataError, match=r"1 um between planes, --z-step says 0\.5 um"):
        index_stacks(tmp_path, ZSource(step_um=0.5))
    (numbered,) = index_stacks(tmp_path, ZSource(pattern="", step_um=0.5))
    assert numbered.z_um.tolist() == [0.5, 1.0, 1.5]


def test_own_pattern_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    touch(tmp_path / "s", "007nm_z01.tif", "107nm_z02.tif")
    (stack,) = index_stacks(tmp_path, ZSource(pattern=r"(\d+)nm"))
    assert stack.z_um.tolist() == [7, 107]
    for wrong, says in ((r"z\d+", "0 groups"), ("z(", "not a regular"), ("(z)", "'z'")):
        with pytest.raises(DataError, match=says):
            index_stacks(tmp_path, ZSource(pattern=wrong))


def test_a_table_of_z_stands_before_names(tmp_path: Path) -> None:
    touch(tmp_path / "a b" / "größe µ", "z1.tif", "z2.tif")
    table = tmp_path / "z.csv"
    table.write_text(
        "image_path;z_um\nD:\\x\\a b\\größe µ\\z1.tif;-4\nD:\\x\\a b\\größe µ\\z2.tif;4.5\n",
        encoding="utf-8-sig",
    )
    (stack,) = index_stacks(tmp_path, ZSource(table=table))
    assert (stack.name, stack.z_um.tolist(), stack.z_from) == ("a b/größe µ", [-4, 4.5], "table")
    touch(tmp_path / "a b" / "größe µ", "z3.tif")
    with pytest.raises(DataError, match=r"not of z3\.tif"):
        index_stacks(tmp_path, ZSource(table=table))


def test_multi_page_files_are_stacks_with_the_z_of_their_metadata(tmp_path: Path) -> None:
    frames = np.zeros((5, 8, 8), np.uint16)
    tifffile.imwrite(
        tmp_path / "one.ome.tif", frames, metadata={"axes": "ZYX", "PhysicalSizeZ": 0.25}
    )
    tifffile.imwrite(tmp_path / "two.tif", frames)
    with pytest.raises(DataError, match=r"two\.tif"):
        index_stacks(tmp_path)
    two_step = ZSource(step_um=0.25)
    one, two = index_stacks(tmp_path, two_step)
    assert (one.z_from, two.z_from) == ("metadata", "numbers")
    assert one.z_um.tolist() == two.z_um.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert [plane.page for plane in two.planes] == [0, 1, 2, 3, 4]


def test_reads_what_it_wrote(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "S1", "z0.tif", "z1.5.tif")
    tifffile.imwrite(tmp_path / "x" / "m.tif", np.zeros((2, 8, 8), np.uint8))
    stacks = index_stacks(tmp_path / "x", ZSource(required=False))
    planes = tuple(plane for stack in stacks for plane in stack.planes)
    write_index(tmp_path / "images.csv", planes)
    assert read_index(tmp_path / "images.csv") == planes


def test_paths_of_windows_are_found_below_root(tmp_path: Path) -> None:
    for stack in ("S001", "S002"):
        touch(tmp_path / "here" / stack, "S_z-10.tif")
    table = tmp_path / "images.csv"
    table.write_text(
        "image_path\nD:\\C++workspace\\IQA\\S001\\S_z-10.tif\nD:\\C++workspace\\IQA\\S002\\S_z-10.tif\n",
        encoding="utf-8",
    )
    planes = read_index(table, root=tmp_path / "here")
    assert [plane.stack for plane in planes] == ["S001", "S002"]
    assert all(plane.path.is_file() for plane in planes)
    assert not any(plane.path.is_file() for plane in read_index(table))


def test_a_table_that_names_a_plane_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "S1", "z0.tif")
    table = tmp_path / "images.csv"
    with table.open("w", newline="") as file:
        paths = [str(tmp_path / "S1" / "z0.tif"), os.path.join("S1", "z0.tif")]  # noqa: PTH118
        csv.writer(file).writerows([["image_path"], *([path] for path in paths)])
    with pytest.raises(DataError, match="2 times"):
        read_index(table)


def test_pictures_beside_tiff_planes_and_hidden_files_are_no_planes(tmp_path: Path) -> None:
    touch(tmp_path / "S1", "z0.tif", "z1.TIFF", "._z2.tif")
    touch(tmp_path / ".trash", "z0.tif")
    (tmp_path / "S1" / "curve.png").write_bytes(b"any")
    (stack,) = index_stacks(tmp_path)
    assert [plane.path.name for plane in stack.planes] == ["z0.tif", "z1.TIFF"]
