"""What the readings of a calibration say: pure, so that it can be tried on any readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autofocus.calibration import Repeatability, Sample, Settling, Shape, StagePlay
from autofocus.errors import NoFocusCurve
from autofocus.search.evidence import (
    MAD_TO_SIGMA,
    RELATIVE_FLOOR,
    Background,
    background,
    best_reading,
    is_stale,
    rivals,
)
from autofocus.search.grid import clear_um
from autofocus.search.known_score import LEAST_SCORE
from autofocus.search.peak import Peak, contiguous_top, fit_peak
from autofocus.search.protocol import Reading, SearchSettings
from autofocus.search.run import COMPARABLE_SHARE, PROVEN

# Frames at the end of a response that must be alike to say that the stage has settled.
TAIL = 3
# A focus that moves by less than this cannot be seen.
INVISIBLE_DOF = 0.05
# Standard deviations by which a median of three responses differs from rest.
UNLIKE = 4.0
# Positions by which a flank must tell defocus from noise: one score, within half a depth of field.
SHALLOW_DOF = 0.5


@dataclass(frozen=True)
class ProvenPeak:
    """A peak that is no chance, with what surrounds it."""

    peak: Peak
    back: Background

    @property
    def height(self) -> float:
        """Score of the peak above the background."""
        return self.peak.score - self.back.level


@dataclass(frozen=True)
class Flank:
    """Where the score tells most about z.

    Attributes
    ----------
    z_um : float
        At half the height, on the side away from the specimen.
    slope : float
        Score per um there.
    """

    z_um: float
    slope: float


class _Scored(Protocol):
    @property
    def z_um(self) -> float: ...
    @property
    def score(self) -> float: ...


def prove_peak(curve: Sequence[Reading], settings: SearchSettings) -> ProvenPeak:
    """Find the peak of a pass, with the evidence that a run wants before it locks.

    Raises
    ------
    NoFocusCurve
        When the frames are stale, dark or saturated, when there is no peak or more than one, or
        when it is less than its width from an end of the pass.
    """
    _refuse_frames(curve, settings)
    back = background(curve, settings)
    best = best_reading(curve)
    if back.chance > PROVEN:
        raise NoFocusCurve(
            f"no score stands out of the noise: best {best.score:.4g}, background "
            f"{back.level:.4g} +- {back.noise:.2g}; go nearer to focus, or give more light"
        )
    if settings.absolute and best.score < LEAST_SCORE:
        raise NoFocusCurve(
            f"the best score, {best.score:.2f}, is below {LEAST_SCORE}: nothing in the "
            "range is in focus; go nearer to focus"
        )
    _refuse_edge(best.z_um, 0.0, curve)
    found = rivals(
        curve,
        best_z_um=best.z_um,
        apart_um=clear_um(settings),
        back=back,
        share=COMPARABLE_SHARE,
    )
    if found:
        raise NoFocusCurve(
            f"peaks at {best.z_um:.2f} and {found[0].z_um:.2f} um compare; calibrate on a thin "
            "specimen, or take a smaller half range"
        )
    peak = fit_peak(curve, baseline=back.level, noise=back.noise)
    if peak is None:
        raise NoFocusCurve(
            f"no peak fits the scores around {best.z_um:.2f} um; take smaller steps or more light"
        )
    _refuse_edge(peak.z_um, peak.width_um, curve)
    return ProvenPeak(peak, back)


def _refuse_frames(curve: Sequence[Reading], settings: SearchSettings) -> None:
    if is_stale(curve):
        raise NoFocusCurve("identical frames came back from different positions; check the camera")
    if all(reading.dark for reading in curve):
        raise NoFocusCurve(
            f"nothing stands above offset and noise in any of {len(curve)} frames; check lamp, "
            "shutter, channel and exposure"
        )
    best_um, reach_um = best_reading(curve).z_um, clear_um(settings)
    clipped = [r.z_um for r in curve if r.saturated and abs(r.z_um - best_um) <= reach_um]
    if clipped:
        raise NoFocusCurve(
            f"the frame at {clipped[0]:.2f} um, near the best position, is saturated; shorten the "
            "exposure"
        )


def _refuse_edge(z_um: float, width_um: float, curve: Sequence[Reading]) -> None:
    low, high = (end(reading.z_um for reading in curve) for end in (min, max))
    room_um = min(z_um - low, high - z_um)
    if room_um <= width_um:
        raise NoFocusCurve(
            f"the peak at {z_um:.2f} um is {room_um:.2f} um from the end of the range, "
            f"{low:.2f} to {high:.2f} um, which leaves less than its width ({width_um:.2f} um) "
            "there; focus first (POST /autofocus), or take a larger half range"
        )


def flank_of(curve: Sequence[_Scored], proven: ProvenPeak, *, direction: int) -> Flank:
    """The steep part of a pass away from the specimen, and how steep it is.

    Parameters
    ----------
    direction : int
        +1 or -1: which way is towards the specimen.
    """
    z_um = proven.peak.z_um - direction * proven.peak.width_um / 2
    z = np.array([reading.z_um for reading in curve])
    score = np.array([reading.score for reading in curve])
    # A line through the quarter of the width that is nearly straight, or the three nearest.
    away_um = np.abs(z - z_um)
    near = away_um <= max(proven.peak.width_um / 4, np.sort(away_um)[2])
    return Flank(z_um, float(np.polyfit(z[near], score[near], 1)[0]))


def stale_frames(before: Reading, after: Sequence[Reading], *, height: float) -> int:
    """How many frames after a move still show the place before it.

    Parameters
    ----------
    before : Reading
        In focus.
    after : sequence of Reading
        Far from focus, where a stage that still swings makes no difference; the last one is new.
    height : float
        Of the peak above the background. Scores that differ by less than a third of it are too
        much alike to tell frames apart.
    """
    last = after[-1]
    alike = abs(before.score - last.score) < height / 3
    count = 0
    for reading in after[:-1]:
        same = reading.fingerprint != "" and reading.fingerprint == before.fingerprint
        nearer = abs(reading.score - before.score) < abs(reading.score - last.score)
        if not same and (alike or not nearer):
            break
        count += 1
    return count


def settling_of(responses: Sequence[Sequence[Sample]], flank: Flank, *, dof_um: float) -> Settling:
    """When the scores after a move no longer change, by the median of the responses.

    Parameters
    ----------
    responses : sequence of sequence of Sample
        Frames at rest on the flank, each after the same move; stale ones left out.
    """
    count = min(map(len, responses))
    score = np.array([[sample.score for sample in r[:count]] for r in responses])
    t_s = np.median([[sample.t_s for sample in r[:count]] for r in responses], axis=0)
    after_rest = score - np.median(score[:, -TAIL:], axis=1, keepdims=True)
    change = np.median(after_rest, axis=0)
    # What the responses have in common is the stage; what they differ by is noise.
    differ = after_rest - after_rest.mean(axis=0)
    freedom = 1 - 1 / len(responses)
    noise = MAD_TO_SIGMA * float(np.median(np.abs(differ))) / freedom**0.5
    threshold = max(UNLIKE * noise, INVISIBLE_DOF * dof_um * abs(flank.slope))
    threshold_um = threshold / abs(flank.slope)
    unlike = np.abs(change) > threshold
    first = int(np.flatnonzero(unlike)[-1]) + 1 if unlike.any() else 0
    if first > count - TAIL:
        return Settling(None, 0.0, threshold_um)
    if first == 0:
        return Settling(0.0, 0.0, threshold_um)
    before_s, since_s = t_s[first - 1], t_s[first]
    return Settling(1000 * float(since_s), 1000 * float(since_s - before_s), threshold_um)


def play_of(
    towards: tuple[ProvenPeak, float],
    away: tuple[ProvenPeak, float],
    again: tuple[ProvenPeak, float],
    *,
    direction: int,
) -> StagePlay:
    """Backlash and drift from the peaks of three passes, each with the time of its peak, s.

    The first and the last went the same way: what they differ by is drift, and where the peak of
    that way was when the other pass met its own lies between the two.
    """
    (first, first_s), (back, back_s), (last, last_s) = towards, away, again
    drift_um_s = (last.peak.z_um - first.peak.z_um) / (last_s - first_s)
    expected_um = first.peak.z_um + drift_um_s * (back_s - first_s)
    share = (back_s - first_s) / (last_s - first_s)
    sigma_um = np.linalg.norm(
        [(1 - share) * first.peak.sigma_um, share * last.peak.sigma_um, back.peak.sigma_um]
    )
    return StagePlay(
        backlash_um=direction * (expected_um - back.peak.z_um),
        sigma_um=float(sigma_um),
        drift_um_s=drift_um_s,
    )


def repeatability_of(arrivals: Sequence[Sample], flank: Flank, *, dof_um: float) -> Repeatability:
    """Scatter of arrivals, from two frames at each.

    What the two frames of an arrival differ by is noise of the score; what the arrivals differ by
    beyond it is the stage.
    """
    score = np.array([sample.score for sample in arrivals]).reshape(-1, 2)
    z_um = np.array([sample.z_um for sample in arrivals])[::2]
    noise = float(np.sqrt(np.mean(np.diff(score, axis=1) ** 2) / 2))
    noise = max(noise, RELATIVE_FLOOR * float(np.abs(score).max()))
    if noise > SHALLOW_DOF * dof_um * abs(flank.slope):
        return Repeatability(_scatter(z_um), None, None)
    excess = max(0.0, _scatter(score.mean(axis=1)) ** 2 - noise**2 / 2)
    return Repeatability(
        readback_um=_scatter(z_um),
        image_um=excess**0.5 / abs(flank.slope),
        resolution_um=noise / abs(flank.slope),
    )


def _scatter(values: NDArray[np.float64]) -> float:
    """Standard deviation from successive differences, which a slow drift does not enlarge.

    J. von Neumann et al., *Ann. Math. Stat.* 12 (1941), 153.
    """
    return float(np.sqrt(np.mean(np.diff(values) ** 2) / 2))


def shape_of(
    towards: Sequence[Sample],
    away: Sequence[Sample],
    peaks: tuple[ProvenPeak, ProvenPeak],
    play: StagePlay,
) -> Shape:
    """The mean of both passes, each about its own peak.

    What they differ by is noise. The first readings of each, where the drive only takes up its
    play, are left out.
    """
    there = _about(_beyond_the_play(towards, play), peaks[0].peak.z_um)
    back = _about(_beyond_the_play(away, play), peaks[1].peak.z_um)
    z = there.defocus_um
    z = z[(z >= back.defocus_um[0]) & (z <= back.defocus_um[-1])]
    score, other = np.interp(z, there.defocus_um, there.score), back.score_at(z)
    noise = MAD_TO_SIGMA * float(np.median(np.abs((score - other) / back.gain_at(z))))
    floor = RELATIVE_FLOOR * float(np.abs(score).max())
    mean = (score + other) / 2
    return Shape(
        defocus_um=tuple(map(float, z)),
        score=tuple(map(float, mean)),
        estimated_dof=_mean_estimate(there, back, z),
        noise=max(noise, floor),
        level=peaks[0].back.level,
        width_um=_width_at_half(z, mean, peaks[0].back.level),
    )


def _width_at_half(z: NDArray[np.float64], score: NDArray[np.float64], level: float) -> float:
    """Distance between the places to both sides of the top where half the height is left.

    Of the curve itself: a bell fitted to the top is narrower than real flanks.
    """
    half = (level + float(score.max())) / 2
    top = contiguous_top(score, int(np.argmax(score)), half)
    low, high = max(top.start - 1, 0), min(top.stop, score.size - 1)
    # np.interp wants rising scores; at an end of the curve it answers with that end.
    left_um = np.interp(half, score[low : low + 2], z[low : low + 2])
    right_um = np.interp(half, score[high - 1 : high + 1][::-1], z[high - 1 : high + 1][::-1])
    return float(right_um - left_um)


def _beyond_the_play(samples: Sequence[Sample], play: StagePlay) -> list[Sample]:
    turn_um = samples[0].z_um
    return [s for s in samples if abs(s.z_um - turn_um) >= play.backlash_um]


@dataclass(frozen=True)
class _Curve:
    """A pass about its peak, z rising."""

    defocus_um: NDArray[np.float64]
    score: NDArray[np.float64]
    estimated_dof: NDArray[np.float64] | None

    def score_at(self, defocus_um: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.interp(defocus_um, self.defocus_um, self.score)

    def gain_at(self, defocus_um: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard deviation of (a reading - `score_at`) for independent noise of 1."""
        after = np.clip(np.searchsorted(self.defocus_um, defocus_um), 1, self.score.size - 1)
        before_um, after_um = self.defocus_um[after - 1], self.defocus_um[after]
        share = (defocus_um - before_um) / (after_um - before_um)
        return np.sqrt(1 + (1 - share) ** 2 + share**2)


def _about(samples: Sequence[Sample], z_um: float) -> _Curve:
    ordered = sorted(samples, key=lambda sample: sample.z_um)
    estimates = [s.defocus_dof for s in ordered if s.defocus_dof is not None]
    return _Curve(
        defocus_um=np.array([sample.z_um - z_um for sample in ordered]),
        score=np.array([sample.score for sample in ordered]),
        estimated_dof=np.array(estimates) if len(estimates) == len(ordered) else None,
    )


def _mean_estimate(
    there: _Curve, back: _Curve, defocus_um: NDArray[np.float64]
) -> tuple[float, ...] | None:
    if there.estimated_dof is None or back.estimated_dof is None:
        return None
    both = [np.interp(defocus_um, c.defocus_um, c.estimated_dof) for c in (there, back)]  # type: ignore[arg-type]
    return tuple(map(float, np.mean(both, axis=0)))
