"""A microscope over a Micro-Manager core: guarded moves, frames, and everything put back."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from devices.brake import Brake
from devices.camera import Camera
from devices.drive import FocusDrive
from devices.errors import DeviceConfigError, DeviceError, RestoreFailed, SpecimenMoved
from devices.micromanager import Core, load_core, release
from devices.snapshot import prepare, restore, take_snapshot
from devices.specimen import View, check_unchanged, look, objective_label, stage_xy_um
from devices.sweeping import Sweep, Sweeper
from devices.values import (
    AcquisitionSettings,
    Frame,
    MicroscopeSettings,
    MicroscopeState,
    Roi,
)

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus


class Acquisition:
    """What a run may ask for while its settings are applied."""

    def __init__(
        self,
        check: Callable[[], None],
        why_no_sweep: Callable[[Sequence[float]], str | None],
        sweep: Callable[[Sequence[float], Callable[[], bool]], Sweep],
        *,
        was_held: bool,
    ) -> None:
        self._check = check
        self._why_no_sweep = why_no_sweep
        self._sweep = sweep
        self._was_held = was_held
        self._z_kept = False

    @property
    def was_held(self) -> bool:
        """Whether a hardware autofocus held the stage before."""
        return self._was_held

    @property
    def z_kept(self) -> bool:
        """Whether the stage stays where it is when the acquisition ends."""
        return self._z_kept

    def keep_z(self) -> None:
        """Leave the stage where it is at the end, instead of returning it to the start."""
        self._z_kept = True

    def verify_unchanged(self) -> None:
        """Raise `SpecimenMoved` if objective, XY position or a turret changed since the start.

        Devices that the channel group or a shutter switches may change.
        """
        self._check()

    def why_no_sweep(self, z_um: Sequence[float]) -> str | None:
        """Why stage and camera cannot `sweep` these positions by themselves; None when they can."""
        return self._why_no_sweep(z_um)

    def sweep(self, z_um: Sequence[float], *, interrupted: Callable[[], bool]) -> Sweep:
        """Take one frame a position while the stage steps through them by itself.

        Every position and step is checked before anything is sent. `Microscope.halt` stops stage
        and camera at once, and so does ``interrupted``.

        Parameters
        ----------
        z_um : sequence of float
            Positions, um, in the direction of the approach.
        interrupted : callable
            Asked between frames.

        Raises
        ------
        LimitError, MoveRefused
            A position outside the limits of the rig or of this run, a step longer than
            ``max_step_um`` or against the approach; nothing was sent.
        Halted
            Stopped before the first frame.
        MoveFailed, DeviceTimeout
            The stage went where it was not sent, or did not come to rest; it was told to stop.
        SnapFailed
            The camera did not start.
        """
        return self._sweep(z_um, interrupted)


class Microscope:
    """Focus drive and camera of one rig.

    `halt`, `halted` and `state` may be used from any thread and never wait for the hardware;
    everything else belongs on the hardware thread.

    Parameters
    ----------
    core : CMMCorePlus
        A loaded core. It stays its owner's: `close` unloads nothing.
    settings : MicroscopeSettings
        ``config`` and ``adapter_paths`` are not used.

    Raises
    ------
    DeviceConfigError
        If the focus device or the camera is not there or of the wrong kind.
    """

    def __init__(self, core: CMMCorePlus, settings: MicroscopeSettings) -> None:
        self._settings = settings
        self._core = Core(core)
        self._owned: weakref.finalize | None = None
        focus = _device(self._core, "Focus", settings.focus_device, self._core.getFocusDevice())
        camera = _device(self._core, "Camera", settings.camera, self._core.getCameraDevice())
        self._role_before = self._core.getCameraDevice()
        if camera != self._role_before:
            self._core.setCameraDevice(camera)
        self._brake = Brake(lambda: self._drive.stop())
        self._camera = Camera(self._core, camera)
        self._drive = FocusDrive(self._core, focus, settings, self._brake, self._saw_z)
        self._sweeper = Sweeper(self._drive, self._camera, settings)
        self._one_at_a_time = threading.RLock()
        self._counting = threading.Lock()
        self._busy = 0
        self._state = self._unread_state(focus, camera)
        self._read_all()

    @classmethod
    def open(cls, settings: MicroscopeSettings) -> Microscope:
        """Load the rig's ``.cfg`` and check every device and role.

        Raises
        ------
        DeviceConfigError
            Naming the line and the device that cannot be used.
        """
        if settings.config is None:
            raise DeviceConfigError("`config` names no .cfg file to load")
        core = load_core(settings.config, settings.adapter_paths)
        try:
            microscope = cls(core, settings)
        except BaseException:
            release(core)
            raise
        microscope._owned = weakref.finalize(microscope, release, core)
        return microscope

    @property
    def settings(self) -> MicroscopeSettings:
        """The rig it was opened with."""
        return self._settings

    @property
    def state(self) -> MicroscopeState:
        """What was last known; from memory, at once, from any thread."""
        return replace(self._state, busy=self._busy > 0, halted=self._brake.pressed)

    @property
    def halted(self) -> bool:
        """Whether moves are forbidden since `halt`."""
        return self._brake.pressed

    def refresh(self) -> MicroscopeState:
        """Read everything from the hardware and return it."""
        with self._operation():
            self._read_all()
        return self.state

    def z_um(self) -> float:
        """Read the position of the focus drive, um."""
        with self._operation():
            return self._drive.z_um()

    def move_to(self, z_um: float) -> float:
        """Move the focus drive and return its position as read back, um.

        Raises
        ------
        LimitError
            Outside the soft limits, or not a number; nothing was sent.
        Halted
            Stopped before or during the move.
        MoveFailed
            The stage is not where it was sent; it has been told to stop.
        DeviceTimeout
            It did not arrive in time; it has been told to stop.
        """
        with self._operation():
            return self._drive.move_to(z_um)

    def move_straight_to(self, z_um: float) -> float:
        """Move as `move_to` does, but without taking up the play and without a rest.

        For measuring play and settle time; whoever wants to image what is at ``z_um`` uses
        `move_to`. Inside the same limits, in the same hops, stopped by the same `halt`.
        """
        with self._operation():
            return self._drive.move_straight_to(z_um)

    def snap(self) -> Frame:
        """Take one frame with the settings as they are.

        Raises
        ------
        SnapFailed
            If the camera gives no usable frame or is running live.
        """
        with self._operation():
            image, t_s = self._camera.snap()
            return Frame(
                image=image,
                z_um=self._drive.z_um(),
                exposure_ms=self._camera.exposure_ms(),
                binning=self._camera.binning(),
                bit_depth=self._camera.bit_depth(),
                t_s=t_s,
            )

    @contextmanager
    def acquisition(self, settings: AcquisitionSettings | None = None) -> Iterator[Acquisition]:
        """Apply settings for a run and put everything back afterwards, whatever happens.

        Live mode and continuous focus are stopped meanwhile. Put back are exposure, binning,
        ROI, channel, shutters, auto-shutter, continuous focus, live mode, and z unless
        `Acquisition.keep_z` was called; z also after `halt`, as the one move then allowed.
        Continuous focus would pull a stage that `keep_z` keeps to its own offset: it stays off
        then (`Acquisition.was_held`), as it does when the stage could not be brought back.

        When objective, a turret or XY has changed meanwhile, whatever ended the run, the stage
        returns only away from the specimen: nobody knows how near another objective may come.

        Auto-shutter stays as it is: on, every frame is lit for just its exposure; off, the light
        is what the user left.

        Raises
        ------
        SettingRefused
            If the hardware does not take one of the settings; all is put back.
        LimitError
            If the stage is outside its limits, so that z could not be put back.
        RestoreFailed
            Naming everything that could not be put back; its cause is what failed in the run.
        """
        with self._operation():
            z_um = self._drive.z_um()
            way_back = self._drive.way_back(z_um)
            before = take_snapshot(self._core, self._camera, z_um)
            view = look(self._core)
        permitted_um = self._settings.permitted_um(self._settings.into_limits(z_um))
        acquisition = Acquisition(
            lambda: self._verify(view),
            self._why_no_sweep,
            lambda positions, interrupted: self._sweep(positions, permitted_um, interrupted),
            was_held=before.continuous_focus,
        )

        def put_back(cause: BaseException | None) -> None:
            kept, return_stage = acquisition.z_kept, way_back
            if kept:
                return_stage = _nothing
            elif changed := self._what_changed(view, cause):
                return_stage = self._drive.unless_towards(z_um, way_back, changed)
            with self._operation():
                failures = restore(
                    self._core, self._camera, before, return_stage, self._read_all, z_kept=kept
                )
            if failures:
                raise RestoreFailed("could not put back " + "; ".join(failures)) from cause

        with self._occupied():
            try:
                with self._operation():
                    prepare(self._core, self._camera, before, settings or AcquisitionSettings())
                    self._read_all()
                yield acquisition
            except BaseException as error:
                put_back(error)
                raise
            put_back(None)

    def halt(self) -> Literal["stopped", "pending"]:
        """Forbid every further move and stop the stage; answers within 100 ms, from any thread.

        Returns
        -------
        {"stopped", "pending"}
            Whether the stage has taken the stop, or the adapter is still busy with something
            else (or refused it) and the stage finishes its present hop.
        """
        return self._brake.press()

    def resume(self) -> None:
        """Allow moves again.

        Call it when somebody asks for the next move, before that is queued: a stop pressed while
        it waits for its turn must count.
        """
        self._brake.release()

    def close(self) -> None:
        """Let go of the hardware; an owned core is stopped and unloaded. Idempotent."""
        with self._one_at_a_time:
            if self._core.dropped:
                return
            self._brake.wait_until_sent(self._settings.timeout_ms / 1000)
            try:
                if self._owned is None:
                    self._give_back_role()
            finally:
                self._core.drop()
                if self._owned is not None:
                    self._owned()

    def __enter__(self) -> Microscope:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _operation(self) -> Iterator[None]:
        with self._one_at_a_time, self._occupied():
            yield

    @contextmanager
    def _occupied(self) -> Iterator[None]:
        self._count_busy(1)
        try:
            yield
        finally:
            self._count_busy(-1)

    def _count_busy(self, more: int) -> None:
        with self._counting:
            self._busy += more

    def _verify(self, before: View) -> None:
        with self._operation():
            now = look(self._core)
        check_unchanged(before, now, xy_tolerance_um=self._settings.xy_tolerance_um)

    def _what_changed(self, before: View, cause: BaseException | None) -> str | None:
        """What is no longer as it was, whatever ended the run; what cannot be read may be that."""
        if isinstance(cause, SpecimenMoved):
            return str(cause)
        try:
            self._verify(before)
        except DeviceError as error:
            return str(error)
        return None

    def _why_no_sweep(self, z_um: Sequence[float]) -> str | None:
        with self._operation():
            return self._sweeper.refusal(z_um)

    def _sweep(
        self,
        z_um: Sequence[float],
        permitted_um: tuple[float, float],
        interrupted: Callable[[], bool],
    ) -> Sweep:
        def stopped() -> bool:
            return self._brake.pressed or interrupted()

        with self._operation():
            return self._sweeper.sweep(z_um, permitted_um=permitted_um, interrupted=stopped)

    def _saw_z(self, z_um: float) -> None:
        self._state = replace(self._state, z_um=z_um, updated_s=time.monotonic())

    def _read_all(self) -> None:
        group = self._core.getChannelGroup()
        self._state = replace(
            self._state,
            z_um=self._drive.z_um(),
            exposure_ms=self._camera.exposure_ms(),
            roi=self._camera.roi(),
            binning=self._camera.binning(),
            channel=(self._core.getCurrentConfig(group) or None) if group else None,
            objective=objective_label(self._core),
            pixel_size_um=float(self._core.getPixelSizeUm()),
            xy_um=stage_xy_um(self._core),
            devices=self._core.devices(),
            updated_s=time.monotonic(),
        )

    def _unread_state(self, focus: str, camera: str) -> MicroscopeState:
        return MicroscopeState(
            z_um=math.nan,
            z_min_um=self._settings.z_min_um,
            z_max_um=self._settings.z_max_um,
            focus_device=focus,
            camera=camera,
            exposure_ms=math.nan,
            roi=Roi(0, 0, 0, 0),
            binning=1,
            channel=None,
            objective=None,
            pixel_size_um=0.0,
            xy_um=None,
            busy=False,
            halted=False,
            devices=(),
            updated_s=-math.inf,
        )

    def _give_back_role(self) -> None:
        if self._core.getCameraDevice() != self._role_before:
            self._core.setCameraDevice(self._role_before)


def _device(core: Core, role: str, named: str | None, current: str) -> str:
    """Choose the device of a role and check that it is there and of the right kind."""
    suitable = core.labels_of({"Focus": "StageDevice", "Camera": "CameraDevice"}[role])
    label = named or current
    if label in suitable:
        return label
    asked = f"{label!r} is no {role} device" if label else f"no device has the {role} role"
    raise DeviceConfigError(
        f"{asked}; loaded and suitable: {', '.join(suitable) or 'none'}. Name one in the rig's "
        f"settings or by a line `Property,Core,{role},<label>` in the .cfg"
    )


def _nothing() -> None:
    """Leave the stage where it is."""
