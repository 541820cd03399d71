"""Everything that can be set about the simulated microscope; each knob is a property."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from devices.knob import knob
from devices.simulated.contrast import Contrast, InterferenceContrast, PhaseContrast
from devices.simulated.optics import Objective
from devices.simulated.specimens import KINDS

_CONTRASTS: Mapping[str, Contrast | None] = MappingProxyType(
    {
        "brightfield": None,
        "phase_contrast": PhaseContrast(),
        "interference_contrast": InterferenceContrast(),
    }
)
_FOREVER = 1e9  # larger than anything meant: limits make the core refuse NaN and infinity


@dataclass(frozen=True)
class Scene:
    """The specimen and the light path; a change draws or renders anew.

    ``SpecimenSize_px`` is the side of the torus over which the XY stage moves; a larger sensor
    makes it larger. ``CondenserRatio`` is condenser NA / objective NA, for transmitted light;
    phase contrast brings its own condenser. ``Contrast`` does nothing to fluorescence.
    """

    kind: str = knob("Specimen", "nuclei", choices=tuple(KINDS))
    seed: int = knob("Seed", 1, low=0, high=2**31 - 1)
    size_px: int = knob("SpecimenSize_px", 640, low=64, high=4096)
    na: float = knob("NA", 0.75, low=0.01, high=1.7)
    immersion_index: float = knob("ImmersionIndex", 1.0, low=1.0, high=1.8)
    wavelength_um: float = knob("Wavelength_um", 0.53, low=0.2, high=2.0)
    pixel_size_um: float = knob("PixelSize_um", 0.325, low=0.01, high=50.0)
    spherical_waves: float = knob("SphericalAberration_waves", 0.0, low=-2.0, high=2.0)
    condenser_na_ratio: float = knob("CondenserRatio", 0.5, low=0.05, high=1.0)
    contrast_name: str = knob("Contrast", "brightfield", choices=tuple(_CONTRASTS))

    @property
    def contrast(self) -> Contrast | None:
        """What makes unstained structure visible; None is the bright field."""
        return _CONTRASTS[self.contrast_name]

    @property
    def objective(self) -> Objective:
        """The objective with its light and camera pixel."""
        return Objective(
            na=self.na,
            immersion_index=self.immersion_index,
            wavelength_um=self.wavelength_um,
            pixel_size_um=self.pixel_size_um,
            spherical_waves=self.spherical_waves,
        )


@dataclass(frozen=True)
class Light:
    """The lamp and what it does to the specimen.

    ``Photons`` and ``Background`` are a pixel's, at binning 1 and an exposure of
    ``PhotonsExposure_ms``; other exposures scale them. ``Bleaching`` is the share of the
    remaining fluorescence that such an exposure destroys. ``LampFlicker`` is the relative
    standard deviation from frame to frame. ``UnevenIllumination`` is the share missing in the
    corners of the frame.
    """

    photons: float = knob("Photons", 300.0, low=0.0, high=1e6)
    background: float = knob("Background", 5.0, low=0.0, high=1e6)
    photons_exposure_ms: float = knob("PhotonsExposure_ms", 10.0, low=0.001, high=1e6)
    bleaching: float = knob("Bleaching", 0.0, low=0.0, high=1.0)
    flicker: float = knob("LampFlicker", 0.0, low=0.0, high=1.0)
    unevenness: float = knob("UnevenIllumination", 0.0, low=0.0, high=1.0)


@dataclass(frozen=True)
class Sensor:
    """The camera chip.

    ``Gain`` is counts an electron, ``Offset`` counts in the dark; counts saturate at
    2^``BitDepth`` - 1. ``HotPixels`` pixels, the same in every frame, collect ``HotPixel_e``
    electrons besides the light. With ``StaleFrames`` = 1 the camera delivers its last frame again.
    """

    width_px: int = knob("SensorWidth_px", 512, low=16, high=4096)
    height_px: int = knob("SensorHeight_px", 512, low=16, high=4096)
    read_noise_e: float = knob("ReadNoise_e", 1.5, low=0.0, high=1000.0)
    gain: float = knob("Gain", 1.0, low=0.001, high=1000.0)
    offset: float = knob("Offset", 100.0, low=0.0, high=60000.0)
    bit_depth: int = knob("BitDepth", 16, low=4, high=16)
    hot_pixels: int = knob("HotPixels", 0, low=0, high=100000)
    hot_pixel_e: float = knob("HotPixel_e", 2000.0, low=0.0, high=1e6)
    noise_seed: int = knob("NoiseSeed", 1, low=0, high=2**31 - 1)
    stale: int = knob("StaleFrames", 0, low=0, high=1)


@dataclass(frozen=True)
class Mounting:
    """How the specimen lies: rise of its plane over the width and height of the frame, um.

    The XY stage carries the slope along: a frame further on is in focus at another z.
    """

    tilt_x_um: float = knob("TiltX_um", 0.0, low=-1000.0, high=1000.0)
    tilt_y_um: float = knob("TiltY_um", 0.0, low=-1000.0, high=1000.0)


@dataclass(frozen=True)
class Mechanics:
    """The focus drive.

    ``Backlash_um`` is the play between its screw, which is what it reads back, and the carriage.
    After a move the carriage swings for ``SettleTime_ms`` although the drive is no longer busy.
    ``Speed_um_s`` = 0 travels in no time. ``Repeatability_um`` is the standard deviation of where
    the screw really stops. ``Drift_um_s`` moves the plane in focus away. With ``Stuck`` = 1 the
    carriage stays although the drive reads back new positions. ``SequenceMaxLength`` is the number
    of positions the drive can step through by itself, one a frame; with 0 it cannot.
    """

    backlash_um: float = knob("Backlash_um", 0.0, low=0.0, high=100.0)
    settle_ms: float = knob("SettleTime_ms", 0.0, low=0.0, high=60000.0)
    speed_um_s: float = knob("Speed_um_s", 0.0, low=0.0, high=_FOREVER)
    repeatability_um: float = knob("Repeatability_um", 0.0, low=0.0, high=100.0)
    drift_um_s: float = knob("Drift_um_s", 0.0, low=-1000.0, high=1000.0)
    stuck: int = knob("Stuck", 0, low=0, high=1)
    longest_sequence: int = knob("SequenceMaxLength", 1000, low=0, high=100000)
    lower_um: float = knob("LowerLimit_um", -1000.0, low=-_FOREVER, high=_FOREVER)
    upper_um: float = knob("UpperLimit_um", 1000.0, low=-_FOREVER, high=_FOREVER)


@dataclass(frozen=True)
class FocusDraw:
    """A true focus nobody chose: uniform within +-``FocusRange_um`` / 2; ``FocusSeed`` -1: none."""

    seed: int = knob("FocusSeed", -1, low=-1, high=2**31 - 1)
    range_um: float = knob("FocusRange_um", 60.0, low=0.0, high=2000.0)


@dataclass(frozen=True)
class Pace:
    """Real seconds a simulated second takes: 1 is real time, 0 never sleeps.

    At 0 the clock advances by exposures and travel alone, so a run repeats exactly; time that a
    program spends waiting does not count there.
    """

    time_scale: float = knob("TimeScale", 0.0, low=0.0, high=10.0)
