"""The numbers that the search expects of the score are measured as it uses them."""

from dataclasses import replace

import numpy as np
import pytest

from autofocus.bench import curves
from models.classical import ClassicalScorer


def drawn(width_dof, exponent, offset_dof, seed):
    x = curves.positions_dof()
    shape = [1 / (1 + (abs(z - offset_dof) / width_dof) ** exponent) for z in x]
    case = curves.cases(1)[seed]
    return curves.Curve(case, x, tuple(0.1 + 0.8 * s for s in shape), tuple(shape), ())


def test_a_bell_is_recognised():
    bell = curves.fit_bell(drawn(2.5, 2.0, 0.2, 0))
    assert bell.half_width_dof == pytest.approx(2.5, rel=0.05)
    assert (bell.exponent, bell.offset_dof) == (2.0, pytest.approx(0.2))
    assert (bell.level, bell.height) == (pytest.approx(0.1, abs=0.02), pytest.approx(0.8, abs=0.02))
    assert bell.scatter < 0.01


def test_the_bell_of_the_referee_is_recognised():
    curve = drawn(2.0, 2.0, 0.0, 0)
    bells = [1 / (1 + ((z - 0.2) / 0.8) ** 2) ** 1.5 for z in curve.defocus_dof]
    bell = curves.fit_referee(replace(curve, referee=tuple(bells)))
    assert bell is not None
    assert bell.offset_dof == pytest.approx(0.2)
    assert bell.exponent == pytest.approx(1.5, rel=0.2)
    assert bell.half_width_dof == pytest.approx(0.8 * np.sqrt(2 ** (1 / 1.5) - 1), rel=0.1)
    assert bell.scatter < 0.05


def test_a_referee_that_sees_nothing_has_no_bell():
    curve = drawn(2.0, 2.0, 0.0, 0)
    assert curves.fit_referee(replace(curve, referee=(0.0,) * len(curve.score))) is None


def test_the_table_names_every_number_of_the_search():
    table = curves.table([drawn(1.8, 2.0, 0.0, 0), drawn(2.6, 2.0, 0.1, 1)])
    for name in ("HEIGHT", "LEVEL", "NOTHING", "NOISES", "HALF_WIDTH_DOF", "referee: WIDTH_DOF"):
        assert f"| {name} | " in table


def test_recording_goes_on_where_it_was_and_peaks_in_focus(tmp_path):
    todo = curves.cases(1)[:2]
    log = tmp_path / "curves.jsonl"
    load = lambda name: ClassicalScorer(name)  # noqa: E731
    (first,) = curves.record(todo[:1], "vollath_f4", load, log=log)
    best = max(range(len(first.score)), key=first.score.__getitem__)
    assert abs(first.defocus_dof[best]) <= 0.5
    assert [curve.case for curve in curves.record(todo, "vollath_f4", load, log=log)] == todo
    assert len(log.read_text().splitlines()) == 2
    assert next(iter(curves.read(log))) == first


def test_no_seed_is_one_of_the_published_tables():
    assert 3_000_000 <= curves.TUNING_SEED < 3_999_000
