"""Takes the frames of a calibration: passes both ways, responses to moves, repeated arrivals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from statistics import median

from autofocus.calibration import (
    CalibrationRecord,
    Repeatability,
    Sample,
    Settling,
    Shape,
    StagePlay,
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
from autofocus.config import Rig
from autofocus.errors import NoFocusCurve, RequestError
from autofocus.focus import Abort
from autofocus.optics import Optics
from autofocus.readings import reading_of
from autofocus.search.peak import fit_peak
from autofocus.search.protocol import Reading, SearchSettings
from autofocus.stacks import StackPlan, StackRequest, plan_stack
from devices import Acquisition, Frame, Halted, Microscope, MicroscopeState
from models.scorer import Scorer

HALF_RANGE_DOF = 10.0
# A focus curve is two to four depths of field wide: coarser steps would miss its shape.
MOST_STEP_DOF = 1.0
LEAST_PLANES = 13
RESPONSES = 3
# No camera is known to hand out frames older than this.
MOST_STALE = 3
# When the frames of a response begin, s after arrival: each 1.4 times as late as the one before,
# so that few exposures tell 15 ms as well as 0.6 s.
INSTANTS_S = (0.0, *(0.015 * 1.4**k for k in range(12)))
# Rest before a frame that need only be near the peak, whatever the settle time is.
PAUSE_S = 0.25
LEAST_OF_A_RESPONSE = 6
ARRIVALS = 12
# The move whose settle time is measured: a coarse step or so.
HOP_DOF = 4.0
# Light lost between the passes that is worth a word.
BLEACHED = 0.2


@dataclass(frozen=True)
class CalibrationRequest:
    """What to calibrate with; None leaves the choice to the rig.

    Attributes
    ----------
    stack : StackRequest
        Which planes; 10 depths of field to each side unless it says otherwise.
    scorer, head : str or None
        By name.
    """

    stack: StackRequest = field(default_factory=StackRequest)
    scorer: str | None = None
    head: str | None = None


def plan_calibration(rig: Rig, request: CalibrationRequest, *, state: MicroscopeState) -> StackPlan:
    """Say where a calibration would go; moves nothing.

    Raises
    ------
    RequestError
        When it would leave the rig's limits, or its planes are too few or too far apart.
    """
    stack = request.stack
    if stack.half_range_um is None and stack.half_range_dof is None:
        stack = replace(stack, half_range_dof=HALF_RANGE_DOF)
    plan = plan_stack(rig, stack, state=state)
    step_um = abs(plan.z_um[1] - plan.z_um[0])
    if step_um > MOST_STEP_DOF * plan.dof_um * (1 + 1e-6):
        raise RequestError(
            f"steps of {step_um:.3g} um are too coarse for a focus curve: at most "
            f"{MOST_STEP_DOF * plan.dof_um:.3g} um, {MOST_STEP_DOF:g} depth of field"
        )
    if len(plan.z_um) < LEAST_PLANES:
        raise RequestError(
            f"{len(plan.z_um)} planes are too few for a focus curve and what surrounds it; take "
            f"at least {LEAST_PLANES}"
        )
    return plan


def calibrate(
    rig: Rig,
    microscope: Microscope,
    scorer: Scorer,
    request: CalibrationRequest,
    *,
    calibration_id: str,
    abort: Abort,
    on_reading: Callable[[Reading], None] = lambda reading: None,
) -> CalibrationRecord:
    """Measure, and put the microscope back as it was, z included, whatever happens.

    Must be called from the hardware thread. A calibration claims no lock, so the stage returns to
    where it was.

    Parameters
    ----------
    calibration_id : str
        Copied into the record.
    abort : Abort
        Watched before every move and every exposure.
    on_reading : callable, optional
        Told of every frame as it is scored.

    Raises
    ------
    RequestError
        When it must be refused; nothing has moved.
    NoFocusCurve
        When no peak is proven, or it is too near to the end of the range.
    Halted
        When it was stopped or aborted.
    DeviceError, ModelError
        When the hardware or the scorer fails.
    """
    started_at = datetime.now(timezone.utc)
    state = microscope.refresh()
    plan = plan_calibration(rig, request, state=state)
    microscope.resume()
    with microscope.acquisition(request.stack.camera) as acquisition:
        optics = rig.optics_for(state.objective)
        hands = _Hands(microscope, acquisition, scorer, optics, abort, on_reading)
        found = _Measurement(hands, plan, rig, state.z_um).measure()
    frame = hands.last
    return CalibrationRecord(
        calibration_id=calibration_id,
        started_at=started_at,
        rig=rig.name,
        objective=state.objective,
        channel=request.stack.camera.channel or state.channel,
        scorer=scorer.name,
        head=scorer.head,
        binning=frame.binning,
        exposure_ms=frame.exposure_ms,
        frame_ms=1000 * median(hands.frame_s),
        dof_um=plan.dof_um,
        start_z_um=state.z_um,
        exposures=len(hands.frame_s),
        dose_ms=hands.dose_ms,
        **vars(found),
    )


@dataclass(frozen=True)
class _Found:
    """The part of a `CalibrationRecord` that was measured; named alike."""

    direction: int
    z_um: float
    z_sigma_um: float
    shape: Shape
    play: StagePlay
    settling: Settling
    repeatability: Repeatability
    stale_frames: int
    notes: tuple[str, ...]
    towards: tuple[Sample, ...]
    away: tuple[Sample, ...]
    again: tuple[Sample, ...]
    responses: tuple[tuple[Sample, ...], ...]
    arrivals: tuple[Sample, ...]


@dataclass(frozen=True)
class _Shot:
    """A scored frame and when it was taken, s on the clock of its series."""

    reading: Reading
    t_s: float

    @property
    def sample(self) -> Sample:
        reading = self.reading
        return Sample(reading.z_um, reading.score, self.t_s, reading.defocus_dof)


class _Hands:
    """Moves, rests and exposes; looks at abort and stop before each, and keeps the books."""

    def __init__(
        self,
        microscope: Microscope,
        acquisition: Acquisition,
        scorer: Scorer,
        optics: Optics,
        abort: Abort,
        on_reading: Callable[[Reading], None],
    ) -> None:
        self._microscope = microscope
        self._acquisition = acquisition
        self._scorer = scorer
        self._optics = optics
        self._abort = abort
        self._on_reading = on_reading
        self._began_s = time.monotonic()
        self.frame_s: list[float] = []
        self.dose_ms = 0.0
        self.last: Frame

    def go(self, z_um: float, *, straight: bool = False, rest_s: float = 0.0) -> None:
        self._refuse_if_stopped()
        self._acquisition.verify_unchanged()
        if straight:
            self._microscope.move_straight_to(z_um)
        else:
            self._microscope.move_to(z_um)
        self.rest_until(time.monotonic() + rest_s)

    def rest_until(self, until_s: float) -> None:
        while (left_s := until_s - time.monotonic()) > 0:
            self._refuse_if_stopped()
            time.sleep(min(left_s, 0.01))

    def snap(self) -> Frame:
        self._refuse_if_stopped()
        began_s = time.monotonic()
        frame = self._microscope.snap()
        self.frame_s.append(time.monotonic() - began_s)
        self.dose_ms += frame.exposure_ms
        self.last = frame
        self._acquisition.verify_unchanged()
        self._refuse_if_stopped()
        return frame

    def scored(self, frame: Frame, *, since_s: float | None = None) -> _Shot:
        """Score a frame; its time counts from the beginning of the calibration, or ``since_s``."""
        self._refuse_if_stopped()
        reading = reading_of(frame, self._scorer, self._optics)
        self._on_reading(reading)
        if since_s is None:
            return _Shot(reading, frame.t_s - self._began_s)
        return _Shot(reading, max(0.0, frame.t_s - frame.exposure_ms / 1000 - since_s))

    @property
    def absolute(self) -> bool:
        return self._scorer.absolute

    def _refuse_if_stopped(self) -> None:
        if self._abort.is_set() or self._microscope.halted:
            raise Halted(
                f"the calibration was stopped after {len(self.frame_s)} exposures; none is kept"
            )


class _Measurement:
    """One calibration, from the survey to the notes."""

    def __init__(self, hands: _Hands, plan: StackPlan, rig: Rig, start_z_um: float) -> None:
        self._hands = hands
        self._plan = plan
        self._limits = rig.microscope
        self._direction = -1 if rig.microscope.towards_specimen == "-" else 1
        self._settings = _settings(plan, start_z_um, self._direction, absolute=hands.absolute)
        # What a frame needs before it shows the place the stage is at; learnt on the way.
        self._rest_s = rig.microscope.settle_ms / 1000
        self._stale = 0

    def measure(self) -> _Found:
        z_um = self._plan.z_um
        towards = self._pass(z_um)
        first = self._prove(towards)
        flank = flank_of(_samples(towards), first, direction=self._direction)
        responses, settling = self._respond(first, flank)
        if self._learnt(settling):
            towards = self._pass(z_um)
            first = self._prove(towards)
        away = self._pass(tuple(reversed(z_um)), straight=True)
        second = self._prove(away, "on the way back: ")
        again = self._pass(_around(z_um, first))
        third = self._find_again(again, first)
        play = play_of(
            (first, _time_at(towards, first)),
            (second, _time_at(away, second)),
            (third, _time_at(again, third)),
            direction=self._direction,
        )
        flank = flank_of(_samples(towards), first, direction=self._direction)
        arrivals = self._arrive(flank, play)
        repeatability = repeatability_of(arrivals, flank, dof_um=self._plan.dof_um)
        return _Found(
            direction=self._direction,
            z_um=first.peak.z_um,
            z_sigma_um=first.peak.sigma_um,
            shape=shape_of(_samples(towards), _samples(away), (first, second), play),
            play=play,
            settling=settling,
            repeatability=repeatability,
            stale_frames=self._stale,
            notes=tuple(self._notes(settling, play, first, second)),
            towards=_samples(towards),
            away=_samples(away),
            again=_samples(again),
            responses=responses,
            arrivals=arrivals,
        )

    # -- taking -----------------------------------------------------------------------------

    def _pass(self, z_um: Iterable[float], *, straight: bool = False) -> tuple[_Shot, ...]:
        return tuple(self._shot(z, straight=straight) for z in z_um)

    def _shot(self, z_um: float, *, straight: bool = False) -> _Shot:
        waited_s = 0.0 if straight else self._limits.settle_ms / 1000
        self._hands.go(z_um, straight=straight, rest_s=max(0.0, self._rest_s - waited_s))
        for _ in range(self._stale):
            self._hands.snap()
        return self._hands.scored(self._hands.snap())

    def _respond(
        self, proven: ProvenPeak, flank: Flank
    ) -> tuple[tuple[tuple[Sample, ...], ...], Settling]:
        """Take frames right after moves: which of them are old, and when they no longer change."""
        series = [self._response(proven, flank) for _ in range(RESPONSES)]
        self._stale = max(stale for stale, _ in series)
        responses = tuple(samples[self._stale :] for _, samples in series)
        settling = settling_of(responses, flank, dof_um=self._plan.dof_um)
        return responses, settling

    def _response(self, proven: ProvenPeak, flank: Flank) -> tuple[int, tuple[Sample, ...]]:
        # From the far end each time, so that the play is taken up before the move that counts.
        far_um = self._plan.z_um[0]
        self._hands.go(far_um, straight=True)
        self._hands.go(proven.peak.z_um, rest_s=PAUSE_S)
        before = self._hands.scored(self._hands.snap()).reading
        self._hands.go(far_um, straight=True)
        frames = [self._hands.snap() for _ in range(MOST_STALE + 1)]
        after = [self._hands.scored(frame).reading for frame in frames]
        self._hands.go(self._away_from(flank.z_um, HOP_DOF * self._plan.dof_um), straight=True)
        self._hands.go(flank.z_um, straight=True)
        return stale_frames(before, after, height=proven.height), self._frames_at_rest()

    def _frames_at_rest(self) -> tuple[Sample, ...]:
        arrived_s = time.monotonic()
        frames: list[Frame] = []
        for instant_s in INSTANTS_S:
            late = time.monotonic() - arrived_s > INSTANTS_S[-1]
            if late and len(frames) >= LEAST_OF_A_RESPONSE + MOST_STALE:
                break
            self._hands.rest_until(arrived_s + instant_s)
            frames.append(self._hands.snap())
        # Scored afterwards: that takes longer than the stage may swing.
        return tuple(self._hands.scored(frame, since_s=arrived_s).sample for frame in frames)

    def _arrive(self, flank: Flank, play: StagePlay) -> tuple[Sample, ...]:
        """Go away and come back, from one side and beyond the play; two frames each time."""
        arrivals = []
        for count in range(ARRIVALS):
            hop_um = max(play.backlash_um, 0.0) + (2 + count % 3) * self._plan.dof_um
            self._hands.go(self._away_from(flank.z_um, hop_um), straight=True)
            arrivals += [self._shot(flank.z_um), self._hands.scored(self._hands.snap())]
        return _samples(arrivals)

    def _away_from(self, z_um: float, distance_um: float) -> float:
        """So far from a position, away from the specimen, and inside the range."""
        low, high = min(self._plan.z_um), max(self._plan.z_um)
        return min(max(z_um - self._direction * distance_um, low), high)

    # -- judging ----------------------------------------------------------------------------

    def _prove(self, shots: Sequence[_Shot], where: str = "") -> ProvenPeak:
        try:
            return prove_peak([shot.reading for shot in shots], self._settings)
        except NoFocusCurve as refusal:
            raise NoFocusCurve(f"{where}{refusal}") from None

    def _find_again(self, shots: Sequence[_Shot], proven: ProvenPeak) -> ProvenPeak:
        curve = [shot.reading for shot in shots]
        peak = fit_peak(curve, baseline=proven.back.level, noise=proven.back.noise)
        if peak is None:
            raise NoFocusCurve(
                f"the peak at {proven.peak.z_um:.2f} um was not there when measured again; look "
                "for drift, bleaching or a specimen that moves"
            )
        return ProvenPeak(peak, proven.back)

    def _learnt(self, settling: Settling) -> bool:
        """Rest from now on as long as was needed; tells whether frames so far were too early."""
        needed_ms = 1000 * INSTANTS_S[-1] if settling.settle_ms is None else settling.settle_ms
        too_early = needed_ms / 1000 > self._rest_s
        self._rest_s = max(self._rest_s, needed_ms / 1000)
        return too_early or self._stale > 0

    def _notes(
        self, settling: Settling, play: StagePlay, first: ProvenPeak, second: ProvenPeak
    ) -> Iterable[str]:
        limits, seen_um = self._limits, self._settings.tolerance_um
        if settling.settle_ms is None:
            yield f"frames still change {INSTANTS_S[-1]:.1f} s after a move; look at the stage"
        elif settling.settle_ms > limits.settle_ms:
            yield (
                f"the stage needs {settling.settle_ms:.0f} ms to settle, the rig file gives it "
                f"{limits.settle_ms:g}: set settle_ms = {math.ceil(settling.settle_ms)}"
            )
        if play.backlash_um > limits.backlash_um + max(3 * play.sigma_um, seen_um):
            yield (
                f"the drive has {play.backlash_um:.2f} um of play, the rig file takes up "
                f"{limits.backlash_um:g}: set backlash_um = {1.5 * play.backlash_um:.1f}"
            )
        if play.backlash_um < -max(3 * play.sigma_um, seen_um):
            yield (
                f"a backlash of {play.backlash_um:.2f} um cannot be: the specimen moved between "
                "the passes"
            )
        if self._stale:
            yield (
                f"the camera hands out {self._stale} old frame(s) after a move, which a run takes "
                "for the new place; look for a buffer or a trigger mode of the camera"
            )
        lost = 1 - second.height / first.height
        if lost > BLEACHED:
            yield f"the peak lost {lost:.0%} of its height from one pass to the next: bleaching?"


def _settings(
    plan: StackPlan, start_z_um: float, direction: int, *, absolute: bool
) -> SearchSettings:
    """The settings of a run over the same planes, as the search judges its readings."""
    low, high = min(plan.z_um), max(plan.z_um)
    return SearchSettings(
        start_z_um=start_z_um,
        z_min_um=low,
        z_max_um=high,
        center_um=(low + high) / 2,
        range_um=high - low,
        dof_um=plan.dof_um,
        tolerance_um=plan.dof_um / 4,
        direction=direction,
        absolute=absolute,
    )


def _around(z_um: Sequence[float], proven: ProvenPeak) -> tuple[float, ...]:
    """The planes within a width of the peak, and at least four to each side."""
    peak = proven.peak
    step_um = abs(z_um[1] - z_um[0])
    reach_um = max(peak.width_um, 4 * step_um)
    return tuple(z for z in z_um if abs(z - peak.z_um) <= reach_um)


def _time_at(shots: Sequence[_Shot], proven: ProvenPeak) -> float:
    return min(shots, key=lambda shot: abs(shot.reading.z_um - proven.peak.z_um)).t_s


def _samples(shots: Iterable[_Shot]) -> tuple[Sample, ...]:
    return tuple(shot.sample for shot in shots)
