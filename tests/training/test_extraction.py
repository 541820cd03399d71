"""Features of a lab's frames: which rows, what is left out, and never twice."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from lab_stacks import planes as frames
from lab_stacks import write_stack

from autofocus.errors import DataError
from autofocus.training.extraction import extract_features
from autofocus.training.feature_file import load_features, save_features
from autofocus.training.stack_index import Plane, ZSource, index_stacks, write_index
from autofocus.training.workers import Workers
from models.encoders import CompactEncoder
from models.engines import Engine
from models.reiqa import ExtractorSettings, ReIQA

SMALL = ExtractorSettings(patch_size=64, patches=4, top_k=0.5, values="log")


@pytest.fixture(scope="module")
def extractor() -> ReIQA:
    torch.manual_seed(0)
    return ReIQA(CompactEncoder(4), CompactEncoder(4), SMALL)


def indexed(root: Path) -> list[Plane]:
    stacks = index_stacks(root, ZSource(required=False))
    return [plane for stack in stacks for plane in stack.planes]


def test_rows_are_those_of_their_planes_though_base_names_are_equal(
    tmp_path: Path, extractor: ReIQA
) -> None:
    for seed, day in enumerate(("monday", "tuesday")):
        write_stack(tmp_path / day / "S001", (-1, 0, 1), seed=seed)
    planes = indexed(tmp_path)
    made = extract_features(extractor, planes, tmp_path / "cache").table
    assert made.planes == tuple(planes)
    for plane, row in zip(made.planes, made.features, strict=True):
        assert np.array_equal(row, extractor.features(tifffile.imread(plane.path)))
    save_features(tmp_path / "f.npz", made)
    read = load_features(tmp_path / "f.npz")
    assert np.array_equal(read.features, made.features)
    assert (read.planes, read.settings) == (made.planes, SMALL)
    assert read.content_sha256 == extractor.content_sha256


def test_two_processes_give_the_same_numbers(tmp_path: Path, extractor: ReIQA) -> None:
    write_stack(tmp_path / "S1", range(4), seed=0)
    planes = indexed(tmp_path)
    one = extract_features(extractor, planes, tmp_path / "one")
    two = extract_features(extractor, planes, tmp_path / "two", workers=Workers(jobs=2))
    np.testing.assert_allclose(one.table.features, two.table.features, atol=1e-5)


def test_broken_files_are_left_out_by_name_and_the_others_stay_in_place(
    tmp_path: Path, extractor: ReIQA
) -> None:
    files = write_stack(tmp_path / "S1", range(6), seed=0)
    planes = indexed(tmp_path)
    files[0].unlink()
    for file, compression in ((files[2], None), (files[3], "zlib")):
        tifffile.imwrite(file, tifffile.imread(file), compression=compression)
        file.write_bytes(file.read_bytes()[:3000])
    files[4].write_text("no image")
    made = extract_features(extractor, planes, tmp_path / "cache")
    assert [plane.path.name for plane in made.table.planes] == ["S1_z1.tif", "S1_z5.tif"]
    assert [each.plane.path for each in made.skipped] == [files[i] for i in (0, 2, 3, 4)]
    assert all(str(each.plane.path) in each.reason for each in made.skipped)
    assert np.array_equal(made.table.features[1], extractor.features(tifffile.imread(files[5])))
    with pytest.raises(DataError, match="none of 4 planes"):
        extract_features(extractor, [each.plane for each in made.skipped], tmp_path / "cache")


def test_colour_bytes_and_odd_names(tmp_path: Path, extractor: ReIQA) -> None:
    grey = (frames((0,), seed=1)[0] // 8).astype(np.uint8)
    folder = tmp_path / "Größe µm 样本"
    folder.mkdir()
    tifffile.imwrite(folder / "z0.tif", grey)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    tifffile.imwrite(folder / "z1.tif", colour, photometric="rgb")
    separate = np.moveaxis(colour, -1, 0)
    tifffile.imwrite(folder / "z2.tif", separate, photometric="rgb", planarconfig="separate")
    made = extract_features(extractor, indexed(tmp_path), tmp_path / "cache")
    assert made.skipped == ()
    assert {plane.stack for plane in made.table.planes} == {"Größe µm 样本"}
    for row in made.table.features:
        assert np.array_equal(row, extractor.features(grey))


def test_pages_of_a_file_are_planes(tmp_path: Path, extractor: ReIQA) -> None:
    stack = frames(range(5), seed=1)
    tifffile.imwrite(tmp_path / "m.tif", stack, photometric="minisblack")
    made = extract_features(extractor, indexed(tmp_path), tmp_path / "cache").table
    assert [plane.page for plane in made.planes] == list(range(5))
    assert np.array_equal(made.features[3], extractor.features(stack[3]))
    whole = [Plane(tmp_path / "m.tif", "m.tif")]
    with pytest.raises(DataError, match=r"holds 5 planes.*data index"):
        extract_features(extractor, whole, tmp_path / "cache")


def test_only_what_is_new_is_computed(tmp_path: Path, extractor: ReIQA) -> None:
    files = write_stack(tmp_path / "S1", range(4), seed=0)
    planes, cache = indexed(tmp_path), tmp_path / "cache"
    first = extract_features(extractor, planes, cache)
    assert first.from_cache == 0
    again = extract_features(extractor, planes, cache)
    assert again.from_cache == 4
    assert np.array_equal(first.table.features, again.table.features)

    tifffile.imwrite(files[1], frames((9,), seed=4)[0])
    changed = extract_features(extractor, planes, cache)
    assert changed.from_cache == 3
    assert not np.array_equal(changed.table.features[1], first.table.features[1])

    newest = max(cache.glob("*.npy"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(b"half of a file")
    assert extract_features(extractor, planes, cache).from_cache == 3
    other = ReIQA(CompactEncoder(4), CompactEncoder(4), SMALL)
    assert extract_features(other, planes, cache).from_cache == 0


def test_features_of_another_precision_are_computed_anew(tmp_path: Path) -> None:
    write_stack(tmp_path / "S1", range(2), seed=0)
    planes, cache = indexed(tmp_path), tmp_path / "cache"
    content, quality = CompactEncoder(4), CompactEncoder(4)
    for bfloat16 in (False, True):
        engine = Engine("torch", "to compare", bfloat16)
        made = extract_features(ReIQA(content, quality, SMALL, engine), planes, cache)
        assert made.from_cache == 0


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    write_stack(tmp_path / "S1", range(60), seed=0)
    write_index(tmp_path / "images.csv", indexed(tmp_path))
    command = [sys.executable, "-m", "autofocus", "features", "--images", tmp_path / "images.csv"]
    command += ["-o", tmp_path / "f.npz", "--patch-size", "64", "--patches", "4"]
    run = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    cache = tmp_path / "f.cache"
    deadline = time.monotonic() + 60
    while len(list(cache.glob("*.npy"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.002)
    run.kill()
    run.wait()
    done = len(list(cache.glob("*.npy")))
    assert 5 <= done < 60
    assert not (tmp_path / "f.npz").exists()
    said = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout
    assert f"of 60 planes ({done} from the cache)" in said


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 damaged"])
def test_a_file_of_features_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"f\.npz is no file of features"):
        load_features(tmp_path / "f.npz")


def test_features_of_others_without_paths_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", X=np.zeros((2, 3)), names=np.array(["a", "b"]))
    with pytest.raises(DataError, match="autofocus features"):
        load_features(tmp_path / "f.npz")
