"""The readings of one run, what they mean, and which verdict they allow.

Every strategy asks in its own order and is judged here by the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from autofocus.search import known_score, trust
from autofocus.search.alike import may_be_as_near
from autofocus.search.belief import absolute_score, believe
from autofocus.search.evidence import (
    Background,
    background,
    best_reading,
    distinct,
    is_stale,
    rivals,
)
from autofocus.search.grid import (
    clear_um,
    coarse_step_um,
    extension_positions,
    fine_positions,
    fine_step_um,
    inside_bounds,
)
from autofocus.search.peak import Peak, fit_peak
from autofocus.search.protocol import (
    Pass,
    Purpose,
    Reading,
    Search,
    SearchResult,
    SearchSettings,
    Verdict,
)
from autofocus.search.referee import peak_of_referee

# Chance that noise alone looks as much like a peak: what passes the first after the coarse pass is
# looked at again, what passes the second with the fine readings is believed.
WORTH_A_LOOK = 0.2
PROVEN = 1e-4
# Too few readings to tell noise from a peak yet.
FEW = 9
# Standard errors by which readings not chosen for being high must exceed the background.
PROOF = 5.0
# Share of the peak's height that cannot be seen: a score of 0.95 is half a depth of field off.
NEGLIGIBLE_LOSS = 0.05
RIVAL_SHARE = 0.6
COMPARABLE_SHARE = 0.85
# The peak, where the best was read if that was clearly better, and the peak again if it was not;
# where a frame nearby was sharper by score and referee, and back if it is not; the start if that is
# as sharp.
MOST_CONFIRMATIONS = 6
# How far from the answer such a frame may be, and how far it must be for another look to pay.
NEARBY_DOF = 1.0
LEAST_MOVE_DOF = 0.1
# Standard deviations within which focus is where it was expected.
EXPECTED_SD = 3.0
# By how much the referee's measure of equally sharp frames may differ, as a share of it.
REFEREE_NOISE = 0.1
# What a frame must score, as a share of the last, to be nearly as sharp; how far away it must be
# for that to be odd; and how many times higher the referee must be there to contradict.
ALIKE_SHARE = 0.75
ELSEWHERE_DOF = 2.0
FAR_SHARPER = 3.0
# How near to focus a lock claims to be.
CLAIMED_DOF = 0.5
# Of the most that the referee has seen, what is next to nothing.
NEXT_TO_NOTHING = 0.2
# How many times as far on the other side a frame may be that is sharper as well: then the last one
# is in a dip of the referee.
AS_FAR = 1.5
# How many times as high coarse contrast must be elsewhere.
CLEARLY_MORE = 1.1
NARROWING = 4.0

Asking = Generator[Pass, tuple[Reading, ...], None]


def narrowings(settings: SearchSettings) -> int:
    """Groups of four from the coarse step down to about the fine step, at least one."""
    ratio = coarse_step_um(settings) / fine_step_um(settings)
    return max(1, round(math.log(max(ratio, 1.0), NARROWING)))


@dataclass
class Run:
    """The readings of one run and what they mean so far.

    Attributes
    ----------
    settings : SearchSettings
        Of the run.
    heard : callable
        What is kept of a reading; the reading itself, unless another opinion is asked for.
    extensions : int
        How often the range has been continued past an end.
    range_is_read : bool
        Whether the strategy has asked for the whole range, as closely as it ever does.
    """

    settings: SearchSettings
    heard: Callable[[Reading], Reading] = lambda reading: reading

    def __post_init__(self) -> None:
        self.curve: list[Reading] = []
        self.told: list[Reading] = []
        self.fresh: list[Reading] = []
        self.final: Reading | None = None
        self.extensions = 0
        self.range_is_read = False

    # -- asking -----------------------------------------------------------------------------

    def ask(self, z_um: Sequence[float], purpose: Purpose, *, swept: bool = False) -> Asking:
        """Ask for a pass and keep its readings; asks for nothing where there is nowhere to go.

        Only the start may be outside the bounds. Positions that were read back, and so may lie just
        beyond them, are asked for again inside.
        """
        if not z_um:
            return
        if purpose is not Purpose.START:
            z_um = [inside_bounds(self.settings, z) for z in z_um]
        told = yield Pass(tuple(z_um), purpose, swept)
        self.told.extend(told)
        readings = [self.heard(reading) for reading in told]
        self.curve.extend(readings)
        if purpose is Purpose.FINE:
            self.fresh = readings

    def extend(self) -> Generator[Pass, tuple[Reading, ...], bool]:
        """Continue the range past an end that holds the best score; whether anything was read."""
        before = self.extensions
        while self.extensions < self.settings.max_extensions:
            end = self._end_with_the_best()
            positions = extension_positions(self.settings, *end) if end else ()
            if not positions or self._is_noise():
                break
            self.extensions += 1
            yield from self.ask(positions, Purpose.EXTEND)
        return self.extensions > before

    def narrow(self, center_um: float) -> Asking:
        """Groups of four, each closer together, around the best."""
        step_um = coarse_step_um(self.settings)
        for _ in range(narrowings(self.settings)):
            step_um = max(step_um / NARROWING, fine_step_um(self.settings))
            yield from self.ask(
                fine_positions(self.settings, center_um=center_um, step_um=step_um), Purpose.FINE
            )
            center_um = self.center_um(near_um=center_um)

    def examine_rival(self) -> Asking:
        """Give the second candidate the same exposures before comparing the two."""
        found = self._rivals(RIVAL_SHARE)
        if not found:
            return
        fresh = self.fresh
        yield from self.narrow(found[0].z_um)
        if best_reading(self.fresh).score < best_reading(fresh).score:
            self.fresh = fresh

    def finish(self) -> Search:
        """The verdict, once fresh readings around the best are there; reads the peak again."""
        refused = (
            self.frames_refused() or self.unproven() or self.flat_or_edge() or self.ambiguous()
        )
        if refused:
            return refused
        yield from self.confirm()
        return self.frames_refused() or self.judged()

    def confirm(self) -> Asking:
        """Read again where the peak is; where the best was read, if that was clearly better.

        What made that reading the best may have been chance, or light that has bleached since: if
        the new one is lower than the one at the fit, the run goes back there. Then where a frame
        nearby was sharper by two witnesses, and at the start, if that is near and as sharp.
        """
        place = self.place(self.peak())
        yield from self.confirm_at(place.z_um if place else self.best().z_um)
        fitted, best = self.curve[-1], self.best()
        apart = abs(best.z_um - fitted.z_um) > self.settings.tolerance_um
        if apart and best.score - fitted.score > 3 * self.background().noise:
            yield from self.confirm_at(best.z_um)
            if self.curve[-1].score < fitted.score:
                yield from self.confirm_at(fitted.z_um)
        peak, noise = self.peak(), self.background().noise
        yield from self.move_to_sharper(peak.score - noise if peak else self.best().score)
        start = self.curve[0]
        near = abs(start.z_um - self.curve[-1].z_um) <= self.settings.dof_um / 2
        if near and self.allows(start) and self.start_is_as_sharp(noise=noise):
            yield from self.confirm_at(start.z_um)

    def move_to_sharper(self, top: float) -> Generator[Pass, tuple[Reading, ...], bool]:
        """Read again where a frame nearby was sharper; stay there if it still is.

        A peak lies between readings of which the nearest decide least. Where both score and referee
        called one of them sharper than the frame at the peak, they were right in 12 of 12 locks of
        529 (seeds 3 700 000 and up), three of which were more than half a depth of field off. Only
        for scores of absolute meaning: elsewhere nobody has measured it.

        Parameters
        ----------
        top : float
            What the frame at the peak should score; a frame there that scored less by chance makes
            none beside it sharper.

        Returns
        -------
        bool
            Whether anything was read.
        """
        before = self.final
        assert before is not None
        sharper = self._sharper_nearby(before, top) if self.settings.absolute else None
        if sharper is None:
            return False
        yield from self.confirm_at(sharper.z_um)
        if not _is_sharper(self.curve[-1], before, by=0.0, top=top):
            yield from self.confirm_at(before.z_um)
        return True

    def confirm_at(self, z_um: float) -> Asking:
        """Read once more where the run may end."""
        yield from self.ask((z_um,), Purpose.CONFIRM)
        self.final = self.curve[-1]

    # -- knowing ----------------------------------------------------------------------------

    def best(self) -> Reading:
        """The reading with the highest score."""
        return best_reading(self.curve)

    def peak(self, *, near_um: float | None = None) -> Peak | None:
        """The fitted peak, of the whole curve or of the part near a position."""
        curve = self.curve if near_um is None else self._around(near_um)
        back = self.background()
        return fit_peak(curve, baseline=back.level, noise=back.noise)

    def place(self, peak: Peak | None) -> Peak | None:
        """Where the score's peak is: by the referee, which is steeper, if it sees it there too.

        Of 26 locks after the whole range (seeds from 5 000 000) nine in ten of the score's fits
        were within 0.09 depths of field, of the referee's within 0.03; of 140 that score less than
        0.6, 0.18 and 0.06.
        """
        seen = peak_of_referee(self.curve, self.settings) if self.settings.absolute else None
        score_um = peak.z_um if peak else self.best().z_um
        if seen and abs(seen.z_um - score_um) <= self.settings.dof_um / 2:
            return seen
        return peak

    def center_um(self, *, near_um: float | None = None) -> float:
        """The fitted peak, or the best reading where no fit holds; always inside the bounds."""
        peak = self.peak(near_um=near_um)
        curve = self.curve if near_um is None else self._around(near_um)
        z_um = peak.z_um if peak else best_reading(curve).z_um
        return inside_bounds(self.settings, z_um)

    def evident_score(self, z_um: float) -> float:
        """What a frame there must score to be in focus on the score's word alone.

        More while the range is not read, unless focus is expected there, or the rig is calibrated.
        """
        return known_score.ALONE_SCORE if self._knows_little(z_um) else known_score.EVIDENT_SCORE

    def _knows_little(self, z_um: float) -> bool:
        """Whether neither the range, nor an expectation, nor a calibration speaks for a plane."""
        known = self.settings.calibrated is not None or self._is_expected(z_um)
        return not (known or self.range_is_read)

    def _is_expected(self, z_um: float) -> bool:
        expected = self.settings.expected
        if expected is None:
            return False
        return abs(z_um - expected.z_um) <= EXPECTED_SD * expected.sigma_um

    def allows(self, reading: Reading) -> bool:
        """Whether the run may stay where this was read: the start may lie outside the bounds."""
        return self.settings.z_min_um <= reading.z_um <= self.settings.z_max_um

    def start_is_as_sharp(self, *, noise: float) -> bool:
        """Whether neither score nor referee says that the last frame is sharper than the first.

        Then there was nothing to gain, and the start is the safer place. Bleaching and a lamp that
        fades speak for the start, which was read first.

        Parameters
        ----------
        noise : float
            Standard deviation of one score.
        """
        start, final = self.curve[0], self.final
        assert final is not None
        if not self._has_left_the_start() or start.referee is None or final.referee is None:
            return False
        gain = final.score - start.score
        return gain < noise and final.referee < (1 + REFEREE_NOISE) * start.referee

    def referee_prefers_the_start(self) -> bool:
        """Whether the first frame, read elsewhere than the last, is the sharper by the referee."""
        start, final = self.curve[0], self.final
        assert final is not None
        if start.referee is None or final.referee is None:
            return False
        return self._has_left_the_start() and start.referee > final.referee

    def _has_left_the_start(self) -> bool:
        assert self.final is not None
        return abs(self.curve[0].z_um - self.final.z_um) > self.settings.tolerance_um

    def far_sharper_elsewhere(self) -> Reading | None:
        """The frame on another plane that scores nearly as much and is far sharper to the referee.

        A defocused bead is a large disc, on whose crisp edge the score stays high for some depths
        of field. Of 7600 locks (seeds from 3 800 000, 5 000 000, 6 000 000 and 7 000 000) both on
        such a disc had one, and two right ones. Where the last frame is in a dip of the referee,
        between two that compare, it is no contradiction: thin specimens in transmitted light have
        least contrast in focus.
        """
        final, apart_um = self.final, ELSEWHERE_DOF * self.settings.dof_um
        assert final is not None
        if final.referee is None or not self.settings.absolute:
            return None
        alike = [
            (reading.referee or 0.0, reading)
            for reading in self.curve
            if reading.score >= ALIKE_SHARE * final.score and not reading.saturated
        ]
        far = [one for one in alike if abs(one[1].z_um - final.z_um) > apart_um]
        sharpest, found = max(far, key=lambda one: one[0], default=(0.0, final))
        if sharpest <= FAR_SHARPER * max(final.referee, 0.0):
            return None
        off_um = found.z_um - final.z_um
        in_a_dip = self._compares_beyond([one for _, one in alike], off_um, sharpest)
        return None if in_a_dip else found

    def _compares_beyond(self, readings: Sequence[Reading], off_um: float, sharpest: float) -> bool:
        """Whether the referee sees nearly as much on the other side: the last frame is in a dip."""
        assert self.final is not None
        opposite = [
            reading.referee or 0.0
            for reading in readings
            if 0 > (reading.z_um - self.final.z_um) / off_um >= -AS_FAR
        ]
        return max(opposite, default=0.0) >= sharpest / FAR_SHARPER

    def alike_elsewhere(self) -> Reading | None:
        """The frame farthest away that the score itself cannot tell from the last one.

        Two depths of field away and more, scoring nearly as much, not clipped, and by the scorer's
        own account perhaps as near to focus. None where the scorer is sure of the last frame to
        half a depth of field, which is what a lock claims: what it calls in focus elsewhere is so,
        too. None of scores without absolute meaning, or which do not tell how sure they are.
        """
        final, dof_um = self.final, self.settings.dof_um
        assert final is not None
        sure = (final.defocus_sd_dof or 0.0) <= CLAIMED_DOF
        if sure or final.defocus_dof is None or not self.settings.absolute:
            return None
        told = [
            (reading, reading.defocus_dof, reading.defocus_sd_dof)
            for reading in self.curve
            if reading.defocus_dof is not None and reading.defocus_sd_dof is not None
        ]
        # One frame alone may be worse by chance, or bleached.
        nearest = min(each for one, each, _ in told if abs(one.z_um - final.z_um) <= dof_um / 2)
        alike = [
            reading
            for reading, estimated, deviation in told
            if may_be_as_near(estimated, deviation, nearest)
            and reading.score >= ALIKE_SHARE * final.score
            and not reading.saturated
        ]
        far = [one for one in alike if abs(one.z_um - final.z_um) > ELSEWHERE_DOF * dof_um]
        return max(far, key=lambda reading: abs(reading.z_um - final.z_um), default=None)

    def contradiction(self) -> str | None:
        """How the referee denies that the last frame is in focus; None where it does not."""
        assert self.final is not None
        sharper = self.far_sharper_elsewhere()
        if sharper is not None:
            return (
                f"the frame at {sharper.z_um:.2f} um scores nearly as much as the one at "
                f"{self.final.z_um:.2f} um, and is far sharper to the referee"
            )
        seen = self.seen_elsewhere_only()
        if seen is None:
            return None
        return (
            f"the referee sees next to nothing in the frame at {self.final.z_um:.2f} um; its peak "
            f"is at {seen.z_um:.2f} um"
        )

    def unsure_of_the_place(self) -> str | None:
        """Why neither the score, by its own account, nor the referee can tell; None if one can."""
        assert self.final is not None
        alike = self.alike_elsewhere()
        if alike is None or self._referee_confirms(self.final.z_um):
            return None
        return (
            f"the score cannot tell the frame at {self.final.z_um:.2f} um from the one at "
            f"{alike.z_um:.2f} um, by its own account, and no referee confirms the peak"
        )

    def _referee_confirms(self, z_um: float) -> bool:
        """Whether its peak is within half a depth of field of there."""
        seen = peak_of_referee(self.curve, self.settings)
        return seen is not None and abs(seen.z_um - z_um) <= self.settings.dof_um / 2

    def referee_saw_more_elsewhere(self) -> bool:
        """Whether it saw no less on another plane, and the range may hold what it sees.

        Hot pixels over even light are as crisp as anything to a score; to the referee, which
        compares neighbours, they are nothing. Thin specimens in transmitted light are like that
        in focus, too, and are locked when the whole range is read.
        """
        final = self.final
        assert final is not None
        if final.referee is None or not self.settings.absolute:
            return False
        return final.referee <= self._most_elsewhere() and self._knows_little(final.z_um)

    def seen_elsewhere_only(self) -> Peak | None:
        """The referee's peak on another plane, where it sees next to nothing in the last frame.

        Of 4761 locks (seeds from 14 000 000, 15 000 000 and 16 000 000) three had such a peak, all
        of them 35 depths of field and more off, on hot pixels; of the right ones none saw less
        than a third there. A dip of the referee contradicts nothing, as in
        `far_sharper_elsewhere`.
        """
        final = self.final
        assert final is not None
        if final.referee is None or not self.settings.absolute:
            return None
        if final.referee > NEXT_TO_NOTHING * self._most_elsewhere():
            return None
        peak = peak_of_referee(self.curve, self.settings)
        if peak is None:
            return None
        off_um = peak.z_um - final.z_um
        if abs(off_um) <= ELSEWHERE_DOF * self.settings.dof_um:
            return None
        return None if self._compares_beyond(self.curve, off_um, peak.score) else peak

    def _most_elsewhere(self) -> float:
        """The most that the referee has seen on another plane; at least 0, which is nothing."""
        assert self.final is not None
        apart_um = ELSEWHERE_DOF * self.settings.dof_um
        elsewhere = [
            reading.referee or 0.0
            for reading in self.curve
            if abs(reading.z_um - self.final.z_um) > apart_um and not reading.saturated
        ]
        return max([0.0, *elsewhere])

    def specimen_beyond(self) -> tuple[float, int] | None:
        """The end of the range that the specimen seems to lie beyond, and its side, if it does.

        Faint structure on another plane is a peak of its own within a range that the specimen lies
        outside of; score and referee alone cannot tell it from a thick specimen that is nowhere
        sharp. But what is large in the specimen is seen from far away: coarse contrast is highest
        at that end, and on the other side lower than in the last frame. Where it rises on both
        sides, as with uneven light, with bleaching, or where least contrast is in focus, it denies
        nothing.
        """
        final = self.final
        assert final is not None
        away = [
            (reading.coarse_contrast, reading.z_um - final.z_um)
            for reading in self.curve
            if reading.coarse_contrast is not None and not (reading.dark or reading.saturated)
            if abs(reading.z_um - final.z_um) > self.settings.dof_um
        ]
        if len(away) < FEW or final.coarse_contrast is None:
            return None
        highest, off_um = max(away)
        opposite = max((each for each, other_um in away if other_um * off_um < 0), default=None)
        if opposite is None or opposite >= final.coarse_contrast:
            return None
        side = 1 if off_um > 0 else -1
        end_um = self._ends()[side > 0]
        at_the_end = abs(final.z_um + off_um - end_um) < coarse_step_um(self.settings) / 2
        clearly = highest > CLEARLY_MORE * final.coarse_contrast
        return (end_um, side) if at_the_end and clearly else None

    def _sharper_nearby(self, final: Reading, top: float) -> Reading | None:
        """The sharpest frame near the last one by the referee, if the score says so too."""
        dof_um = self.settings.dof_um
        near = [
            reading
            for reading in self.curve
            if self.allows(reading)
            and LEAST_MOVE_DOF * dof_um <= abs(reading.z_um - final.z_um) <= NEARBY_DOF * dof_um
            and _is_sharper(reading, final, by=REFEREE_NOISE, top=top)
        ]
        return max(near, key=lambda reading: reading.referee or 0.0, default=None)

    def _around(self, z_um: float) -> list[Reading]:
        # Of a range narrower than the depth of field, fine steps are the wider ones.
        reach_um = 2 * max(coarse_step_um(self.settings), fine_step_um(self.settings))
        return [r for r in self.curve if abs(r.z_um - z_um) <= reach_um]

    def background(self) -> Background:
        """The curve away from its best reading."""
        return background(self.curve, self.settings)

    def _end_with_the_best(self) -> tuple[float, int] | None:
        """The outermost position and its side, when nothing lower was read beyond the best."""
        low, high = self._ends()
        best, half_step_um = self.best().z_um, coarse_step_um(self.settings) / 2
        if best - low < half_step_um:
            return low, -1
        if high - best < half_step_um:
            return high, +1
        return None

    def _ends(self) -> tuple[float, float]:
        """The outermost positions.

        A start far outside the range does not count: between it and the range nothing was read.
        """
        start_um = self.curve[0].z_um
        searched = [reading.z_um for reading in self.curve[1:]] or [start_um]
        low, high = min(searched), max(searched)
        near_um = 1.5 * coarse_step_um(self.settings)
        if low - near_um <= start_um <= high + near_um:
            low, high = min(low, start_um), max(high, start_um)
        return low, high

    def _is_noise(self) -> bool:
        if self._is_evident():
            return False
        limit = PROVEN if self.fresh else WORTH_A_LOOK
        enough = bool(self.fresh) or len(self.curve) >= FEW
        return enough and self.background().chance > limit

    def _is_evident(self) -> bool:
        """Whether the best score means focus by itself, and the referee sees it there too.

        Then no other planes need be there to say so.
        """
        best = self.best()
        means_focus = best.score >= self.evident_score(best.z_um)
        return self.settings.absolute and means_focus and self._is_seen_by_referee(best)

    def _is_seen_by_referee(self, best: Reading) -> bool:
        # It sees nothing where it is not above 0, and a clipped frame is no witness.
        seen = [
            (reading.referee, reading.z_um)
            for reading in self.curve
            if reading.referee is not None and reading.referee > 0 and not reading.saturated
        ]
        return bool(seen) and abs(max(seen)[1] - best.z_um) <= self.settings.dof_um / 2

    def _is_one_frame(self, level: float) -> bool:
        """Whether all that stands out is one frame that came back: a plane of a recorded stack.

        Parameters
        ----------
        level : float
            Of the background.
        """
        half = level + (self.best().score - level) / 2
        high = [reading for reading in self.curve if reading.score >= half]
        return len(high) > 1 and len(distinct(high)) == 1

    def _rivals(self, share: float) -> tuple[Reading, ...]:
        return rivals(
            self.curve,
            best_z_um=self.best().z_um,
            apart_um=1.5 * coarse_step_um(self.settings),
            back=self.background(),
            share=share,
        )

    # -- judging ----------------------------------------------------------------------------

    def frames_refused(self) -> SearchResult | None:
        """``stale``, ``dark`` or ``saturated``: verdicts about the frames, not the curve."""
        # Clipped frames are all alike and show nothing: of them neither is a proof.
        clear = [reading for reading in self.curve if not reading.saturated]
        if is_stale(clear):
            return self.refuse(
                Verdict.STALE, "identical frames came back from different positions; check camera"
            )
        if clear == self.curve and all(reading.dark for reading in clear):
            return self.refuse(
                Verdict.DARK,
                f"nothing stands above offset and noise in any of {len(self.curve)} frames; "
                "check lamp, shutter, channel and exposure",
            )
        # A clipped peak is lower than its unclipped flanks, which then look best.
        reach_um = clear_um(self.settings)
        clipped = [r.z_um for r in self.curve if r.saturated]
        if not all(reading.dark for reading in clear):
            clipped = [z for z in clipped if abs(z - self.best().z_um) <= reach_um]
        if clipped:
            return self.refuse(
                Verdict.SATURATED,
                f"frames around the best position {self.best().z_um:.2f} um are saturated, the "
                f"first at {clipped[0]:.2f} um; shorten the exposure",
            )
        return None

    def flat_or_edge(self) -> SearchResult | None:
        """``flat`` on noise, ``edge`` when the best is where the range ends."""
        if self._is_noise():
            return self.flat("no score stands out of the noise")
        end = self._end_with_the_best()
        if end is None:
            return None
        return self._beyond(end, "the best score is", "the peak lies")

    def unproven(self) -> SearchResult | None:
        """``flat`` unless readings taken after the best was chosen agree that it is a peak."""
        back = self.background()
        fresh = [reading.score for reading in self.fresh]
        excess = sum(fresh) / len(fresh) - back.level
        error = back.noise * (1 / len(fresh) + 1 / max(3, len(self.curve) - len(fresh))) ** 0.5
        if excess < PROOF * error:
            return self.flat("readings around the best do not confirm it")
        best = self.best()
        unseen = best.referee is not None and not self._is_seen_by_referee(best)
        if unseen and self._is_one_frame(back.level):
            return self.flat("one frame stands out, which proves nothing anew when it comes back")
        if self.settings.absolute and best.score < known_score.LEAST_SCORE:
            return self.flat(
                f"the best score, {best.score:.2f}, is below {known_score.LEAST_SCORE}: "
                "nothing in the range is in focus"
            )
        return None

    def ambiguous(self) -> SearchResult | None:
        """``ambiguous`` when another peak compares with the best.

        Not where the best is in focus by itself: a run that comes upon it first locks there without
        knowing of the other.
        """
        found = self._rivals(COMPARABLE_SHARE)
        alone = self.settings.absolute and self.best().score >= known_score.ALONE_SCORE
        if not found or alone:
            return None
        return self.refuse(
            Verdict.AMBIGUOUS,
            f"peaks at {self.best().z_um:.2f} and {found[0].z_um:.2f} um compare "
            f"(scores {self.best().score:.4g} and {found[0].score:.4g})",
            z_um=self.best().z_um,
        )

    def judged(self) -> SearchResult:
        """The verdict after the confirmation."""
        assert self.final is not None
        back, start = self.background(), self.curve[0]
        height = self.best().score - back.level
        shortfall = self.best().score - self.final.score
        if self.final.score - back.level < max(PROOF * back.noise, 0.3 * height):
            return self.flat("the peak was not there when measured again")
        # At the same place the difference is chance, or light that has bleached since.
        loss = start.score - self.final.score
        clearly = loss > max(2 * back.noise, NEGLIGIBLE_LOSS * height)
        worse = clearly and self._has_left_the_start()
        if worse or self.start_is_as_sharp(noise=back.noise):
            return self.refuse(
                Verdict.WORSE_THAN_START,
                f"score {self.final.score:.4g} at {self.final.z_um:.2f} um is not better than "
                f"{start.score:.4g} at the start, {start.z_um:.2f} um",
                z_um=self.final.z_um,
            )
        if shortfall > max(4 * back.noise, 0.25 * height):
            return self.refuse(
                Verdict.AMBIGUOUS,
                f"the score at {self.final.z_um:.2f} um, {self.final.score:.4g}, does not "
                f"reproduce the best reading, {self.best().score:.4g}",
                z_um=self.final.z_um,
            )
        why = self.contradiction()
        if why is not None:
            return self.refuse(Verdict.AMBIGUOUS, why, z_um=self.final.z_um)
        refused = self._without_witness()
        if refused:
            return refused
        why = self.unsure_of_the_place()
        if why is not None:
            return self.refuse(Verdict.AMBIGUOUS, why, z_um=self.final.z_um)
        return self.locked(back)

    def _without_witness(self) -> SearchResult | None:
        """A refusal where the score alone is too low to tell focus from a hump beside it.

        Unless the referee sees its peak within half a depth of field, as in 169 of 175 such locks
        (seeds from 3 800 000 and from 5 000 000; four of the other six were farther off), and the
        specimen does not seem to lie beyond the range.
        """
        assert self.final is not None
        least = self.evident_score(self.final.z_um)
        if not self.settings.absolute or self.final.score >= least:
            return None
        if self.final.score < known_score.LEAST_SCORE:
            return self.flat(f"measured again, {self.final.score:.2f} is no score of focus")
        low = (
            f"the score at {self.final.z_um:.2f} um, {self.final.score:.2f}, is below {least}, and"
        )
        if least > known_score.EVIDENT_SCORE:
            return self.refuse(
                Verdict.AMBIGUOUS,
                f"{low} part of the range was not read",
                z_um=self.final.z_um,
            )
        if not self._referee_confirms(self.final.z_um):
            return self.refuse(
                Verdict.AMBIGUOUS,
                f"{low} the referee does not confirm the peak",
                z_um=self.final.z_um,
            )
        end = self.specimen_beyond()
        if end is None:
            return None
        return self._beyond(
            end, f"{low} large structures have most contrast", "the specimen seems to lie"
        )

    def _beyond(self, end: tuple[float, int], what: str, who: str) -> SearchResult:
        """``edge``: what is at this end of the range, and who lies beyond it."""
        end_um, side = end
        return self.refuse(
            Verdict.EDGE,
            f"{what} at the end of the range, {end_um:.2f} um; "
            f"{who} {'above' if side > 0 else 'below'} it",
            z_um=end_um,
        )

    def locked(self, back: Background) -> SearchResult:
        """The stage may stay where it was read last."""
        assert self.final is not None
        peak, dof_um = self.peak(), self.settings.dof_um
        place = self.place(peak)
        sigma_um = dof_um / 2
        if place is not None:
            by_score = trust.FITTED if self.settings.absolute else trust.FITTED_ANYHOW
            sigma_um = trust.sigma_um(
                by_score if place == peak else trust.REFEREED,
                score=self.final.score,
                own_um=place.sigma_um,
                moved_um=abs(place.z_um - self.final.z_um),
                dof_um=dof_um,
            )
        strength = (self.final.score - back.level) / back.noise
        others = self._rivals(COMPARABLE_SHARE)
        also = f"; {others[0].z_um:.2f} um scores {others[0].score:.2f}, too" if others else ""
        return self.result(
            Verdict.LOCKED,
            f"peak at {self.final.z_um:.2f} um, {strength:.0f} times the noise above background, "
            f"measured again{also}",
            z_um=self.final.z_um,
            sigma_um=sigma_um,
            score=peak.score if peak else self.final.score,
            confidence=trust.confidence(sigma_um, share=trust.WHOLE_RANGE, dof_um=dof_um),
        )

    def flat(self, why: str) -> SearchResult:
        """The verdict ``flat``, with the numbers."""
        back = self.background()
        return self.refuse(
            Verdict.FLAT,
            f"{why}: best {self.best().score:.4g}, background {back.level:.4g} +- {back.noise:.2g}",
        )

    def refuse(self, verdict: Verdict, reason: str, z_um: float | None = None) -> SearchResult:
        """Any verdict that keeps no peak."""
        return self.result(verdict, reason, z_um=z_um, confidence=self._held(verdict, z_um))

    def _held(self, verdict: Verdict, z_um: float | None) -> float:
        """Probability that a candidate which is not proven is focus all the same."""
        if z_um is None:
            return 0.0
        if not self.settings.absolute:
            return trust.AT_AN_END if verdict is Verdict.EDGE else trust.UNPROVEN
        belief = believe(self.curve, self.settings, absolute_score())
        return trust.REFUSED_SHARE * belief.within(z_um, self.settings.dof_um / 2)

    def result(
        self,
        verdict: Verdict,
        reason: str,
        *,
        z_um: float | None,
        sigma_um: float | None = None,
        score: float | None = None,
        confidence: float = 0.0,
    ) -> SearchResult:
        """The answer, with what the run knows of start and end."""
        return SearchResult(
            verdict=verdict,
            reason=reason,
            z_um=z_um,
            z_uncertainty_um=sigma_um,
            score=score,
            confidence=confidence,
            start_score=self.curve[0].score,
            final_score=self.final.score if self.final else None,
        )


def _is_sharper(one: Reading, other: Reading, *, by: float, top: float) -> bool:
    """Whether the referee calls one frame sharper by this share, and the score no less sharp.

    The referee sees nothing in a frame where it is not above 0.
    """
    if one.referee is None or other.referee is None or one.saturated:
        return False
    as_sharp = one.score >= max(other.score, top)
    return as_sharp and other.referee > 0 and one.referee > (1 + by) * other.referee
