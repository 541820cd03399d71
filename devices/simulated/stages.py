"""The simulated focus drive, XY stage, shutter and objective turret."""

from __future__ import annotations

import dataclasses

from devices.python_device import ShutterDevice, StageDevice, StateDevice, XYStageDevice
from devices.simulated.joining import SimulatedDevice, add_settings
from devices.simulated.settings import FocusDraw, Mechanics


class SimulatedZStage(SimulatedDevice, StageDevice):
    """Focus drive with play, swing and drift.

    ``TrueFocus_um`` and ``TrueDefocus_um`` are the truth: only tests read them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._origin_um = 0.0
        self.add_world_name()
        add_settings(self, "mechanics", Mechanics)
        add_settings(self, "focus_draw", FocusDraw)
        self.register_property(
            "TrueFocus_um",
            getter=lambda stage: stage.world.true_focus_um,
            setter=lambda stage, value: setattr(stage.world, "true_focus_um", value),
            limits=(-1e6, 1e6),
            property_type=float,
        )
        self.register_property(
            "TrueDefocus_um",
            getter=lambda stage: stage.world.true_defocus_um,
            is_read_only=True,
            property_type=float,
        )

    def set_position_um(self, val: float) -> None:
        """Start a move; ValueError outside the drive's limits."""
        self.world.go_to_z(float(val) + self._origin_um)

    def get_position_um(self) -> float:
        """Position as the drive reads it back."""
        return self.world.z_um() - self._origin_um

    def busy(self) -> bool:
        """Whether the drive is moving."""
        return self.world.z_busy()

    def stop(self) -> None:
        """Stop where it is."""
        self.world.stop_z()

    def get_sequence_max_length(self) -> int:
        """How many positions it can step through, one a frame of the camera; 0 if it cannot."""
        return self.world.mechanics.longest_sequence

    def send_sequence(self, sequence: tuple[float, ...]) -> None:
        """Load positions to step through; ValueError if one is outside the drive's limits."""
        self.world.load_sequence(tuple(z + self._origin_um for z in sequence))

    def start_sequence(self) -> None:
        """Go to the first position; every exposure sends it on to the next when it ends."""
        self.world.start_sequence()

    def stop_sequence(self) -> None:
        """Heed no exposure any more."""
        self.world.stop_sequence()

    def home(self) -> None:
        """Go to 0."""
        self.set_position_um(0.0)

    def set_origin(self) -> None:
        """Call the present position 0; the truth keeps its own coordinates."""
        self._origin_um = self.world.z_um()


class SimulatedXYStage(SimulatedDevice, XYStageDevice):
    """Moves the specimen at once and exactly; past its edge the picture begins again."""

    def __init__(self) -> None:
        super().__init__()
        self._origin_um = (0.0, 0.0)
        self.add_world_name()

    def set_position_um(self, x: float, y: float) -> None:
        """Move the specimen."""
        self.world.xy_um = (float(x) + self._origin_um[0], float(y) + self._origin_um[1])

    def get_position_um(self) -> tuple[float, float]:
        """Return x and y."""
        x_um, y_um = self.world.xy_um
        return x_um - self._origin_um[0], y_um - self._origin_um[1]

    def stop(self) -> None:
        """Do nothing: it is never on its way."""

    def home(self) -> None:
        """Go to 0, 0."""
        self.set_position_um(0.0, 0.0)

    def set_origin_x(self) -> None:
        """Call the present x 0."""
        self._origin_um = (self.world.xy_um[0], self._origin_um[1])

    def set_origin_y(self) -> None:
        """Call the present y 0."""
        self._origin_um = (self._origin_um[0], self.world.xy_um[1])


class SimulatedShutter(SimulatedDevice, ShutterDevice):
    """Lets light through, or not; closed, nothing bleaches."""

    def __init__(self) -> None:
        super().__init__()
        self.add_world_name()

    def initialize(self) -> None:
        """Join the world, closed."""
        super().initialize()
        self.world.lit = False

    def get_open(self) -> bool:
        """Whether light reaches the specimen."""
        return self.world.lit

    def set_open(self, open: bool) -> None:
        """Open or close."""
        self.world.lit = bool(open)


@dataclasses.dataclass(frozen=True)
class _Turret:
    label: str
    na: float
    pixel_size_um: float


_TURRET = (
    _Turret("10x/0.30", 0.30, 0.65),
    _Turret("20x/0.75", 0.75, 0.325),
    _Turret("40x/0.95", 0.95, 0.1625),
)


class SimulatedObjectives(SimulatedDevice, StateDevice):
    """Turret of three dry objectives; a turn sets ``NA`` and ``PixelSize_um`` of the camera.

    The specimen is drawn anew at the new pixel size, so the same seed shows another place.
    """

    def __init__(self) -> None:
        self._position = 1
        super().__init__({i: objective.label for i, objective in enumerate(_TURRET)})
        self.add_world_name()

    def get_state(self) -> int:
        """Position of the turret."""
        return self._position

    def set_state(self, position: int) -> None:
        """Turn the turret."""
        self._position = int(position)
        chosen = _TURRET[self._position]
        self.world.scene = dataclasses.replace(
            self.world.scene, na=chosen.na, pixel_size_um=chosen.pixel_size_um
        )
