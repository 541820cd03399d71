"""What readings of a calibration mean, on curves whose truth is written down; and its store."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from autofocus.calibration import (
    CalibrationRecord,
    Repeatability,
    Sample,
    Settling,
    StagePlay,
    focus_curve,
)
from autofocus.calibration_fits import (
    Flank,
    ProvenPeak,
    flank_of,
    play_of,
    prove_peak,
    repeatability_of,
    settling_of,
    shape_of,
    stale_frames,
)
from autofocus.calibration_store import Calibrations
from autofocus.errors import CalibrationNotFound, NoFocusCurve, StorageError
from autofocus.search.evidence import Background
from autofocus.search.known_score import LEAST_SCORE
from autofocus.search.peak import Peak
from autofocus.search.protocol import Reading, SearchSettings

Z_UM = np.arange(-10.0, 10.5, 0.5)


def settings() -> SearchSettings:
    return SearchSettings(
        start_z_um=0.0,
        z_min_um=-10.0,
        z_max_um=10.0,
        center_um=0.0,
        range_um=20.0,
        dof_um=1.0,
        tolerance_um=0.25,
    )


def bell(z_um: np.ndarray, center_um: float, width_um: float = 4.0) -> np.ndarray:
    """Score of a Gaussian peak of this full width at half height, on a background of 0.1."""
    return 0.1 + 0.9 * np.exp(-4 * np.log(2) * ((z_um - center_um) / width_um) ** 2)


def readings(score: np.ndarray, *, noise: float = 0.005, seed: int = 0) -> list[Reading]:
    noisy = score + noise * np.random.default_rng(seed).standard_normal(score.size)
    return [Reading(float(z), float(s)) for z, s in zip(Z_UM, noisy, strict=True)]


def samples(curve: list[Reading], center_um: float = 0.0) -> tuple[Sample, ...]:
    return tuple(
        Sample(r.z_um, r.score, float(i), abs(r.z_um - center_um)) for i, r in enumerate(curve)
    )


def peak_at(z_um: float) -> ProvenPeak:
    return ProvenPeak(Peak(z_um, 0.1, 1.0, 4.0), Background(0.1, 0.01, 0.0))


def test_proves_a_peak_and_measures_its_width() -> None:
    proven = prove_peak(readings(bell(Z_UM, 1.3)), settings())

    assert proven.peak.z_um == pytest.approx(1.3, abs=0.1)
    assert proven.peak.width_um == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize(
    ("score", "says"),
    [
        (bell(Z_UM, -10.0), "from the end of the range"),
        (bell(Z_UM, 7.0), "from the end of the range"),
        (np.full(Z_UM.size, 0.1), "noise"),
        (np.maximum(bell(Z_UM, -5.0, 2.0), bell(Z_UM, 4.0, 2.0)), "compare"),
    ],
    ids=["at the end", "near the end", "flat", "two planes"],
)
def test_refuses_what_is_no_single_peak_well_inside(score: np.ndarray, says: str) -> None:
    with pytest.raises(NoFocusCurve, match=says):
        prove_peak(readings(score), settings())


def test_refuses_dark_and_saturated_frames_and_a_score_that_is_hopeless_everywhere() -> None:
    curve = readings(bell(Z_UM, 0.0))
    with pytest.raises(NoFocusCurve, match="lamp"):
        prove_peak([replace(r, dark=True) for r in curve], settings())
    with pytest.raises(NoFocusCurve, match="shorten the exposure"):
        prove_peak([replace(r, saturated=abs(r.z_um) < 1) for r in curve], settings())
    low = readings(0.5 * LEAST_SCORE * bell(Z_UM, 0.0), noise=0.001)
    with pytest.raises(NoFocusCurve, match="nothing in the range"):
        prove_peak(low, replace(settings(), absolute=True))


@pytest.mark.parametrize("direction", [1, -1])
def test_the_flank_is_at_half_height_away_from_the_specimen(direction: int) -> None:
    curve = readings(bell(Z_UM, 0.0), noise=0.0)
    flank = flank_of(curve, prove_peak(curve, settings()), direction=direction)

    assert flank.z_um == pytest.approx(-direction * 2.0, abs=0.1)
    # d/dz of the bell at half its height: 4 ln 2 / width * half the height
    assert flank.slope == pytest.approx(direction * 4 * np.log(2) / 4.0 * 0.45, rel=0.1)


@pytest.mark.parametrize("direction", [1, -1])
def test_drift_is_taken_out_of_the_backlash(direction: int) -> None:
    drift_um_s, backlash_um = 0.05, 2.0
    first, back, last = (peak_at(drift_um_s * t_s) for t_s in (10.0, 30.0, 45.0))
    back = peak_at(back.peak.z_um - direction * backlash_um)

    play = play_of((first, 10.0), (back, 30.0), (last, 45.0), direction=direction)

    assert play.backlash_um == pytest.approx(backlash_um)
    assert play.drift_um_s == pytest.approx(drift_um_s)
    assert 0.1 < play.sigma_um < 0.2


def test_frames_that_show_the_place_before_are_counted() -> None:
    focus, far = Reading(0.0, 1.0), Reading(-9.0, 0.1)
    half = Reading(-9.0, 0.5)

    def count(before: Reading, *after: Reading) -> int:
        return stale_frames(before, after, height=0.9)

    assert count(focus, far, far, far, far) == 0
    assert count(focus, focus, far, far, far) == 1
    assert count(half, half, focus, far, far) == 2  # two late: the frame before is late itself
    assert count(focus, focus, focus, focus, far) == 3
    assert count(far, Reading(-9.0, 0.12), far, far, far) == 0
    same = Reading(-9.0, 0.1, fingerprint="a")
    assert count(same, same, far, far, far) == 1


def swing(settle_s: float, *, noise: float, seed: int) -> tuple[Sample, ...]:
    t_s = np.array([0.0, *(0.015 * 1.4**k for k in range(12))])
    score = 0.5 + 0.3 * np.exp(-4.6 * t_s / settle_s) if settle_s else np.full(t_s.size, 0.5)
    score = score + noise * np.random.default_rng(seed).standard_normal(t_s.size)
    return tuple(Sample(0.0, float(s), float(t)) for s, t in zip(score, t_s, strict=True))


@pytest.mark.parametrize(
    ("settle_s", "low_ms", "high_ms"), [(0.0, 0.0, 0.0), (0.1, 40.0, 120.0), (0.3, 120.0, 400.0)]
)
def test_has_settled_when_scores_no_longer_change(
    settle_s: float, low_ms: float, high_ms: float
) -> None:
    responses = [swing(settle_s, noise=0.003, seed=seed) for seed in range(3)]

    found = settling_of(responses, Flank(0.0, 0.3), dof_um=1.0)

    assert found.settle_ms is not None
    assert low_ms <= found.settle_ms <= high_ms
    assert found.resolution_ms <= 0.4 * found.settle_ms
    assert found.threshold_um == pytest.approx(0.05, abs=0.02)


def test_has_not_settled_when_the_last_frames_still_change() -> None:
    responses = [swing(3.0, noise=0.003, seed=seed) for seed in range(3)]

    found = settling_of(responses, Flank(0.0, 0.3), dof_um=1.0)

    assert found.settle_ms is None


def test_scatter_of_arrivals_is_told_from_noise_and_from_drift() -> None:
    rng = np.random.default_rng(3)
    z_um = 0.05 * np.arange(200) + 0.2 * rng.standard_normal(200)
    score = np.repeat(0.3 * z_um, 2) + 0.03 * rng.standard_normal(400)
    arrivals = [Sample(7.0, float(s), 0.0) for s in score]

    found = repeatability_of(arrivals, Flank(0.0, 0.3), dof_um=1.0)
    shallow = repeatability_of(arrivals, Flank(0.0, 0.03), dof_um=1.0)

    assert found.image_um == pytest.approx(0.2, rel=0.15)
    assert found.resolution_um == pytest.approx(0.1, rel=0.15)
    assert found.readback_um == 0.0
    assert found.repeatability_um == found.image_um
    assert shallow.image_um is None
    assert shallow.repeatability_um == shallow.readback_um


def test_the_curve_is_the_mean_of_both_passes_about_their_own_peaks() -> None:
    towards = samples(readings(bell(Z_UM, 1.0), noise=0.02, seed=1), 1.0)
    away = samples(readings(bell(Z_UM, -1.0), noise=0.02, seed=2), -1.0)[::-1]

    shape = shape_of(towards, away, (peak_at(1.0), peak_at(-1.0)), StagePlay(2.0, 0.1, 0.0))

    defocus_um = np.array(shape.defocus_um)
    assert (np.diff(defocus_um) > 0).all()
    assert np.array(shape.score) == pytest.approx(bell(defocus_um, 0.0), abs=0.06)
    assert shape.noise == pytest.approx(0.02, rel=0.5)
    assert shape.width_um == pytest.approx(4.0, rel=0.1)
    assert np.array(shape.estimated_dof) == pytest.approx(abs(defocus_um), abs=0.01)
    # Where a pass begins, the drive takes up its play and the carriage stands still.
    assert defocus_um[0] >= -9.0
    assert defocus_um[-1] <= 9.0


def record(calibration_id: str, **changes: object) -> CalibrationRecord:
    towards = samples(readings(bell(Z_UM, 0.0)))
    away = towards[::-1]
    play = StagePlay(0.0, 0.1, 0.0)
    values: dict = {
        "calibration_id": calibration_id,
        "started_at": datetime(2026, 1, 1, tzinfo=timezone.utc),
        "rig": "test",
        "objective": "20x",
        "channel": None,
        "scorer": "tenengrad",
        "head": None,
        "binning": 1,
        "exposure_ms": 10.0,
        "frame_ms": 12.0,
        "dof_um": 1.0,
        "direction": 1,
        "start_z_um": 0.0,
        "z_um": 0.0,
        "z_sigma_um": 0.1,
        "shape": shape_of(towards, away, (peak_at(0.0), peak_at(0.0)), play),
        "play": play,
        "settling": Settling(None, 0.0, 0.1),
        "repeatability": Repeatability(0.01, None, None),
        "stale_frames": 0,
        "exposures": 100,
        "dose_ms": 1000.0,
        "notes": ("a note",),
        "towards": towards,
        "away": away,
        "again": towards[10:30],
        "responses": (swing(0.1, noise=0.0, seed=0),),
        "arrivals": towards[:4],
    }
    return CalibrationRecord(**{**values, **changes})


def test_the_newest_calibration_that_fits_is_found_again(tmp_path: Path) -> None:
    store = Calibrations(tmp_path / "calibrations")
    assert store.find("20x", None, "tenengrad", None) is None
    old, new = record("20260101-000000-000000"), record("20260102-000000-000000")
    other = record("20260103-000000-000000", head="lab@1234", channel="DAPI", binning=2)
    for each in (new, other, old):
        store.add(each, b"picture")

    assert store.find("20x", None, "tenengrad", None) == new
    assert store.find("20x", "DAPI", "tenengrad", "lab@1234") == other
    assert store.find("20x", "DAPI", "tenengrad", "lab@1234", binning=1) is None
    assert store.find("10x", None, "tenengrad", None) is None
    assert store.report(old.calibration_id).read_bytes() == b"picture"
    curve = focus_curve(new)
    assert curve.score == new.shape.score
    assert curve.repeatability_um == 0.01


def test_what_is_no_calibration_is_not_found_or_said_to_be_broken(tmp_path: Path) -> None:
    store = Calibrations(tmp_path)
    store.add(record("20260101-000000-000000"), b"")
    (tmp_path / "notes").mkdir()
    (tmp_path / "20260102-000000-000000").mkdir()  # died before it was complete

    assert store.ids() == ("20260101-000000-000000",)
    for name in ("../x", "20260102-000000-000000", "nonsense"):
        with pytest.raises(CalibrationNotFound):
            store.report(name)
    (tmp_path / "20260101-000000-000000" / "calibration.json").write_text("{")
    with pytest.raises(StorageError, match="move its folder away"):
        store.find("20x", None, "tenengrad", None)
