"""A Python stage that travels at a set speed, remembers its orders, and can be told to fail."""

import math
import time

from pymmcore_plus.experimental.unicore import StageDevice


class ScriptedStage(StageDevice):
    """Properties: Speed (um/s, 0 is immediate), Fault, Trace (positions ordered so far)."""

    def __init__(self) -> None:
        super().__init__()
        self._from_um = self._to_um = 0.0
        self._since_s = time.monotonic()
        self._speed = 0.0
        self._trace: list[float] = []
        self._stops = 0
        self.register_property("Speed", default_value=0.0)
        self.register_property("Fault", default_value="none")
        self.register_property("Trace", property_type=str, getter=lambda dev: dev.trace())
        self.register_property("Stops", property_type=int, getter=lambda dev: dev.stops())

    def initialize(self) -> None:
        if self.get_property_value("Fault") == "initialize":
            raise RuntimeError("no controller on COM7")

    def set_position_um(self, val: float) -> None:
        fault = self.get_property_value("Fault")
        self._trace.append(val)
        if fault == "refuse":
            raise RuntimeError("axis not referenced")
        if fault == "stick":
            return
        self._from_um = self.get_position_um()
        gain = {"short": 0.5, "away": -1}.get(fault, 1)
        self._to_um = self._from_um + (val - self._from_um) * gain
        self._since_s = time.monotonic()
        self._speed = float(self.get_property_value("Speed"))

    def get_position_um(self) -> float:
        if self.get_property_value("Fault") == "nan":
            return math.nan
        distance = self._to_um - self._from_um
        gone = self._speed * (time.monotonic() - self._since_s) if self._speed else math.inf
        if gone >= abs(distance):
            return self._to_um
        return self._from_um + math.copysign(gone, distance)

    def busy(self) -> bool:
        fault = self.get_property_value("Fault")
        if fault == "silent":
            return False
        return fault == "hang" or self.get_position_um() != self._to_um

    def stop(self) -> None:
        self._stops += 1
        if self.get_property_value("Fault") == "no stop":
            raise RuntimeError("command not supported")
        if self.get_property_value("Fault") == "slow stop":
            time.sleep(0.4)
        self._from_um = self._to_um = self.get_position_um()

    def home(self) -> None:
        self.set_position_um(0.0)

    def set_origin(self) -> None:
        self._from_um = self._to_um = 0.0

    def trace(self) -> str:
        return " ".join(map(repr, self._trace))

    def stops(self) -> int:
        return self._stops
