"""Scorers by name: found, shown, verified, loaded, and never assembled from parts that differ."""

import json

import numpy as np
import pytest
import torch

from models.checkpoints import load_encoders, save_encoders
from models.classical import MEASURES, referee
from models.encoders import CompactEncoder
from models.errors import CheckpointError, HeadError, UnknownScorer
from models.head import Label, fit_head, save_head
from models.registry import Registry, builtin_folder
from models.reiqa import ExtractorSettings, ReIQA

SETTINGS = ExtractorSettings(patches=4)


def disc(height: int = 300, width: int = 320, *, noise_seed: int = 0) -> np.ndarray:
    y, x = np.indices((height, width))
    inside = (y - height / 2) ** 2 + (x - width / 2) ** 2 < 90**2
    counts = 100 + inside * (400 + 200 * np.sin(x / 4))
    return np.random.default_rng(noise_seed).poisson(counts).astype(np.uint16)


def install(folder, *, seed: int, head: str | None = "head") -> None:
    torch.manual_seed(seed)
    save_encoders(folder / "compact", CompactEncoder(4), CompactEncoder(4), {"seed": seed})
    if head is not None:
        add_head(folder, head)


def add_head(folder, head: str, encoders=None) -> None:
    pair = load_encoders((encoders or folder) / "compact")
    extractor = ReIQA(pair.content, pair.quality, SETTINGS)
    rng = np.random.default_rng(0)
    x, defocus_dof = rng.normal(0.5, 0.2, (40, 240)), rng.uniform(0, 5, 40)
    fitted = fit_head(
        x, 1 / (1 + defocus_dof**2), defocus_dof, extractor=extractor, label=Label(1.0), name="test"
    )
    save_head(folder / "compact" / head, fitted)


@pytest.fixture
def builtin(tmp_path):
    install(tmp_path / "builtin", seed=0)
    return tmp_path / "builtin"


@pytest.fixture
def registry(builtin, tmp_path):
    return Registry([builtin, tmp_path / "user"])


def test_lists_what_is_installed_and_every_classical_measure(registry, builtin):
    learned, *classical = registry.list()
    assert (learned.name, learned.folder) == ("reiqa-compact", builtin / "compact")
    assert learned.heads == ("default",)
    assert [entry.name for entry in classical] == list(MEASURES)


def test_an_empty_registry_has_the_classical_measures(tmp_path):
    registry = Registry([tmp_path / "nowhere"])
    assert [entry.name for entry in registry.list()] == list(MEASURES)


def test_a_loaded_scorer_scores_a_frame_and_says_what_it_is(registry):
    scorer = registry.load_scorer("reiqa-compact")
    said = scorer.score(disc(), bit_depth=12, sampling=0.25)
    assert scorer.name == "reiqa-compact"
    assert scorer.head.startswith("test@")
    assert scorer.absolute
    assert np.isfinite(said.score)
    assert said.defocus_dof >= 0
    watched = referee().score(disc(), bit_depth=12, sampling=0.25)
    assert (scorer.watched_by, said.referee) == (referee().name, watched.score)
    assert said.fingerprint == watched.fingerprint
    assert (said.dark, said.saturated) == (False, False)


def test_dark_and_saturated_frames_are_told(registry):
    scorer = registry.load_scorer("reiqa-compact")
    assert scorer.score(np.full((300, 300), 100, np.uint16)).dark
    assert scorer.score(np.minimum(disc(), 255).astype(np.uint8)).saturated


def test_an_anchor_of_the_same_frame_changes_nothing_and_of_another_does(registry):
    scorer = registry.load_scorer("reiqa-compact")
    frame, other = disc(), disc(noise_seed=1) // 2
    own = scorer.score(frame, anchor=scorer.anchor(frame))
    assert own == scorer.score(frame)
    assert scorer.score(frame, anchor=scorer.anchor(other)).score != own.score


@pytest.mark.parametrize("name", MEASURES)
def test_classical_measures_load_by_name(registry, name):
    assert registry.load_scorer(name).name == name


@pytest.mark.parametrize("name", ["reiqa", "reiqa-published", "", "../compact"])
def test_an_unknown_name_lists_those_that_exist(registry, name):
    with pytest.raises(UnknownScorer, match="reiqa-compact, normalised_variance, tenengrad"):
        registry.load_scorer(name)


def test_shows_manifests_as_json(registry):
    shown = json.loads(json.dumps(registry.show("reiqa-compact")))
    assert shown["encoders"]["facts"] == {"seed": 0}
    assert shown["heads"]["default"]["settings"]["patches"] == 4
    assert registry.show("tenengrad")["kind"] == "classical measure"


def test_verify_reads_everything_and_gives_the_hashes(registry):
    found = registry.verify("reiqa-compact")
    shown = registry.show("reiqa-compact")
    assert found == {
        "content": shown["encoders"]["content_sha256"],
        "quality": shown["encoders"]["quality_sha256"],
        "head default": shown["heads"]["default"]["head_sha256"],
    }
    assert registry.verify("tenengrad") == {}


@pytest.mark.parametrize(
    ("file", "error"), [("quality.safetensors", CheckpointError), ("head/head.joblib", HeadError)]
)
def test_verify_and_load_notice_one_changed_byte(registry, builtin, file, error):
    path = builtin / "compact" / file
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    for use in (registry.verify, registry.load_scorer):
        with pytest.raises(error, match="SHA-256"):
            use("reiqa-compact")


def test_a_users_own_encoders_come_first_and_a_foreign_head_is_refused(registry, builtin, tmp_path):
    install(tmp_path / "user", seed=7, head=None)
    with pytest.raises(HeadError, match="content_sha256"):
        registry.load_scorer("reiqa-compact")
    add_head(tmp_path / "user", "head")
    assert registry.load_scorer("reiqa-compact").extractor.content_sha256 != (
        Registry([builtin]).load_scorer("reiqa-compact").extractor.content_sha256
    )


def test_a_users_head_can_stand_on_the_builtin_encoders(registry, builtin, tmp_path):
    add_head(tmp_path / "user", "heads/lab", encoders=builtin)
    assert set(registry.list()[0].heads) == {"default", "lab"}
    assert registry.load_scorer("reiqa-compact", "lab").head.startswith("test@")
    assert "head lab" in registry.verify("reiqa-compact")


@pytest.mark.parametrize("head", ["absent", "../head", ""])
def test_an_unknown_head_is_refused(registry, head):
    with pytest.raises(HeadError, match="default"):
        registry.load_scorer("reiqa-compact", head)


def test_encoders_without_a_head_give_features_but_no_scorer(tmp_path):
    install(tmp_path, seed=0, head=None)
    registry = Registry([tmp_path])
    with pytest.raises(HeadError, match="no head"):
        registry.load_scorer("reiqa-compact")
    assert registry.load_extractor("reiqa-compact").features(disc()).shape == (240,)


def test_the_builtin_folder_is_inside_the_package():
    assert builtin_folder().parent.name == "models"


def test_whatever_is_built_in_verifies():
    registry = Registry([builtin_folder()])
    for entry in registry.list():
        registry.verify(entry.name)
