"""Simulated sweeps: the same for everyone, and judged by what is known."""

import csv

import numpy as np
import pytest

from autofocus.bench import sweeps
from models.classical import ClassicalScorer


def test_a_stack_is_always_the_same_and_focus_lies_between_its_planes():
    light = sweeps.CONDITIONS["300 photons"]
    frames, distances, sampling = sweeps.simulate("nuclei", sweeps.FIRST_SEED, light)
    again, _, _ = sweeps.simulate("nuclei", sweeps.FIRST_SEED, light)
    assert len(frames) == sweeps.PLANES
    assert all(np.array_equal(one, other) for one, other in zip(frames, again, strict=True))
    assert np.abs(distances).min() < 0.25
    assert np.abs(distances).max() <= sweeps.RANGE_DOF + 0.25
    assert 0 < sampling < 5


def test_bleaching_takes_light_from_every_exposure():
    steady, _, _ = sweeps.simulate("filaments", sweeps.FIRST_SEED, sweeps.Light(300.0))
    fading, _, _ = sweeps.simulate(
        "filaments", sweeps.FIRST_SEED, sweeps.Light(300.0, bleaching=0.04)
    )
    dark = 100 + 6  # offset and background do not bleach
    share = [(f.mean() - dark) / (s.mean() - dark) for f, s in zip(fading, steady, strict=True)]
    assert share[0] == pytest.approx(1, abs=0.05)
    assert share[-1] == pytest.approx(0.96**40, abs=0.05)


def made_up(name: str, score, seed: int = 0) -> sweeps.Sweep:
    distance = np.linspace(-10, 10, 41)
    rng = np.random.default_rng(seed)
    return sweeps.Sweep(
        name, "nuclei", seed, "300 photons", distance, score(distance, rng), np.abs(distance)
    )


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
    assert "| 300 photons | perfect | 12 | 1.000 | 1.00 | 1.000 | - | 0.00 |" in table


def test_a_sweep_of_a_real_scorer_is_written_plane_by_plane(tmp_path):
    found = sweeps.run_sweeps(
        ["vollath_f4"], ClassicalScorer, conditions=["1000 photons"], seeds=1, kinds=["nuclei"]
    )
    sweeps.write_csv(found, tmp_path / "sweeps.csv")
    rows = list(csv.DictReader((tmp_path / "sweeps.csv").open(encoding="utf-8")))
    assert len(rows) == sweeps.PLANES
    assert found[0].plane_error_dof < 1
    assert found[0].srcc > 0.8
    assert np.isnan(found[0].estimate_dof).all()
