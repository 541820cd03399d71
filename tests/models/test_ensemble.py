"""The classical ensemble: what was fitted is what is predicted, and only its own files are read."""

import json

import numpy as np
import pytest

from models.classical import MEASURES
from models.ensemble import Ensemble, EnsembleScorer, fit_ensemble, log_measures
from models.errors import HeadError, UnknownScorer
from models.registry import ENSEMBLE_FILE, Registry

FRAMES = 300


@pytest.fixture(scope="module")
def frames_of_known_defocus():
    """All measures fall with the blur in pixels, d (1 + 1 / sampling)."""
    rng = np.random.default_rng(0)
    distance = rng.uniform(0, 10, FRAMES)
    sampling = np.exp(rng.uniform(np.log(0.1), 0, FRAMES))
    blur = np.log(0.5 + distance * (1 + 1 / sampling))
    logs = -blur[:, None] * rng.uniform(1, 2, len(MEASURES)) + rng.normal(
        0, 0.1, (FRAMES, len(MEASURES))
    )
    targets = np.stack([1 / (1 + (distance / 2) ** 2), distance], axis=1)
    return logs, targets, sampling


@pytest.fixture(scope="module")
def fitted(frames_of_known_defocus):
    return fit_ensemble(*frames_of_known_defocus, alpha=1.0)


def test_score_and_distance_follow_what_they_were_fitted_on(fitted, frames_of_known_defocus):
    logs, targets, sampling = frames_of_known_defocus
    said = np.array([fitted.predict(row, s) for row, s in zip(logs, sampling, strict=True)])
    assert np.corrcoef(said[:, 0], targets[:, 0])[0, 1] > 0.85
    assert np.median(np.abs(said[:, 1] - targets[:, 1])) < 1.0
    assert said[:, 1].min() >= 0


def test_it_survives_its_journey_through_a_file(fitted, tmp_path, frames_of_known_defocus):
    fitted.save(tmp_path / ENSEMBLE_FILE)
    assert Ensemble.load(tmp_path / ENSEMBLE_FILE) == fitted


def test_the_registry_finds_it_and_scores_with_it(fitted, tmp_path):
    with pytest.raises(UnknownScorer):
        Registry([tmp_path]).load_scorer("classical_ensemble")
    fitted.save(tmp_path / ENSEMBLE_FILE)
    registry = Registry([tmp_path])
    rng = np.random.default_rng(1)
    frame = rng.poisson(100 + 400 * (rng.random((128, 128)) > 0.9)).astype(np.uint16)

    scorer = registry.load_scorer("classical_ensemble")
    said = scorer.score(frame, sampling=0.4)

    assert "classical_ensemble" in [entry.name for entry in registry.list()]
    assert isinstance(scorer, EnsembleScorer)
    assert scorer.absolute
    assert (said.score, said.defocus_dof) == fitted.predict(log_measures(frame), 0.4)
    assert said.score != scorer.score(frame).score
    assert scorer.score(np.full((64, 64), 7, np.uint8)).dark
    assert registry.show("classical_ensemble")["measures"] == tuple(MEASURES)
    assert registry.verify("classical_ensemble") == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("slope"),
        lambda values: values["slope"].append([0.0]),
        lambda values: values["mean"].pop(),
        lambda values: values["measures"].__setitem__(0, "sharpness"),
        lambda values: values.__setitem__("offset", None),
    ],
)
def test_a_file_that_is_damaged_or_of_another_version_is_refused(fitted, tmp_path, change):
    path = tmp_path / ENSEMBLE_FILE
    fitted.save(path)
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(HeadError, match="ensemble"):
        Ensemble.load(path)


def test_logs_of_a_frame_without_structure_are_finite():
    assert np.isfinite(log_measures(np.full((64, 64), 7, np.uint8))).all()
