import numpy as np
import pytest

from autofocus.bench.measures_mlp import fit_mlp, fit_once
from autofocus.training.default_head import FeatureTable
from autofocus.training.labelled import simulated_groups
from models.ensemble import log_measures


@pytest.fixture(scope="module")
def table():
    frames = [
        (group.name, frame) for group in simulated_groups(10, seed=7) for frame in group.frames()
    ]
    return FeatureTable(
        features=np.zeros((len(frames), 1), np.float32),
        measures=np.stack([log_measures(frame.image) for _, frame in frames]),
        defocus_dof=np.array([frame.defocus_dof for _, frame in frames]),
        sampling=np.array([frame.sampling for _, frame in frames]),
        groups=np.array([name for name, _ in frames]),
        sources=np.full(len(frames), "simulated"),
    )


def test_it_scores_a_frame_in_focus_above_one_that_is_not(table):
    scorer = fit_mlp(table)
    frames = simulated_groups(1, seed=7)[0].frames()
    far = max(frames, key=lambda frame: frame.defocus_dof)

    sharp, blurred = (scorer.score(f.image, sampling=f.sampling) for f in (frames[0], far))

    assert frames[0].defocus_dof == 0
    assert sharp.score > blurred.score
    assert blurred.defocus_dof >= 0


def test_it_is_fitted_once_for_a_table(table, tmp_path):
    table.save(tmp_path / "features.npz")

    fit_once(tmp_path / "features.npz")
    kept = tmp_path / "classical_mlp.joblib"
    written = kept.stat().st_mtime_ns
    fit_once(tmp_path / "features.npz")

    assert kept.stat().st_mtime_ns == written
