"""Where a stack is in focus, and the labels of its planes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from lab_stacks import write_stack

from autofocus.errors import DataError
from autofocus.training.labels import (
    by_person,
    by_teachers,
    focus_score,
    write_scores,
    zero_in_names,
)
from autofocus.training.stack_index import ZSource, index_stacks
from models.classical import MEASURES

Z_UM = tuple(range(-6, 7))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("lab")
    for number in (1, 2):
        write_stack(top / f"S{number:03d}", Z_UM, seed=number, in_focus_um=number)
    return top


def test_the_label_is_one_in_focus_and_half_at_sigma() -> None:
    scores = focus_score([3.0, 5.0, -1.0], z_in_focus_um=3.0, sigma_um=2.0)
    assert scores.tolist() == [1.0, 0.5, 0.2]


def test_zero_of_the_names_is_in_focus_unless_z_is_only_a_count(tmp_path: Path, root: Path) -> None:
    assert zero_in_names(index_stacks(root)[0]).z_um == 0.0
    write_stack(tmp_path / "S1", range(3), seed=0, name="p{n}.tif")
    with pytest.raises(DataError, match=r"S1 comes from its numbers.*--in-focus.*--teacher"):
        zero_in_names(index_stacks(tmp_path, ZSource(step_um=1.0))[0])
    write_stack(tmp_path / "x" / "S2", (4, 5), seed=0)
    with pytest.raises(DataError, match="from 4 to 5 um"):
        zero_in_names(index_stacks(tmp_path / "x")[0])


def test_teachers_find_the_plane_in_focus_and_agree(root: Path) -> None:
    for stack, z_um in zip(index_stacks(root), (1.0, 2.0), strict=True):
        judged = by_teachers(stack, sigma_um=2.0)
        assert judged.z_um == z_um
        assert judged.agreement is not None
        assert judged.agreement >= 2 / 3
        assert len(judged.votes) >= 6 <= len(MEASURES)


def test_teachers_set_aside_what_they_cannot_tell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(9):
        folder = tmp_path / "empty"
        folder.mkdir(exist_ok=True)
        tifffile.imwrite(folder / f"z{n}.tif", rng.poisson(100, (64, 64)).astype(np.uint16))
    write_stack(tmp_path / "outside", Z_UM, seed=1, in_focus_um=9.0)
    write_stack(tmp_path / "short", (0, 1), seed=1)
    broken = write_stack(tmp_path / "torn", Z_UM, seed=1)[3]
    broken.write_bytes(broken.read_bytes()[:5000])
    judged = {j.stack: j for j in (by_teachers(s, sigma_um=2) for s in index_stacks(tmp_path))}
    assert {j.z_um for j in judged.values()} == {None}
    assert "disagree" in judged["empty"].reason
    assert "edge" in judged["outside"].reason
    assert "too few" in judged["short"].reason
    assert str(broken) in judged["torn"].reason


def test_a_person_chooses_by_z_or_by_file_and_the_rest_is_set_aside(
    tmp_path: Path, root: Path
) -> None:
    stacks = index_stacks(root)
    labels = tmp_path / "labels.csv"
    labels.write_text("stack,z_um\nS002,1.5\n", encoding="utf-8")
    assert [j.z_um for j in by_person(stacks, labels, root=root)] == [None, 1.5]
    labels.write_text("image_path\nC:\\lab\\S001\\S001_z-3.tif\n", encoding="utf-8")
    assert [j.z_um for j in by_person(stacks, labels, root=root)] == [-3.0, None]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("stack,z_um\nS009,0\n", "no stack is called 'S009'"),
        ("stack,z_um\nS001,99\n", "99.0 is not within stack S001, -6 to 6 um"),
        ("stack,z_um\nS001,\n", "z_um = None"),
        ("stack,z_um\nS001,sharp\n", "'sharp' is not a number"),
        ("stack,z_um\nS001,0\nS001,1\n", "a second choice"),
        ("image_path\nS001/absent.tif\n", "no plane of these stacks"),
        ("stack,z_um\n", "no rows"),
    ],
)
def test_says_what_is_wrong_with_a_choice(
    tmp_path: Path, root: Path, table: str, says: str
) -> None:
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        by_person(index_stacks(root), tmp_path / "labels.csv", root=root)


def test_writes_the_labels_of_the_stacks_that_are_not_set_aside(tmp_path: Path, root: Path) -> None:
    stacks = index_stacks(root)
    (tmp_path / "labels.csv").write_text("stack,z_um\nS002,2\n", encoding="utf-8")
    judged = by_person(stacks, tmp_path / "labels.csv", root=root)
    assert write_scores(tmp_path / "scores.csv", stacks, judged, sigma_um=2.0) == len(Z_UM)
    rows = list(csv.DictReader((tmp_path / "scores.csv").open(encoding="utf-8")))
    assert list(rows[0])[:3] == ["image_path", "z_um", "focus_score"]
    by_z = {float(row["z_um"]): float(row["focus_score"]) for row in rows}
    assert by_z == {z: 1 / (1 + ((z - 2) / 2) ** 2) for z in Z_UM}
    with pytest.raises(DataError, match="every stack is set aside"):
        write_scores(tmp_path / "scores.csv", stacks[:1], judged, sigma_um=2.0)
