"""The sweep: what it may be swept, when it is not believed, and what a lock rests on."""

from dataclasses import replace

import pytest
from driving import drive, settings_for
from test_strategies import absolute_curve

from autofocus.search.grid import coarse_positions, coarse_step_um
from autofocus.search.protocol import Purpose, Verdict


def shifted(settings, plain, *, by):
    """A rig whose swept frames saw the position ``by`` places beside the one they are told for."""
    positions = coarse_positions(settings)

    def read(z, i):
        swept = 1 <= i <= len(positions)
        seen = positions[min(max(i - 1 + by, 0), len(positions) - 1)] if swept else z
        return replace(plain(seen, i), z_um=z)

    return read


@pytest.mark.parametrize("absolute", [True, False])
def test_only_the_coarse_pass_is_swept(absolute):
    settings = settings_for(absolute=absolute)
    result, _, passes = drive("sweep", settings, absolute_curve(7.3))
    assert result.locked, result.reason
    assert [step.swept for step in passes[:3]] == [False, True, False]
    assert passes[1].z_um == coarse_positions(settings)
    assert not any(step.swept for step in passes[2:])
    assert passes[-1].purpose is Purpose.CONFIRM


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("focus_um", [-17.2, -4.5, 0.4, 9.9])
def test_a_lock_rests_on_no_swept_frame_near_the_peak(absolute, focus_um):
    settings = settings_for(absolute=absolute)
    result, readings, passes = drive("sweep", settings, absolute_curve(focus_um))
    assert result.locked, result.reason
    swept = range(1, 1 + len(passes[1].z_um))
    kept = [readings[i] for i in swept if i not in result.left_out]
    assert kept
    assert all(abs(r.z_um - result.z_um) > coarse_step_um(settings) / 2 for r in kept)


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("focus_um", [-17.2, -4.5, 0.4, 9.9])
@pytest.mark.parametrize("width_um", [1.5, 2.0, 4.0])
def test_frames_of_the_position_beside_are_not_believed(absolute, by, focus_um, width_um):
    settings = settings_for(absolute=absolute)
    curve = absolute_curve(focus_um, width_um=width_um)
    result, _, passes = drive("sweep", settings, shifted(settings, curve, by=by))
    assert result.locked, result.reason
    assert abs(result.z_um - focus_um) <= 0.5
    assert "the sweep was not believed" in result.reason
    assert set(range(1, 1 + len(passes[1].z_um))) <= set(result.left_out)


def test_a_sweep_that_is_believed_says_nothing_of_it():
    result, _, _ = drive("sweep", settings_for(), absolute_curve(3.0))
    assert "sweep" not in result.reason


def test_a_peak_that_only_the_sweep_saw_is_no_lock():
    """Vibration, a flash: something in one frame of the burst."""

    def read(z, i):
        plain = absolute_curve(0.0, height=0.0, level=0.2)(z, i)
        return plain if i != 9 else replace(plain, score=0.95)

    for absolute in (True, False):
        result, _, _ = drive("sweep", settings_for(absolute=absolute), read)
        assert result.verdict is Verdict.FLAT, result.reason
        assert "the sweep was not believed" in result.reason
