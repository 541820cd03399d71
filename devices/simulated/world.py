"""The world that simulated devices share: a specimen, a light path, a focus drive, a clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from devices.simulated.carriage import Carriage
from devices.simulated.clock import Clock
from devices.simulated.optics import depth_of_field_um
from devices.simulated.render import Image, Renderer, camera_counts
from devices.simulated.settings import (
    FocusDraw,
    Light,
    Mechanics,
    Mounting,
    Pace,
    Scene,
    Sensor,
)
from devices.simulated.specimens import make_specimen

Roi = tuple[int, int, int, int]


class World:
    """One simulated microscope; deterministic for its settings and history while nothing sleeps.

    Attributes
    ----------
    scene, light, sensor, mounting, mechanics, focus_draw, pace : settings
        In force from the next move or frame on; replaced as a whole.
    lit : bool
        Whether light reaches the specimen.
    fluorescence_left : float
        Share of the fluorescence that is not bleached yet, 0..1; set it to 1 for a fresh specimen.
    """

    def __init__(self) -> None:
        self._scene = Scene()
        self.light = Light()
        self.sensor = Sensor()
        self.mounting = Mounting()
        self.mechanics = Mechanics()
        self._focus_draw = FocusDraw()
        self.lit = True
        self.fluorescence_left = 1.0
        self._clock = Clock()
        self._carriage = Carriage(np.random.default_rng(0))
        self._focus_um, self._focus_set_s = 0.0, 0.0
        self._xy_um = (0.0, 0.0)
        self._sequence: tuple[float, ...] = ()
        self._ahead: Iterator[float] = iter(())
        self._frames = 0
        self._last: NDArray[np.generic] | None = None
        self._renderer: Renderer | None = None
        # The stage answers while the camera exposes, from another thread.
        self._state = threading.RLock()

    @property
    def scene(self) -> Scene:
        """Specimen and light path."""
        return self._scene

    @scene.setter
    def scene(self, scene: Scene) -> None:
        _ = scene.objective  # refuses an NA that its immersion cannot have
        if scene != self._scene:
            self._scene, self._renderer = scene, None

    @property
    def pace(self) -> Pace:
        """How fast the clock runs."""
        return Pace(self._clock.scale)

    @pace.setter
    def pace(self, pace: Pace) -> None:
        self._clock.set_scale(pace.time_scale)

    @property
    def focus_draw(self) -> FocusDraw:
        """How the true focus was drawn."""
        return self._focus_draw

    @focus_draw.setter
    def focus_draw(self, draw: FocusDraw) -> None:
        if draw.seed >= 0:
            share = np.random.default_rng(draw.seed).uniform(-0.5, 0.5)
            self.true_focus_um = float(share * draw.range_um)
        self._focus_draw = draw

    @property
    def true_focus_um(self) -> float:
        """Carriage position at which the middle of the frame is in focus now, um."""
        drifted_s = self._clock.now_s() - self._focus_set_s
        return self._focus_um + self.mechanics.drift_um_s * drifted_s + self._rise_um()

    @true_focus_um.setter
    def true_focus_um(self, z_um: float) -> None:
        with self._state:
            self._focus_um = z_um - self._rise_um()
            self._focus_set_s = self._clock.now_s()
            self._focus_draw = FocusDraw(-1, self._focus_draw.range_um)

    @property
    def true_defocus_um(self) -> float:
        """Carriage position minus true focus now, um."""
        return self._carriage.true_um(self._clock.now_s()) - self.true_focus_um

    @property
    def true_sharpest_um(self) -> float:
        """Carriage position of the noise-free frame with most detail, um.

        Differs from the true focus with aberration, and by a fraction of a depth of field in thick
        specimens. For phase specimens in the bright field, which have no such plane, the true
        focus. Takes 25 renderings for every new scene, so it is no property: the core reads all of
        those at once.
        """
        return self.true_focus_um + self._rendered().sharpest_defocus_um

    @property
    def layers_um(self) -> tuple[float, ...]:
        """Carriage positions at which each layer of the specimen is in focus now, um."""
        return tuple(self.true_focus_um + offset for offset in self._rendered().layers_um)

    def begin_anew(self) -> None:
        """Undo bleaching, drift and moves and draw the same chances again, as after loading.

        A run can then be repeated exactly.
        """
        with self._state:
            self.fluorescence_left = 1.0
            self._frames, self._last = 0, None
            self._focus_set_s = self._clock.now_s()
            self._carriage = Carriage(np.random.default_rng(0))

    def go_to_z(self, z_um: float) -> None:
        """Send the focus drive to a position; ValueError outside its limits."""
        self._check_z(z_um)
        with self._state:
            travel_s = self._carriage.go_to(z_um, self._clock.now_s(), self.mechanics)
            if self._clock.scale == 0:
                self._clock.wait(travel_s)

    def load_sequence(self, z_um: tuple[float, ...]) -> None:
        """Keep positions to step through; ValueError if one is outside the drive's limits."""
        for z in z_um:
            self._check_z(z)
        self._sequence = z_um

    def start_sequence(self) -> None:
        """Go to the first position of the sequence, and on with every exposure that ends."""
        with self._state:
            self._ahead = iter(self._sequence)
            self._step()

    def stop_sequence(self) -> None:
        """Stay where the sequence is."""
        with self._state:
            self._ahead = iter(())

    def _step(self) -> None:
        with self._state:
            z_um = next(self._ahead, None)
            # Sent to where it is, a drive does not move, and stops nowhere else.
            if z_um is not None and abs(z_um - self.z_um()) > 1e-9:
                self.go_to_z(z_um)

    def _check_z(self, z_um: float) -> None:
        low, high = self.mechanics.lower_um, self.mechanics.upper_um
        if not low <= z_um <= high:
            raise ValueError(f"z = {z_um} um is outside the drive's limits {low:g}..{high:g} um")

    def stop_z(self) -> None:
        """Stop the focus drive where it is."""
        with self._state:
            self._carriage.stop(self._clock.now_s())

    def z_um(self) -> float:
        """Position as the focus drive reads it back, um."""
        return self._carriage.read_um(self._clock.now_s())

    def z_busy(self) -> bool:
        """Whether the focus drive is moving."""
        return self._carriage.busy(self._clock.now_s())

    @property
    def xy_um(self) -> tuple[float, float]:
        """Position of the XY stage, um."""
        return self._xy_um

    @xy_um.setter
    def xy_um(self, xy_um: tuple[float, float]) -> None:
        if not np.isfinite(xy_um).all():
            raise ValueError(f"x, y = {xy_um} um is not a position")
        self._xy_um = xy_um

    def expose(self, exposure_ms: float, binning: int, roi: Roi) -> NDArray[np.generic]:
        """Take a frame of ``roi`` (x, y, width, height in binned pixels); takes ``exposure_ms``."""
        half_s = exposure_ms / 2000
        self._clock.wait(half_s)
        with self._state:
            defocus_um, frame_number = self.true_defocus_um, self._frames
            self._frames += 1
        electrons = self._electrons(defocus_um, exposure_ms, frame_number)
        counts = self._read_out(_binned(electrons, binning), binning, roi, frame_number)
        self._bleach(exposure_ms)
        self._clock.wait(half_s)
        self._step()
        if self.sensor.stale and self._last is not None and self._last.shape == counts.shape:
            return self._last
        self._last = counts
        return counts

    def noise_free(self, defocus_um: float) -> Image:
        """Photons a pixel of the whole sensor in ``PhotonsExposure_ms``, steady and unbleached."""
        picture = self._picture(defocus_um)
        return self.light.photons * picture + np.float32(self.light.background)

    def _electrons(self, defocus_um: float, exposure_ms: float, frame_number: int) -> Image:
        shape = (self.sensor.height_px, self.sensor.width_px)
        if not self.lit:
            return np.zeros(shape, np.float32)
        light = self.light
        dose = exposure_ms / light.photons_exposure_ms
        rng = np.random.default_rng([self.sensor.noise_seed, frame_number, 1])
        lamp = max(0.0, 1 + light.flicker * rng.standard_normal()) * _corners(
            shape, light.unevenness
        )
        signal = light.photons * self._left() * self._picture(defocus_um)
        return np.asarray((signal + light.background) * (dose * lamp), np.float32)

    def _left(self) -> float:
        """Share of the light that bleaching has left; transmitted light does not bleach."""
        return 1.0 if self._rendered().transmitted else self.fluorescence_left

    def _bleach(self, exposure_ms: float) -> None:
        if self.lit:
            dose = exposure_ms / self.light.photons_exposure_ms
            self.fluorescence_left *= (1 - self.light.bleaching) ** dose

    def _picture(self, defocus_um: float) -> Image:
        """Relative image of the sensor's field, each place at its own defocus when tilted."""
        mounting, height, width = self.mounting, self.sensor.height_px, self.sensor.width_px
        if mounting == Mounting():
            return self._flat(defocus_um)[:height, :width]
        rise_um = mounting.tilt_y_um * np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
        rise_um = rise_um + mounting.tilt_x_um * np.linspace(-0.5, 0.5, width, dtype=np.float32)
        local_um = defocus_um - rise_um
        low, high = float(local_um.min()), float(local_um.max())
        quarter_dof_um = depth_of_field_um(self._scene.objective) / 4
        levels = np.linspace(low, high, int(np.clip((high - low) / quarter_dof_um, 1, 32)) + 1)
        step_um = levels[1] - levels[0]
        picture = np.zeros((height, width), np.float32)
        for level in levels:
            weight = np.maximum(1 - np.abs(local_um - level) / step_um, 0)
            picture += weight.astype(np.float32) * self._flat(float(level))[:height, :width]
        return picture

    def _flat(self, defocus_um: float) -> Image:
        pixel_um = self._scene.pixel_size_um
        x_um, y_um = self._xy_um
        return self._rendered().relative(defocus_um, (-y_um / pixel_um, -x_um / pixel_um))

    def _rise_um(self) -> float:
        """How much higher the tilted specimen lies where the XY stage is now, um."""
        width_um = self.sensor.width_px * self._scene.pixel_size_um
        height_um = self.sensor.height_px * self._scene.pixel_size_um
        x_um, y_um = self._xy_um
        rise_x_um = self.mounting.tilt_x_um * x_um / width_um
        return rise_x_um + self.mounting.tilt_y_um * y_um / height_um

    def _rendered(self) -> Renderer:
        """Draw the specimen when it is first needed, or when the sensor outgrew it."""
        side = max(self._scene.size_px, self.sensor.height_px, self.sensor.width_px)
        side = fft.next_fast_len(side, real=True)
        if self._renderer is None or self._renderer.shape != (side, side):
            specimen = make_specimen(
                self._scene.kind,
                shape=(side, side),
                pixel_size_um=self._scene.pixel_size_um,
                rng=np.random.default_rng(self._scene.seed),
            )
            self._renderer = Renderer(
                specimen,
                self._scene.objective,
                condenser_na_ratio=self._scene.condenser_na_ratio,
                contrast=self._scene.contrast,
            )
        return self._renderer

    def _read_out(
        self, electrons: Image, binning: int, roi: Roi, frame_number: int
    ) -> NDArray[np.generic]:
        sensor = self.sensor
        x, y, width, height = roi
        for row, column in self._hot_pixels():
            if row // binning < electrons.shape[0] and column // binning < electrons.shape[1]:
                electrons[row // binning, column // binning] += sensor.hot_pixel_e
        counts = camera_counts(
            electrons[y : y + height, x : x + width],
            rng=np.random.default_rng([sensor.noise_seed, frame_number, 0]),
            read_noise_e=sensor.read_noise_e,
            gain=sensor.gain,
            offset=sensor.offset,
            bit_depth=sensor.bit_depth,
        )
        return counts.astype(np.uint8) if sensor.bit_depth <= 8 else counts

    def _hot_pixels(self) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.sensor.noise_seed, 2])
        size = (self.sensor.hot_pixels, 2)
        return rng.integers((0, 0), (self.sensor.height_px, self.sensor.width_px), size)


def _corners(shape: tuple[int, int], unevenness: float) -> Image | float:
    """Illumination: 1 in the middle, 1 - unevenness in the corners."""
    if unevenness == 0:
        return 1.0
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    return 1 - np.float32(unevenness) * (y**2 + x**2) / 2


def _binned(electrons: Image, binning: int) -> Image:
    """Sum squares of pixels before read-out, so that they share one read noise."""
    if binning == 1:
        return electrons
    height, width = (side // binning for side in electrons.shape)
    cut = electrons[: height * binning, : width * binning]
    return cut.reshape(height, binning, width, binning).sum(axis=(1, 3))
