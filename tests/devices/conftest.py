from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devices import Microscope, MicroscopeSettings
from devices.micromanager import load_core, release

CONFIGS = Path(__file__).parents[2] / "configs"

# The conformance suite runs on every microscope listed here.
MICROSCOPES = [
    pytest.param(
        MicroscopeSettings(config=CONFIGS / "demo.cfg", z_min_um=-100, z_max_um=100), id="demo"
    ),
]

SCRIPTED_CFG = """\
Property,Core,Initialize,0
Device,DHub,DemoCamera,DHub
Device,Camera,DemoCamera,DCam
#py pyDevice,Z,scripted_stage,ScriptedStage
Parent,Camera,DHub
Property,Core,Initialize,1
Property,Core,Camera,Camera
#py Property,Core,Focus,Z
"""


@pytest.fixture(params=MICROSCOPES)
def settings(request: pytest.FixtureRequest) -> MicroscopeSettings:
    return request.param


@pytest.fixture
def microscope(settings: MicroscopeSettings) -> Iterator[Microscope]:
    with Microscope.open(settings) as opened:
        yield opened


@pytest.fixture
def demo_core() -> Iterator[Any]:
    """A core as another program would own it."""
    core = load_core(CONFIGS / "demo.cfg")
    yield core
    release(core)


@dataclass
class Rig:
    """A microscope whose stage is scripted, with the core that tests talk to it through."""

    microscope: Microscope
    core: Any

    def fault(self, name: str) -> None:
        self.core.setProperty("Z", "Fault", name)

    def speed(self, um_per_s: float) -> None:
        self.core.setProperty("Z", "Speed", um_per_s)

    def ordered_um(self) -> list[float]:
        return [float(z) for z in self.core.getProperty("Z", "Trace").split()]

    def stops(self) -> int:
        return int(self.core.getProperty("Z", "Stops"))


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    cores = []

    def make(**changes: Any) -> Rig:
        config = tmp_path / "scripted.cfg"
        config.write_text(SCRIPTED_CFG)
        cores.append(load_core(config))
        limits = {"z_min_um": -100.0, "z_max_um": 100.0}
        settings = MicroscopeSettings(config=None, **{**limits, **changes})
        return Rig(Microscope(cores[-1], settings), cores[-1])

    yield make
    for core in cores:
        release(core)
