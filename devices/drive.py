"""The focus drive: every command to the stage goes through here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from devices.brake import Brake
from devices.errors import (
    DeviceError,
    DeviceTimeout,
    Halted,
    LimitError,
    MoveFailed,
    MoveRefused,
)
from devices.micromanager import Core
from devices.values import MicroscopeSettings

POLL_S = 0.002
# Stages report "not busy" before they start and between corrections; one that has not come
# nearer for this long has stopped for good.
STALL_S = 0.5


class FocusDrive:
    """Moves the stage inside its limits, in verified hops, arriving from one side.

    Parameters
    ----------
    core : Core
        The core that has the stage.
    label : str
        The stage.
    settings : MicroscopeSettings
        Limits, hop length, backlash, tolerance and waiting times.
    brake : Brake
        Asked before every hop and while the stage travels.
    on_position : callable
        Told every position that is read, um.
    """

    def __init__(
        self,
        core: Core,
        label: str,
        settings: MicroscopeSettings,
        brake: Brake,
        on_position: Callable[[float], None],
    ) -> None:
        self._core = core
        self._label = label
        self._settings = settings
        self._brake = brake
        self._on_position = on_position
        self._approach = -1 if settings.towards_specimen == "-" else 1
        self._seated_um = math.nan
        self._commands = 0
        self._armed = False

    def z_um(self) -> float:
        """Read the position, um."""
        z_um = float(self._core.getPosition(self._label))
        if not math.isfinite(z_um):
            raise DeviceError(f"stage {self._label!r} reports its position as {z_um}")
        self._on_position(z_um)
        return z_um

    def move_to(self, z_um: float) -> float:
        """Go to a position and return where the stage says it is, um.

        Raises
        ------
        LimitError
            Outside the soft limits, or not a number; nothing was sent.
        Halted
            The brake was pressed, before or during the move.
        MoveFailed
            The stage refused, stopped short, or is not where it was sent.
        DeviceTimeout
            It was still travelling after ``timeout_ms``.
        """
        self._check_limits(z_um)
        return self._travel(z_um, lambda: self._brake.pressed)

    def move_straight_to(self, z_um: float) -> float:
        """Go to a position as `move_to` does, but in one way: no run-up, no rest after it.

        What play there is on the far side of the approach stays, and shows; see `move_to` for the
        errors.
        """
        self._check_limits(z_um)
        return self._travel(z_um, lambda: self._brake.pressed, straight=True)

    def return_to(self, z_um: float) -> float:
        """Go back to where a run began: the one move allowed while the brake is pressed.

        Pressing the brake again stops this one, too. A start that read back just beyond a limit
        (within the arrival tolerance, see `way_back`) is returned to at that limit.
        """
        presses = self._brake.presses
        inside_um = self._settings.into_limits(z_um)
        return self._travel(inside_um, lambda: self._brake.presses != presses)

    def way_back(self, z_um: float) -> Callable[[], None]:
        """Return a function that goes back to ``z_um``, if the stage was sent anywhere since.

        Raises
        ------
        LimitError
            If ``z_um`` is outside the soft limits by more than the arrival tolerance.
        """
        if not self._arrived(z_um, self._settings.into_limits(z_um)):
            raise LimitError(
                f"the stage is at {z_um:g} um, outside its limits {self._limits()}; "
                "move it inside first"
            )
        commands = self._commands

        def go_back() -> None:
            if self._commands != commands:
                self.return_to(z_um)

        return go_back

    def unless_towards(
        self, z_um: float, way_back: Callable[[], None], why: str
    ) -> Callable[[], None]:
        """``way_back`` to ``z_um``, made only if it does not lead towards the specimen.

        The function returned raises `MoveRefused` where it would, saying ``why`` it must not.
        """

        def go_back() -> None:
            here_um = self.z_um()
            if (z_um - here_um) * self._approach > self._settings.arrival_tolerance_um:
                raise MoveRefused(
                    f"left at {here_um:g} um, for the start at {z_um:g} um is nearer to the "
                    f"specimen, and: {why}; look, then move it"
                )
            way_back()

        return go_back

    def stop(self) -> None:
        """Stop the stage where it is, and a sequence it is stepping through; from any thread."""
        try:
            if self._armed:
                # First, or the camera's next trigger would send the stage on.
                self._core.stopStageSequence(self._label)
        finally:
            self._core.stop(self._label)

    def longest_sequence(self) -> int:
        """How many positions the stage can be given to step through; 0 if it cannot do that."""
        if not self._core.isStageSequenceable(self._label):
            return 0
        return int(self._core.getStageSequenceMaxLength(self._label))

    def check_sequence(self, z_um: Sequence[float], permitted_um: tuple[float, float]) -> None:
        """Refuse a sequence of which any position or step is not allowed; sends nothing.

        Parameters
        ----------
        z_um : sequence of float
            Positions, um.
        permitted_um : tuple of (float, float)
            Lowest and highest position that this run may visit, um.

        Raises
        ------
        LimitError
            A position outside the soft limits or outside ``permitted_um``.
        MoveRefused
            As `check_steps`.
        """
        low_um, high_um = permitted_um
        for z in z_um:
            self._check_limits(z)
            if not low_um <= z <= high_um:
                raise LimitError(
                    f"z_um = {z:g} um is outside what this run may visit, "
                    f"{low_um:g} to {high_um:g} um"
                )
        self.check_steps(z_um)

    def check_steps(self, z_um: Sequence[float]) -> None:
        """Refuse a sequence with a step that must not be made in one go; sends nothing.

        Raises
        ------
        MoveRefused
            A step longer than ``max_step_um``, or against the approach, where play would leave
            the specimen at another z than the stage reads back.
        """
        longest_um = self._settings.max_step_um
        for before, after in pairwise(z_um):
            if longest_um is not None and abs(after - before) > longest_um:
                raise MoveRefused(
                    f"the step from {before:g} to {after:g} um is longer than "
                    f"max_step_um = {longest_um:g}"
                )
            if (after - before) * self._approach <= 0:
                raise MoveRefused(
                    f"the step from {before:g} to {after:g} um is against the approach; "
                    "a sequence runs towards the specimen"
                )

    @contextmanager
    def sequence(self, z_um: Sequence[float]) -> Iterator[None]:
        """Let the stage step through checked positions, one a trigger; afterwards it heeds none.

        It must stand at the first one. The last one is loaded twice: a stage that begins at its
        first position and one that goes there at the first trigger then end at the same place,
        and none of them goes back to the first.
        """
        _refuse_if(lambda: self._brake.pressed, "stopped before the sequence was started")
        self._seated_um = math.nan
        self._commands += 1
        self._core.loadStageSequence(self._label, [*z_um, z_um[-1]])
        self._armed = True
        try:
            self._core.startStageSequence(self._label)
            yield
        except DeviceError as error:
            raise self._stopped(error) from error.__cause__
        except BaseException:
            self.stop()
            raise
        finally:
            self._core.stopStageSequence(self._label)
            self._armed = False

    def arrive(self, from_um: float, z_um: float) -> float:
        """Wait until the stage is at ``z_um``, where a sequence that began at ``from_um`` ends.

        Raises
        ------
        Halted, MoveFailed, DeviceTimeout
            As `move_to`; the stage has been told to stop.
        """
        try:
            return self._arrive(from_um, z_um, lambda: self._brake.pressed)
        except DeviceError as error:
            raise self._stopped(error) from error.__cause__

    def _check_limits(self, z_um: float) -> None:
        if not math.isfinite(z_um):
            raise LimitError(f"z_um = {z_um} is not a position")
        if self._settings.into_limits(z_um) != z_um:
            raise LimitError(f"z_um = {z_um:g} um is outside the limits {self._limits()}")

    def _limits(self) -> str:
        return f"{self._settings.z_min_um:g} to {self._settings.z_max_um:g} um"

    def _travel(
        self, z_um: float, forbidden: Callable[[], bool], *, straight: bool = False
    ) -> float:
        _refuse_if(forbidden, "moves are forbidden since a stop was requested; resume first")
        self._brake.wait_until_sent(self._settings.timeout_ms / 1000)
        here_um = self.z_um()
        for leg_um in (z_um,) if straight else self._legs(here_um, z_um):
            self._seated_um = math.nan
            here_um = self._leg(here_um, leg_um, forbidden)
        if straight:
            return here_um  # not seated: the play may be on either side now
        if self._settings.settle_ms > 0:
            here_um = self._settled(z_um, forbidden)
        self._seated_um = here_um
        return here_um

    def _settled(self, z_um: float, forbidden: Callable[[], bool]) -> float:
        try:
            self._rest(forbidden)
            here_um = self.z_um()
            self._check_arrival(z_um, here_um)
        except DeviceError as error:
            raise self._stopped(error) from error.__cause__
        return here_um

    def _legs(self, start_um: float, z_um: float) -> Iterator[float]:
        """Go past the target first unless the approach takes up the backlash anyway.

        Near a limit there is less room to go past, and the limit wins.
        """
        backlash_um = self._settings.backlash_um
        run_up_um = (z_um - start_um) * self._approach
        seated = abs(start_um - self._seated_um) <= self._settings.arrival_tolerance_um
        if backlash_um > 0 and run_up_um < (0 if seated else backlash_um):
            yield self._settings.into_limits(z_um - self._approach * backlash_um)
        yield z_um

    def _leg(self, here_um: float, z_um: float, forbidden: Callable[[], bool]) -> float:
        while True:
            hop_um = self._next_hop(here_um, z_um)
            before_um, here_um = here_um, self._hop(here_um, hop_um, forbidden)
            if hop_um == z_um:
                return here_um
            if abs(z_um - here_um) >= abs(z_um - before_um):
                raise self._stopped(
                    MoveFailed(
                        f"stage {self._label!r} does not get nearer to {z_um:g} um: "
                        f"{before_um:g} um, then {here_um:g} um"
                    )
                )

    def _next_hop(self, here_um: float, z_um: float) -> float:
        longest_um = self._settings.max_step_um
        if longest_um is None or abs(z_um - here_um) <= longest_um:
            return z_um
        return here_um + math.copysign(longest_um, z_um - here_um)

    def _hop(self, from_um: float, z_um: float, forbidden: Callable[[], bool]) -> float:
        _refuse_if(forbidden, f"stopped before going on to {z_um:g} um")
        try:
            self._commands += 1
            self._core.setPosition(self._label, z_um)
            return self._arrive(from_um, z_um, forbidden)
        except DeviceError as error:
            # Also when halted: the stop may have reached the stage before this hop did.
            raise self._stopped(error) from error.__cause__

    def _arrive(self, from_um: float, z_um: float, forbidden: Callable[[], bool]) -> float:
        tolerance_um = self._settings.arrival_tolerance_um
        deadline_s = time.monotonic() + self._settings.timeout_ms / 1000
        left_um, nearer_s = math.inf, time.monotonic()
        while True:
            _refuse_if(forbidden, f"stopped on the way to {z_um:g} um")
            busy = bool(self._core.deviceBusy(self._label))
            here_um = self.z_um()
            if not busy and self._arrived(z_um, here_um):
                return here_um
            if abs(z_um - here_um) > abs(z_um - from_um) + tolerance_um:
                raise MoveFailed(
                    f"stage {self._label!r} was sent from {from_um:g} um to {z_um:g} um and runs "
                    f"the wrong way: it is at {here_um:g} um"
                )
            now_s = time.monotonic()
            if abs(z_um - here_um) < left_um - tolerance_um / 10:
                left_um, nearer_s = abs(z_um - here_um), now_s
            if not busy and now_s - nearer_s > STALL_S:
                self._check_arrival(z_um, here_um)
            if now_s > deadline_s:
                raise DeviceTimeout(
                    f"stage {self._label!r} was sent to {z_um:g} um and is still "
                    f"{'busy' if busy else 'under way'} at {here_um:g} um after "
                    f"{self._settings.timeout_ms:g} ms"
                )
            time.sleep(POLL_S)

    def _arrived(self, z_um: float, here_um: float) -> bool:
        return abs(here_um - z_um) <= self._settings.arrival_tolerance_um

    def _check_arrival(self, z_um: float, here_um: float) -> None:
        if not self._arrived(z_um, here_um):
            raise MoveFailed(
                f"stage {self._label!r} was sent to {z_um:g} um but is at {here_um:g} um "
                f"(tolerance {self._settings.arrival_tolerance_um:g} um)"
            )

    def _rest(self, forbidden: Callable[[], bool]) -> None:
        until_s = time.monotonic() + self._settings.settle_ms / 1000
        while (left_s := until_s - time.monotonic()) > 0:
            _refuse_if(forbidden, "stopped while the stage settled")
            time.sleep(min(left_s, 0.01))

    def _stopped(self, error: DeviceError) -> DeviceError:
        """Stop the stage after a failure, which gains what went wrong with that."""
        try:
            self.stop()
        except DeviceError as also:
            return type(error)(f"{error}; and stopping the stage failed: {also}")
        return error


def _refuse_if(forbidden: Callable[[], bool], message: str) -> None:
    if forbidden():
        raise Halted(message)
