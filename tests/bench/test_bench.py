import math

import numpy as np
import pytest

from autofocus.bench import locks, stacks, timing
from autofocus.bench.portrait import portrait
from models.classical import ClassicalScorer


@pytest.fixture(scope="module")
def outcomes():
    todo = [locks.Case("nuclei", locks.FIRST_SEED), locks.Case("empty", locks.FIRST_SEED)]
    return locks.run_locks(["vollath_f4"], todo, ClassicalScorer)


def test_a_specimen_is_locked_and_an_empty_field_is_not(outcomes):
    specimen, empty = outcomes
    assert specimen.success
    assert specimen.start_error_dof > specimen.error_dof
    assert empty.returned
    assert not empty.locked
    assert math.isnan(empty.error_dof)


def test_the_table_counts_the_runs(outcomes, tmp_path):
    assert "| vollath_f4 | nuclei | 1 | 1 | 0 | 0 |" in locks.table(outcomes)
    locks.write_csv(outcomes, tmp_path / "runs.csv")
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 3


def test_a_lock_on_nothing_or_far_away_is_false(outcomes):
    from dataclasses import replace

    specimen, empty = outcomes
    assert replace(empty, locked=True).false_lock
    assert replace(specimen, error_dof=1.1).false_lock
    assert not replace(specimen, error_dof=0.9).false_lock


def test_a_portrait_is_drawn(tmp_path):
    picture = tmp_path / "portrait.png"
    portrait(locks.Case("nuclei", locks.FIRST_SEED), ClassicalScorer("vollath_f4"), picture)
    assert picture.stat().st_size > 20_000


def test_stacks_are_judged_by_what_a_person_accepts():
    judged = stacks.Judged("s", "train", "A", 5, (1, 2), {"a": 2, "b": 3}, {})
    assert judged.right("a")
    assert not judged.right("b")


def test_the_notes_procedure_averages_the_sharpest_fifth():
    import torch
    from torch import nn

    class Mean(nn.Module):
        def forward(self, x):
            assert x.dtype == torch.float32
            return x.mean(dim=(2, 3))

    image = timing.test_frame()
    features = timing.notes_features(image, Mean(), Mean())
    assert features.shape == (12,)
    assert np.isfinite(features).all()
    assert torch.is_grad_enabled()
