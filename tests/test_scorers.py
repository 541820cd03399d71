"""Which head is in use where none is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autofocus.config import load_rig
from autofocus.errors import StorageError
from autofocus.scorers import ACTIVE_FILE, ActiveHead, scorers_of
from models.errors import HeadError
from models.registry import builtin_folder


def test_the_head_that_came_with_the_program_until_another_is_put(tmp_path: Path) -> None:
    active = ActiveHead(tmp_path / "models")
    assert (active.name, active.previous) == ("default", "default")

    active.put("mine")
    active.put("yours")
    active.put("yours")

    again = ActiveHead(tmp_path / "models")
    assert (again.name, again.previous) == ("yours", "mine")


def test_a_damaged_choice_is_an_error_and_not_the_default(tmp_path: Path) -> None:
    (tmp_path / ACTIVE_FILE).write_text("{", encoding="utf-8")
    scorers = scorers_of(replace(load_rig(), models_dir=tmp_path))

    with pytest.raises(HeadError, match="delete it"):
        scorers(None, None)
    assert scorers("tenengrad", None).name == "tenengrad"


def test_a_choice_that_is_gone_is_an_error_and_not_the_default(tmp_path: Path) -> None:
    ActiveHead(tmp_path).put("gone")

    with pytest.raises(HeadError, match="no head 'gone'"):
        scorers_of(replace(load_rig(), models_dir=tmp_path))(None, None)


def test_a_head_in_use_of_another_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    default = builtin_folder() / "compact" / "head"
    shutil.copytree(default, tmp_path / "compact" / "heads" / "old")
    manifest = tmp_path / "compact" / "heads" / "old" / "manifest.json"
    values = json.loads(manifest.read_text(encoding="utf-8"))
    del values["settings"]["border_px"]
    manifest.write_text(json.dumps(values), encoding="utf-8")
    ActiveHead(tmp_path).put("old")
    scorers = scorers_of(replace(load_rig(), models_dir=tmp_path))

    with pytest.raises(HeadError, match=r"border_px.*made anew.*delete .*active\.json"):
        scorers(None, None)
    (tmp_path / ACTIVE_FILE).unlink()
    assert scorers(None, None).name == "reiqa-compact"


def test_a_folder_that_cannot_be_written_keeps_the_head_in_use(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")

    with pytest.raises((StorageError, HeadError)):
        ActiveHead(tmp_path / "models").put("mine")
