"""Simulated sweeps: the same for everyone, and judged by what is known."""

import csv
from dataclasses import replace

import cv2
import numpy as np
import pytest

from autofocus.bench import sweeps
from models.classical import ClassicalScorer

SEED = sweeps.FIRST_SEED


def test_a_stack_is_always_the_same_and_focus_lies_between_its_planes():
    condition = sweeps.CONDITIONS["300 photons"]
    stack, again = (sweeps.simulate("nuclei", SEED, condition) for _ in range(2))
    assert len(stack.frames) == sweeps.PLANES
    for one, other in zip(stack.frames, again.frames, strict=True):
        assert np.array_equal(one, other)
    assert np.abs(stack.defocus_dof).min() < 0.25
    assert np.abs(stack.defocus_dof).max() <= sweeps.RANGE_DOF + 0.25
    assert 0 < stack.sampling < 5


def test_bleaching_takes_light_from_every_exposure():
    steady = sweeps.simulate("filaments", SEED, sweeps.Condition(300.0))
    fading = sweeps.simulate("filaments", SEED, sweeps.Condition(300.0, bleaching=0.04))
    dark = 100 + 6  # offset and background do not bleach
    share = [
        (f.mean() - dark) / (s.mean() - dark)
        for f, s in zip(fading.frames, steady.frames, strict=True)
    ]
    assert share[0] == pytest.approx(1, abs=0.05)
    assert share[-1] == pytest.approx(0.96**40, abs=0.05)


def test_a_sparse_specimen_covers_three_per_cent():
    whole = sweeps.simulate("tissue", SEED, sweeps.Condition(1000.0))
    sparse = sweeps.simulate("tissue", SEED, sweeps.Condition(1000.0, sparse=True))
    lit = sparse.sharp > 0.1 * sparse.sharp.max()
    assert 0.005 < lit.mean() < 0.04
    assert (whole.sharp > 0.1 * whole.sharp.max()).mean() > 3 * lit.mean()


def test_something_of_every_sparse_specimen_is_left():
    for seed in range(SEED, SEED + 6):
        sparse = sweeps.simulate("beads", seed, sweeps.Condition(300.0, sparse=True), planes=3)
        assert len(sparse.frames) == 3
        assert sparse.sharp.max() > 0


def test_few_beads_are_alone_in_the_frame_of_a_whole_camera():
    stack = sweeps.simulate("beads", SEED, sweeps.CONDITIONS["few beads"], planes=3)
    assert stack.frames[0].shape == (1024, 1024)
    lit = stack.sharp > 0.1 * stack.sharp.max()
    assert 0 < lit.mean() < 0.002
    assert cv2.connectedComponents(lit.astype(np.uint8))[0] - 1 == 2


def made_up(name: str, score, seed: int = 0) -> sweeps.Sweep:
    distance = np.linspace(-10, 10, 41)
    rng = np.random.default_rng(seed)
    told = score(distance, rng), np.abs(distance)
    return sweeps.Sweep(name, "nuclei", seed, "300 photons", distance, *told, sharp_dof=(0.0,))


def test_a_perfect_score_is_told_from_one_that_only_ranks_and_from_noise():
    def label(distance, rng):
        return sweeps.score_of(distance)

    def gained(distance, rng):
        return rng.uniform(0.1, 10) * sweeps.score_of(distance)

    def noise(distance, rng):
        return rng.normal(size=41)

    perfect, ranking, useless = (
        [made_up(name, score, seed) for seed in range(12)]
        for name, score in (("perfect", label), ("ranking", gained), ("useless", noise))
    )
    assert perfect[0].srcc == pytest.approx(1)
    assert ranking[0].srcc == pytest.approx(1)
    assert perfect[0].plane_error_dof == 0
    assert sweeps.pooled_correlation(perfect) == pytest.approx(1)
    assert sweeps.pooled_correlation(ranking) < 0.9
    ahead, low, high = sweeps.ahead_by(perfect, useless)
    assert 0.8 < low < ahead < high
    low, high = sweeps.ahead_by(perfect, perfect)[1:]
    assert (low, high) == (0, 0)
    table = sweeps.table([*perfect, *useless])
    assert "| 300 photons | perfect | 12 | 1.000 | 1.00 | 1.000 | 1.000 | - | 0.00 |" in table


def test_dust_in_focus_is_a_plane_like_the_specimens():
    """Where its simulation says that it is: there the frames have detail once more."""
    stack = sweeps.simulate("debris", SEED, sweeps.CONDITIONS["1000 photons"])
    specimen, dust = stack.sharp_dof
    assert specimen == 0
    assert 2 < abs(dust) < sweeps.RANGE_DOF
    detail = np.array([cv2.Laplacian(f.astype(np.float32), cv2.CV_32F).var() for f in stack.frames])
    beyond = np.flatnonzero(stack.defocus_dof * np.sign(dust) > abs(dust) / 2)
    at = stack.defocus_dof[beyond[np.argmax(detail[beyond])]]
    assert at == pytest.approx(dust, abs=0.5)

    def sees_both(distance, rng):
        return np.maximum(sweeps.score_of(distance), sweeps.score_of(distance - dust))

    sweep = replace(made_up("both", sees_both), sharp_dof=stack.sharp_dof)
    assert sweeps.pooled_correlation([sweep]) < 0.8
    assert sweeps.correlation_with_dust([sweep]) == pytest.approx(1)
    assert sweeps.simulate("nuclei", SEED, sweeps.Condition(300.0), planes=3).sharp_dof == (0.0,)


def test_a_sweep_of_a_real_scorer_is_written_plane_by_plane(tmp_path):
    found = sweeps.run_sweeps(["vollath_f4"], ClassicalScorer, conditions=["transmitted"], seeds=1)
    sweeps.write_csv(found, tmp_path / "sweeps.csv")
    rows = list(csv.DictReader((tmp_path / "sweeps.csv").open(encoding="utf-8")))
    absorption, oracle = (s for s in found if s.kind == "absorption")
    assert len(rows) == 2 * len(sweeps.TRANSMITTED) * sweeps.PLANES
    assert (absorption.scorer, oracle.scorer) == ("vollath_f4", sweeps.ORACLE)
    assert np.isnan(absorption.estimate_dof).all()
    assert oracle.plane_error_dof < 1
