"""``autofocus score`` and ``autofocus models``: what they print and their exit codes."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from autofocus.cli import main
from autofocus.config import load_rig
from autofocus.scorers import registry_of
from models.checkpoints import load_encoders
from models.classical import DEFAULT_MEASURE, MEASURES
from models.encoders import resnet50_encoder, weights_sha256

sys.path.insert(0, str(Path(__file__).parent / "service"))
from compact_models import frame, install

STACK = np.stack([frame(blur_px=d, seed=i) for i, d in enumerate((3.0, 0.0, 2.0))])


@pytest.fixture
def autofocus(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run a command in this process: (exit code, stdout, stderr)."""
    on_terminate = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["autofocus", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code, *capfd.readouterr()

    yield run
    signal.signal(signal.SIGTERM, on_terminate)


@pytest.fixture
def rig_file(tmp_path: Path) -> Iterator[Path]:
    """A rig whose models folder is its own; large files are removed afterwards."""
    (tmp_path / "demo.cfg").touch()
    path = tmp_path / "rig.toml"
    path.write_text(
        'scorer = "reiqa-compact"\nmodels_dir = "models"\nruns_dir = "runs"\n'
        '[microscope]\nconfig = "demo.cfg"\nz_min_um = 0\nz_max_um = 1\nsimulated = true\n'
        "[optics]\nna = 0.5\npixel_size_um = 0.5\n",
        encoding="utf-8",
    )
    yield path
    for file in [*tmp_path.rglob("*.safetensors"), *tmp_path.rglob("*.pth")]:
        file.unlink()


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    install(folder)
    return folder


@pytest.fixture
def installed(rig_file: Path, compact: Path) -> Path:
    shutil.copytree(compact, rig_file.parent / "models")
    return rig_file


def test_scores_a_stack_as_the_scorer_does(autofocus, installed: Path) -> None:
    path = installed.parent / "stack.ome.tif"
    tifffile.imwrite(path, STACK, metadata={"axes": "ZYX", "PhysicalSizeZ": 0.5})

    code, out, err = autofocus("score", path, "--json", "--config", installed)

    scorer = registry_of(load_rig(installed)).load_scorer("reiqa-compact")
    expected = [scorer.score(plane) for plane in STACK]
    said = json.loads(out)
    assert (code, err) == (0, "")
    assert (said["scorer"], said["head"]) == ("reiqa-compact", scorer.head)
    assert said["referee"] == scorer.watched_by
    assert [f["z_um"] for f in said["frames"]] == [0.0, 0.5, 1.0]
    for name in ("score", "referee", "defocus_dof", "dark", "out_of_distribution", "fingerprint"):
        assert [f[name] for f in said["frames"]] == [getattr(e, name) for e in expected]
    assert said["best"] == int(np.argmax([e.score for e in expected]))


def test_marks_the_best_plane_of_all_files_in_a_table(autofocus, installed: Path) -> None:
    blurred, sharp = installed.parent / "blurred.tif", installed.parent / "sharp.png"
    tifffile.imwrite(blurred, STACK[0])
    Image.fromarray(STACK[1]).save(sharp)

    code, out, _ = autofocus(
        "score", blurred, sharp, "--scorer", "tenengrad", "--config", installed
    )

    assert code == 0
    (best,) = (line for line in out.splitlines() if "best" in line)
    assert "sharp.png" in best
    assert "tenengrad, head none" in out


def test_says_that_a_frame_is_dark_or_saturated(autofocus, installed: Path) -> None:
    path = installed.parent / "dark.tif"
    tifffile.imwrite(path, np.stack([np.full_like(STACK[0], 100), np.minimum(STACK[0], 255) << 8]))

    code, out, _ = autofocus("score", path, "--bit-depth", "12", "--config", installed)

    assert code == 0
    assert "dark" in out
    assert "saturated" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["score", "absent.tif"], "absent.tif"),
        (["score", __file__], "cannot be read"),
        (["score", __file__, "--scorer", "clairvoyance"], "clairvoyance"),
        (["score", __file__, "--head", "absent"], "default"),
        (["models", "show", "clairvoyance"], "clairvoyance"),
        (["models", "verify", "reiqa-published"], "import"),
        (["models", "import", "absent.pth", "other.pth"], "docs/models.md"),
        (["models", "import", __file__, __file__], "could execute code: Unsupported"),
        (["models", "import", "quality_aware_r50.pth", "content_aware_r50.pth"], "first"),
        (["models", "list", "--config", "absent.toml"], "absent.toml"),
    ],
)
def test_says_what_is_wrong_and_ends_with_2(
    autofocus, installed: Path, arguments: list[str], says: str
) -> None:
    config = [] if "--config" in arguments else ["--config", installed]

    code, out, err = autofocus(*arguments, *config)

    assert code == 2
    assert out == ""
    assert says in err
    assert "Traceback" not in err


def test_lists_scorers_and_marks_the_default(autofocus, installed: Path) -> None:
    code, out, _ = autofocus("models", "list", "--config", installed)

    assert code == 0
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith("│")}
    assert set(rows) >= {"reiqa-compact", *MEASURES}
    assert [name for name, row in rows.items() if " default " in row.partition("│ ")[2][:40]] == [
        "reiqa-compact"
    ]
    assert str(installed.parent / "models") in out


def test_shows_manifests_as_json(autofocus, installed: Path) -> None:
    code, out, _ = autofocus("models", "show", "reiqa-compact", "--config", installed)

    shown = json.loads(out)
    assert code == 0
    assert shown["encoders"]["facts"] == {"weights": "random"}
    assert shown["heads"]["default"]["label"]["unit"] == "depth of field"


def test_verifies_every_learned_scorer(autofocus, installed: Path) -> None:
    code, out, _ = autofocus("models", "verify", "--config", installed)

    shown = registry_of(load_rig(installed)).show("reiqa-compact")
    assert code == 0
    assert shown["encoders"]["quality_sha256"] in out
    assert shown["heads"]["default"]["head_sha256"] in out


@pytest.mark.parametrize("file", ["content.safetensors", "head/head.joblib"])
def test_verify_ends_with_2_after_one_changed_byte(autofocus, installed: Path, file: str) -> None:
    path = installed.parent / "models" / "compact" / file
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)

    for command in (["models", "verify"], ["score", __file__]):
        code, _, err = autofocus(*command, "--config", installed)
        assert code == 2
        assert "SHA-256" in err


def test_classical_measures_have_nothing_to_verify(autofocus, installed: Path) -> None:
    code, out, _ = autofocus("models", "verify", DEFAULT_MEASURE, "--config", installed)
    assert (code, out) == (0, f"{DEFAULT_MEASURE}: has no files\n")


def test_imports_the_two_published_files(autofocus, rig_file: Path) -> None:
    folder = rig_file.parent
    encoders = {}
    for seed, name in enumerate(("content_aware_r50.pth", "quality_aware_r50.pth")):
        torch.manual_seed(seed)
        encoders[name] = resnet50_encoder()
        state = {f"module.encoder.{k}": v for k, v in encoders[name].state_dict().items()}
        torch.save({"model": state, "epoch": 200}, folder / name)

    code, out, err = autofocus(
        "models", "import", *(folder / name for name in encoders), "--config", rig_file
    )

    assert (code, err) == (0, "")
    pair = load_encoders(folder / "models" / "published")
    for branch, (name, encoder) in zip(("content", "quality"), encoders.items(), strict=True):
        assert weights_sha256(encoder) in out
        source = pair.manifest.facts[f"{branch}_source"]
        sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert source == {"file": name, "sha256": sha256}
    assert "has no head yet" in out
    assert "reiqa-published" in autofocus("models", "list", "--config", rig_file)[1]
    code, _, err = autofocus("models", "import", *[folder / "content_aware_r50.pth"] * 2)
    assert code == 2
    assert "same weights" in err
