"""What is found in a lab's images before anything is fitted on them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tifffile
from lab_stacks import planes as frames
from lab_stacks import write_stack
from PIL import Image

from autofocus.training.checks import Finding, check_stack, compare_stacks
from autofocus.training.stack_index import Plane, PlaneKey, index_stacks

Z_UM = range(-3, 4)


def found(root: Path, scores: Mapping[PlaneKey, float] | None = None) -> list[Finding]:
    checked = [
        check_stack(stack.name, stack.planes, scores or {}, bit_depth=12)
        for stack in index_stacks(root)
    ]
    return [*(f for each in checked for f in each.findings), *compare_stacks(checked)]


def test_good_stacks_of_different_fields_have_no_findings(tmp_path: Path) -> None:
    for seed in range(6):
        write_stack(tmp_path / f"S{seed}", Z_UM, seed=seed)
    assert found(tmp_path) == []


def test_mixed_sizes_and_types_copies_saturation_and_broken_files(tmp_path: Path) -> None:
    files = write_stack(tmp_path / "S1", Z_UM, seed=1)
    good = tifffile.imread(files[0])
    tifffile.imwrite(files[1], good[:64, :80])
    tifffile.imwrite(files[2], (good // 8).astype(np.uint8))
    files[3].write_bytes(b"")
    tifffile.imwrite(files[4], np.where(good > np.median(good), 4095, good))
    tifffile.imwrite(files[5], good)
    said = {finding.kind: finding.text for finding in found(tmp_path)}
    assert set(said) == {"sizes", "types", "unreadable", "saturated", "copies"}
    assert said["sizes"] == "mixed sizes: 5 of 96 x 96 px, 1 of 80 x 64 px"
    assert said["types"] == "mixed types: 5 of uint16, 1 of uint8"
    assert str(files[3]) in said["unreadable"]
    assert said["saturated"] == "1 of 7 planes are saturated, first S1_z1.tif"
    assert said["copies"] == "S1_z2.tif has the same pixels as S1_z-3.tif"


def test_missing_files_and_short_and_dark_stacks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "dark"
    folder.mkdir()
    for z in (0, 1):
        tifffile.imwrite(folder / f"z{z}.tif", rng.poisson(100, (96, 96)).astype(np.uint16))
    (stack,) = index_stacks(tmp_path)
    absent = Plane(tmp_path / "gone.tif", "dark")
    checked = check_stack("dark", [*stack.planes[:1], absent], {}, bit_depth=None)
    assert [finding.kind for finding in checked.findings] == ["missing", "few", "dark"]


@pytest.mark.parametrize(("sharpest", "kinds"), [(0, ["edge"]), (3, []), (6, ["edge"])])
def test_a_label_at_the_edge_is_found(tmp_path: Path, sharpest: int, kinds: list[str]) -> None:
    write_stack(tmp_path / "S1", Z_UM, seed=1)
    (stack,) = index_stacks(tmp_path)
    scores = {plane.key: -abs(n - sharpest) for n, plane in enumerate(stack.planes)}
    assert [finding.kind for finding in found(tmp_path, scores)] == kinds


def test_the_same_field_in_two_stacks_is_found(tmp_path: Path) -> None:
    write_stack(tmp_path / "S1", Z_UM, seed=1)
    write_stack(tmp_path / "S2", Z_UM, seed=2)
    again = tmp_path / "S1 again"
    again.mkdir()
    rng = np.random.default_rng(9)
    for z, frame in zip(Z_UM, frames(Z_UM, seed=1), strict=True):
        brighter = 1.7 * frame + rng.normal(0, 3, frame.shape)
        tifffile.imwrite(again / f"z{z}.tif", brighter.clip(0, 4000).astype(np.uint16))
    (finding,) = found(tmp_path)
    assert (finding.kind, finding.stack) == ("near-duplicates", "S1")
    assert "S1 again" in finding.text

    tifffile.imwrite(again / "z0.tif", tifffile.imread(tmp_path / "S1" / "S1_z1.tif"))
    (finding,) = found(tmp_path)
    assert finding.kind == "copies"
    assert "1 planes are the same as in S1 again: S1_z1.tif is z0.tif" in finding.text


def test_the_labelled_plane_is_framed_on_the_sheet(tmp_path: Path) -> None:
    write_stack(tmp_path / "S1", Z_UM, seed=1)
    (stack,) = index_stacks(tmp_path)
    plain = check_stack("S1", stack.planes, {}, bit_depth=12).sheet_png
    scores = {stack.planes[3].key: 1.0}
    marked = check_stack("S1", stack.planes, scores, bit_depth=12).sheet_png
    assert _green(marked) > 200 > _green(plain)


def _green(png: bytes) -> int:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return int(((pixels[..., 1] > 200) & (pixels[..., 0] < 80) & (pixels[..., 2] < 80)).sum())
