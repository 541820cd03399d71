"""From a lab's folder to its own head by command line: the whole way, and odd folders."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from lab_stacks import write_stack

from autofocus.cli import main
from models.checkpoints import BRANCHES
from models.registry import Registry, builtin_folder

Z_UM = range(-6, 7)
SMALL = ("--patch-size", "64")  # not fewer candidates: one patch a frame would be luck


@pytest.fixture
def autofocus(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run a command in this process: (exit code, stdout, stderr)."""
    on_terminate = signal.getsignal(signal.SIGTERM)
    on_interrupt = signal.getsignal(signal.SIGINT)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["autofocus", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code, *capfd.readouterr()

    yield run
    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGINT, on_interrupt)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days with equal base names, in a folder with a space and letters beyond ASCII."""
    top = tmp_path_factory.mktemp("lab") / "Ünsere Daten µ"
    for seed in range(4):
        write_stack(top / f"day {seed % 2}" / f"S00{seed // 2}", Z_UM, seed=5 * seed)
    return top


@pytest.fixture(scope="module")
def done(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the commands up to `train` have been run: f.npz, mine/, ..."""
    folder = tmp_path_factory.mktemp("done")
    images, scores, features = (folder / name for name in ("i.csv", "s.csv", "f.npz"))
    commands = (
        ("data", "index", lab, "-o", images),
        ("data", "label", lab, "-o", scores),
        ("features", "--images", images, "-o", features, *SMALL),
        ("train", "--features", features, "--scores", scores, "-o", folder / "mine",
         "--alpha", "100", "--dof-um", "4.1"),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for command in commands:
            patch.setattr(sys, "argv", ["autofocus", *map(str, command)])
            with pytest.raises(SystemExit) as exit_:
                main()
            assert exit_.value.code == 0
    return folder


@pytest.fixture
def trained(done: Path) -> Path:
    return done / "mine"


def test_the_whole_way_ends_in_a_head_that_the_service_loads(
    autofocus, trained: Path, tmp_path: Path
) -> None:
    report = json.loads((trained / "report.json").read_text(encoding="utf-8"))
    assert [each["stack"] for each in report["per_stack"]] == [
        "day 0/S000", "day 0/S001", "day 1/S000", "day 1/S001"
    ]  # fmt: skip
    assert report["leave_one_stack_out"]["srcc"]["median"] > 0.6
    assert "settings" not in report
    assert (trained / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "| day 1/S001 |" in (trained / "report.md").read_text(encoding="utf-8")

    new = tmp_path / "new" / "S012"
    write_stack(new, Z_UM, seed=10)
    png = tmp_path / "curve.png"
    code, out, _ = autofocus("predict", "--head", trained, "--stack", new, "--json", "--png", png)
    (said,) = json.loads(out)["stacks"]
    assert code == 0
    assert abs(said["best"]["z_um"]) <= 2
    assert not said["at_edge"]
    assert png.read_bytes().startswith(b"\x89PNG")

    models = tmp_path / "models"
    shutil.copytree(trained, models / "compact" / "heads" / "mine")
    scorer = Registry([builtin_folder(), models]).load_scorer("reiqa-compact", "mine")
    scored = scorer.score(tifffile.imread(said["best"]["path"]))
    assert scored.score == pytest.approx(said["best"]["score"], abs=1e-4)
    assert scorer.absolute


def test_predict_from_features_says_the_same_as_from_the_stack(
    autofocus, done: Path, trained: Path, lab: Path
) -> None:
    features = done / "f.npz"
    code, out, _ = autofocus("predict", "--head", trained, "--features", features)
    assert code == 0
    assert out.count("best plane: ") == 4
    by_file = json.loads(
        autofocus("predict", "--head", trained, "--features", features, "--json")[1]
    )["stacks"][2]
    (by_stack,) = json.loads(
        autofocus("predict", "--head", trained, "--stack", lab / "day 1" / "S000", "--json")[1]
    )["stacks"]
    assert by_file["stack"] == "day 1/S000"
    assert by_file["best"] == by_stack["best"]
    assert [plane["score"] for plane in by_file["planes"]] == pytest.approx(
        [plane["score"] for plane in by_stack["planes"]], abs=1e-5
    )


def test_encoders_may_be_two_files_and_a_head_belongs_to_those_it_was_fitted_on(
    autofocus, trained: Path, lab: Path
) -> None:
    content, quality = (builtin_folder() / "compact" / f"{b}.safetensors" for b in BRANCHES)
    stack = ("predict", "--head", trained, "--stack", lab / "day 1" / "S000")
    files = ("--content-ckpt", content, "--quality-ckpt", quality)
    assert autofocus(*stack, *files)[:2] == autofocus(*stack)[:2]
    swapped = ("--content-ckpt", quality, "--quality-ckpt", content)
    code, out, err = autofocus(*stack, *swapped)
    assert (code, out) == (2, "")
    assert "content_sha256" in err


def test_predict_of_names_without_z_says_so_and_that_the_peak_is_at_the_edge(
    autofocus, trained: Path, tmp_path: Path
) -> None:
    stack = tmp_path / "mute"
    write_stack(stack, range(7), seed=10, name="251025Lbb_Sample5_{n}_AA.tif")
    code, out, _ = autofocus("predict", "--head", trained, "--stack", stack)
    assert code == 0
    assert "z not known" in out
    assert "peak is at the edge: 251025Lbb_Sample5_1_AA.tif is the first of 7 planes" in out
    code, out, _ = autofocus("predict", "--head", trained, "--stack", stack, "--z-step", "0.5")
    assert "z = 0.5 um" in out


def test_a_broken_file_is_named_left_out_and_ends_with_1(
    autofocus, lab: Path, tmp_path: Path
) -> None:
    top = tmp_path / "copy"
    shutil.copytree(lab, top)
    images, features, scores = (tmp_path / name for name in ("i.csv", "f.npz", "s.csv"))
    autofocus("data", "index", top, "-o", images)
    autofocus("data", "label", top, "-o", scores)
    torn, gone = top / "day 0" / "S000" / "S000_z1.tif", top / "day 1" / "S000" / "S000_z1.tif"
    torn.write_bytes(torn.read_bytes()[:4000])
    gone.unlink()

    code, out, err = autofocus("features", "--images", images, "-o", features, *SMALL)
    assert code == 1
    assert "of 50 planes" in out
    assert str(torn) in err
    assert f"{gone} cannot be read" in err
    assert "Traceback" not in err

    code, out, _ = autofocus(
        "train", "--features", features, "--scores", scores, "-o", tmp_path / "h"
    )
    assert code == 0
    assert "2 labels have no features" in out

    code, out, _ = autofocus("data", "check", images, "--scores", scores, "--json")
    assert code == 1
    assert [finding["kind"] for finding in json.loads(out)] == ["unreadable", "missing"]

    teach = tmp_path / "t.csv"
    code, out, err = autofocus("data", "label", top, "-o", teach, "--teacher")
    assert code == 1
    assert "set aside, not labelled: day 0/S000" in err
    assert "agreement" in out
    labelled = {row["image_path"] for row in csv.DictReader(teach.open(encoding="utf-8"))}
    assert not any("day 0/S000" in Path(path).as_posix() for path in labelled)


def test_windows_paths_go_the_whole_way(autofocus, lab: Path, tmp_path: Path) -> None:
    images, scores = tmp_path / "i.csv", tmp_path / "s.csv"
    files = [file.relative_to(lab) for file in sorted(lab.rglob("*.tif"))]
    windows = ["D:\\C++workspace\\IQA\\" + "\\".join(file.parts) for file in files]
    images.write_text("\n".join(["image_path", *windows]), encoding="utf-8")
    labelled = [
        f"{path},{z},{1 / (1 + (z / 2) ** 2)}"
        for path, z in ((p, float(p.rpartition("_z")[2][:-4])) for p in windows)
    ]
    scores.write_text("\n".join(["image_path,z_um,focus_score", *labelled]), encoding="utf-8")
    features = tmp_path / "f.npz"
    shared = ("--root", lab)
    assert autofocus("features", "--images", images, "-o", features, *SMALL, *shared)[0] == 0
    code, out, _ = autofocus(
        "train", "--features", features, "--scores", scores, "-o", tmp_path / "h", *shared
    )
    assert code == 0
    assert "52 frames of 4 stacks" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data", "index", "absent", "-o", "x.csv"], "there is no"),
        (["data", "index", "{mute}", "-o", "x.csv"], "the z of stack . (p1.tif, p2.tif, ...)"),
        (["data", "label", "{mute}", "-o", "x.csv", "--z-step", "1"], "--in-focus"),
        (["data", "label", "{mute}", "-o", "x.csv", "--teacher", "--in-focus", "y"], "either"),
        (["data", "check", "{good}", "-o", "mute/sheets"], "among the images"),
        (["features", "--images", "absent.csv", "-o", "f.npz"], "absent.csv"),
        (["features", "--images", "{csv}", "-o", "f.npz"], "none of 1 planes"),
        (["features", "--images", "{csv}", "-o", "f.npz", "--patch-size", "50"], "multiple of 64"),
        (["features", "--images", "{csv}", "-o", "f", "--content-ckpt", "a.pth"], "both files"),
        (["train", "--features", "{csv}", "--scores", "s.csv", "-o", "h"], "no file of features"),
        (["predict", "--head", "absent", "--stack", "{mute}"], "no head in absent"),
        (["predict", "--head", "absent"], "give one of the two"),
    ],
)
def test_says_what_is_wrong_and_ends_with_2(
    autofocus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mute").mkdir()
    for n in (1, 2):
        tifffile.imwrite(f"mute/p{n}.tif", np.zeros((8, 8), np.uint8))
    Path("i.csv").write_text("image_path\ngone.tif\n", encoding="utf-8")
    Path("good.csv").write_text("image_path\nmute/p1.tif\n", encoding="utf-8")
    places = {"{mute}": "mute", "{csv}": "i.csv", "{good}": "good.csv"}
    code, out, err = autofocus(*(places.get(each, each) for each in arguments))
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err
