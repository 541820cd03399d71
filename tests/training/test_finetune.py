"""A network of a lab's own: trained, killed and resumed, used by a rig, refused when changed."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
import torchvision
from lab_stacks import OBJECTIVE, write_stack

from autofocus.cli import main
from autofocus.config import builtin_configs
from autofocus.errors import DataError
from autofocus.training.finetune import Recipe, finetune, loss_of, splits_of
from autofocus.training.finetune_frames import PatchRows, prepare
from autofocus.training.stack_index import read_index
from autofocus.training.training_rows import LabelledPlanes, label_planes
from models.backbones import pretrained
from models.errors import CheckpointError
from models.finetuned import PatchSettings
from models.frame import noise_sigma
from models.registry import Registry, builtin_folder

Z_UM = range(-6, 7, 2)
PATCHES = PatchSettings(patch_size=64, patches=4, top_patches=2)
OPTICS = ("--na", "0.4", "--pixel-um", "0.325", "--wavelength-um", "0.53")
SMALL = ("--patch-size", 64, "--top-patches", 2, "--steps", 4, "--check-every", 2, "--folds", 2)


@pytest.fixture
def autofocus(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run a command in this process: (exit code, stdout, stderr)."""
    signals = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["autofocus", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code, *capfd.readouterr()

    yield run
    for each, handler in signals.items():
        signal.signal(each, handler)


def command(lab: Path, out: Path) -> list[str]:
    tables = ("--images", lab / "i.csv", "--scores", lab / "s.csv", "-o", out)
    return ["finetune", *map(str, (*tables, *OPTICS, *SMALL))]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four stacks, indexed and labelled."""
    folder = tmp_path_factory.mktemp("lab")
    for seed in range(1, 5):
        write_stack(folder / "stacks" / f"S{seed:03d}", Z_UM, seed=seed)
    for what, table in (("index", "i.csv"), ("label", "s.csv")):
        _run("data", what, folder / "stacks", "-o", folder / table)
    return folder


@pytest.fixture(scope="module")
def trained(lab: Path) -> Path:
    """What `autofocus finetune` wrote, not interrupted."""
    _run(*command(lab, lab / "mine"))
    return lab / "mine"


def _run(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["autofocus", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code == 0


@pytest.fixture
def rig_file(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """The simulated microscope with the network as its scorer."""
    shutil.copytree(trained, tmp_path / "models" / "finetuned" / "mine")
    text = (builtin_configs() / "simulated.toml").read_text(encoding="utf-8")
    cfg = (builtin_configs() / "simulated.cfg").as_posix()
    text = text.replace('"simulated.cfg"', json.dumps(cfg))
    path = tmp_path / "rig.toml"
    path.write_text(f'scorer = "mine"\nmodels_dir = "models"\nruns_dir = "runs"\n{text}', "utf-8")
    return path


def log_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "training.csv").open(newline="", encoding="utf-8") as source:
        return list(csv.DictReader(source))


def test_trains_once_a_fold_and_once_to_keep_and_reports_on_every_stack(trained: Path) -> None:
    assert not (trained / "checkpoint.pt").exists()
    rows = log_of(trained)
    assert {row["training"] for row in rows} == {"0", "1", "2"}
    assert [row["step"] for row in rows if row["training"] == "0"] == ["2", "4"]
    report = json.loads((trained / "report.json").read_text(encoding="utf-8"))
    assert [each["stack"] for each in report["per_stack"]] == ["S001", "S002", "S003", "S004"]
    assert report["began_with"] == "random weights"
    assert report["recipe"]["train_last"] == 5
    assert (trained / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "| S004 |" in (trained / "report.md").read_text(encoding="utf-8")
    manifest = json.loads((trained / "manifest.json").read_text(encoding="utf-8"))["settings"]
    assert (manifest["pixel_size_um"], manifest["dof_um"]) == (0.325, pytest.approx(4.125))
    assert (manifest["label"]["sigma"], manifest["label"]["unit"]) == (2.0, "um")


def test_a_killed_run_goes_on_and_ends_in_the_same_network(
    autofocus, lab: Path, trained: Path
) -> None:
    out = lab / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "autofocus", *command(lab, out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    while not (out / "training.csv").is_file() and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    assert process.wait() != 0
    before = log_of(out)
    assert not (out / "manifest.json").exists()

    other = command(lab, out)
    other[other.index("4")] = "8"
    code, _, err = autofocus(*other)
    assert code == 2
    assert "--fresh" in err

    assert autofocus(*command(lab, out))[0] == 0
    after = log_of(out)
    assert [{**row, "seconds": 0} for row in after] == [
        {**row, "seconds": 0} for row in log_of(trained)
    ]
    assert after[: len(before)] == before
    assert (out / "weights.safetensors").read_bytes() == (
        trained / "weights.safetensors"
    ).read_bytes()


def test_a_rig_focuses_with_it(autofocus, rig_file: Path) -> None:
    code, out, _ = autofocus(
        "focus", "--config", rig_file, "--range-um", 12, "--max-exposures", 12, "--json"
    )
    said = json.loads(out)
    assert code in (0, 1)
    assert said["scorer"] == "mine"
    assert said["head"].startswith("mobilenet_v3_small@")
    assert len(said["curve"]) >= 3
    assert all(0 < point["score"] < 1 for point in said["curve"])


def test_is_listed_shown_verified_and_scores_files(autofocus, rig_file: Path, lab: Path) -> None:
    config = ("--config", rig_file)
    (row,) = (
        line for line in autofocus("models", "list", *config)[1].splitlines() if "mine" in line
    )
    assert "default" in row
    shown = json.loads(autofocus("models", "show", "mine", *config)[1])
    assert shown["settings"]["backbone"] == "mobilenet_v3_small"
    assert shown["weights_sha256"] in autofocus("models", "verify", *config)[1]
    frame = lab / "stacks" / "S001" / "S001_z0.tif"
    code, out, _ = autofocus("score", frame, "--json", *config)
    assert code == 0
    scorer = Registry([builtin_folder(), rig_file.parent / "models"]).load_scorer("mine")
    image = tifffile.imread(frame)
    said = scorer.score(image)
    assert json.loads(out)["frames"][0]["score"] == said.score
    assert scorer.score(image, anchor=scorer.anchor(image)) == said
    assert (said.dark, said.saturated, scorer.absolute) == (False, False, False)
    assert scorer.score(image, sampling=1.2).out_of_distribution
    assert scorer.score(np.full_like(image, 100)).dark
    assert scorer.score(np.minimum(image, 30), bit_depth=4).saturated


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("weights", "SHA-256"),
        ("patch", "patch_size"),
        ("header", "SHA-256"),
        ("older", "trained anew"),
    ],
)
def test_is_refused_after_any_change(autofocus, rig_file: Path, change: str, says: str) -> None:
    folder = rig_file.parent / "models" / "finetuned" / "mine"
    if change == "patch":
        path = folder / "manifest.json"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"patch_size": 64', '"patch_size": 96', 1), encoding="utf-8")
    elif change == "older":
        path = folder / "manifest.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        del values["settings"]["patches"]["border_px"]
        path.write_text(json.dumps(values), encoding="utf-8")
    else:
        path = folder / "weights.safetensors"
        content = bytearray(path.read_bytes())
        content[-9 if change == "weights" else 20] ^= 1
        path.write_bytes(content)
    for arguments in (["models", "verify", "mine"], ["score", __file__], ["focus"]):
        code, out, err = autofocus(*arguments, "--config", rig_file)
        assert (code, out) == (2, "")
        assert says in err
        assert "Traceback" not in err


def test_a_network_learns_the_order_of_planes_it_has_not_seen(tmp_path: Path) -> None:
    """Stripes whose contrast is the label."""
    rng = np.random.default_rng(0)
    scores = np.tile(np.linspace(0.05, 1, 8), 4)
    wave = 0.5 + 0.5 * np.sin(np.arange(32))[:, None] * np.ones(32)
    noise = rng.normal(0, 0.1, (32, 2, 32, 32))
    patches = np.clip(0.5 + scores[:, None, None, None] * (wave - 0.5) + noise, 0, 1)
    rows = PatchRows(
        patches.astype(np.float16), scores, np.repeat(list("abcd"), 8), np.zeros(32, bool)
    )
    recipe = Recipe("mobilenet_v3_small", steps=60, check_every=20, folds=0)
    found = finetune(rows, recipe, tmp_path)
    known = ~np.isnan(found.logits)
    assert known.sum() == 8
    assert np.corrcoef(found.logits[known], scores[known])[0, 1] > 0.8


def test_only_the_last_stages_learn_when_asked(tmp_path: Path) -> None:
    torch.manual_seed(1)
    rows = PatchRows(
        np.random.default_rng(0).random((12, 1, 32, 32)).astype(np.float16),
        np.tile([0.1, 0.5, 0.9], 4),
        np.repeat(list("abcd"), 3),
        np.zeros(12, bool),
    )
    file = tmp_path / "weights.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), file)
    before = pretrained("resnet18", file).state_dict()
    recipe = Recipe("resnet18", train_last=1, steps=2, check_every=2, folds=0)
    after = finetune(rows, recipe, tmp_path, weights=file).network.state_dict()
    changed = {name.split(".")[1] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"4", "weight", "bias"}


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small"])
def test_torchvision_weights_see_grey_as_equal_colours(tmp_path: Path, backbone: str) -> None:
    source = getattr(torchvision.models, backbone)(weights=None).eval()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    network = pretrained(backbone, tmp_path / "w.pth").eval()
    x = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        source.fc, source.classifier = torch.nn.Identity(), torch.nn.Identity()
        wanted = source(((x - 0.449) / 0.226).expand(-1, 3, -1, -1))
        torch.testing.assert_close(network(x)[:, 1:], wanted, rtol=1e-4, atol=1e-4)


def test_weights_of_another_network_or_with_code_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), file)
    with pytest.raises(CheckpointError, match="does not fit torchvision's mobilenet_v3_small"):
        pretrained("mobilenet_v3_small", file)
    file.write_bytes(pickle.dumps(_Code(), protocol=2))
    with pytest.raises(CheckpointError, match="could execute code"):
        pretrained("resnet18", file)


class _Code:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(("stacks", "folds"), [(12, 4), (5, 4), (3, 4), (4, 0), (2, 0)])
def test_no_stack_has_two_roles_and_each_is_left_out_once(stacks: int, folds: int) -> None:
    names = [f"S{n:02d}" for n in range(stacks)]
    *checks, kept = splits_of(names, Recipe(folds=folds))
    assert sorted(name for split in checks for name in split.test) == (names if folds else [])
    assert kept.test == ()
    for split in (*checks, kept):
        assert sorted((*split.test, *split.stop, *split.train)) == names
        assert split.stop
        assert split.train


def test_too_few_stacks_are_refused() -> None:
    with pytest.raises(DataError, match="--folds 0"):
        splits_of(["a", "b"], Recipe(folds=4))


def test_the_loss_is_least_for_the_labels_and_ranks_within_a_group_only() -> None:
    scores, together = torch.tensor([0.9, 0.1, 0.5]), torch.tensor([0, 0, 1])
    right = torch.logit(scores)
    assert float(loss_of(right, scores, together, ranking=0.0)) == pytest.approx(0, abs=1e-6)
    swapped = right[[1, 0, 2]]
    ranking = [
        float(loss_of(x, scores, together, ranking=1.0) - loss_of(x, scores, together, ranking=0.0))
        for x in (right, swapped)
    ]
    assert ranking[0] < 0.1 < 2 < ranking[1]
    moved = right + torch.tensor([0.0, 0.0, 5.0])
    apart = [loss_of(x, scores, together, ranking=r) for x in (right, moved) for r in (0.0, 1.0)]
    assert float(apart[1] - apart[0]) == pytest.approx(float(apart[3] - apart[2]))


@pytest.fixture(scope="module")
def labelled(lab: Path) -> LabelledPlanes:
    return label_planes(read_index(lab / "i.csv"), lab / "s.csv")


def test_blurred_planes_lose_detail_with_distance_and_keep_the_noise(
    labelled: LabelledPlanes,
) -> None:
    kept, rows, skipped = prepare(labelled, PATCHES, OBJECTIVE, blur=True, seed=0)
    assert (len(kept), len(rows), skipped) == (28, 28 + 4 * 12, ())
    assert rows.patches.dtype == np.float16
    _, plain, _ = prepare(labelled, PATCHES, OBJECTIVE, blur=False, seed=0)
    assert np.array_equal(plain.patches, rows.patches[:28])
    for kind in (rows.blurred, ~rows.blurred):
        own = kind & (rows.stacks == "S001")
        detail = [detail_of(patch) for patch in rows.patches[own][:, 0]]
        assert np.corrcoef(detail, rows.scores[own])[0, 1] > 0.6
    made, recorded = (
        np.median([noise_sigma(p.astype(np.float32)) for p in rows.patches[kind][:, 0]])
        for kind in (rows.blurred, ~rows.blurred)
    )
    assert 0.5 < made / recorded < 1.5


def detail_of(patch: np.ndarray) -> float:
    smooth = cv2.GaussianBlur(patch.astype(np.float32), (0, 0), 1.0)
    return float(cv2.Laplacian(smooth, cv2.CV_32F).std() / smooth.std())


def test_labels_beyond_0_to_1_are_refused(labelled: LabelledPlanes) -> None:
    with pytest.raises(DataError, match=r"within 0\.\.1"):
        prepare(
            replace(labelled, scores=2 * labelled.scores), PATCHES, OBJECTIVE, blur=False, seed=0
        )


def test_a_broken_plane_is_named_left_out_and_ends_with_1(
    autofocus, lab: Path, tmp_path: Path
) -> None:
    shutil.copytree(lab / "stacks", tmp_path / "stacks")
    for what, table in (("index", "i.csv"), ("label", "s.csv")):
        autofocus("data", what, tmp_path / "stacks", "-o", tmp_path / table)
    torn = tmp_path / "stacks" / "S002" / "S002_z2.tif"
    torn.write_bytes(torn.read_bytes()[:3000])
    code, out, err = autofocus(
        *command(tmp_path, tmp_path / "net"), "--folds", 0, "--steps", 1, "--synthetic", 0
    )
    assert code == 1
    assert "27 frames of 4 stacks" in out
    assert "which flatters" in out
    assert str(torn) in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "tenengrad"], "cannot be the name"),
        (["-o", "net", "--na", "1.2"], "below immersion_index"),
        (["-o", "net", "--weights", "absent.pth"], "absent.pth"),
    ],
)
def test_says_what_is_wrong_and_ends_with_2(
    autofocus, lab: Path, tmp_path: Path, monkeypatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = autofocus(*command(lab, tmp_path / "net"), *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err
