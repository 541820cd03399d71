"""Loading a .cfg, what is said of a bad one, and leaving the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import CONFIGS

from devices import DeviceConfigError, Microscope, MicroscopeSettings

ROOT = Path(__file__).parents[2]

INITIALIZE = "Property,Core,Initialize,1"
PLAIN = """\
Property,Core,Initialize,0
Device,DHub,DemoCamera,DHub
Device,Camera,DemoCamera,DCam
Device,Z,DemoCamera,DStage
Property,Core,Initialize,1
Property,Core,Camera,Camera
Property,Core,Focus,Z
"""
PYTHON = PLAIN.replace(
    "Device,Z,DemoCamera,DStage", "#py pyDevice,Z,scripted_stage,ScriptedStage"
).replace("Property,Core,Focus,Z", "#py Property,Core,Focus,Z")


def _open(tmp_path: Path, text: str, **changes: object) -> Microscope:
    config = tmp_path / "rig.cfg"
    config.write_text(text)
    limits = {"z_min_um": -10.0, "z_max_um": 10.0}
    return Microscope.open(MicroscopeSettings(config=config, **{**limits, **changes}))


@pytest.mark.parametrize("text", [PLAIN, PYTHON], ids=["plain", "python"])
def test_loads_what_is_in_order(tmp_path: Path, text: str) -> None:
    with _open(tmp_path, text) as microscope:
        assert microscope.move_to(5) == 5


@pytest.mark.parametrize(
    ("text", "old", "new", "says"),
    [
        (PLAIN, "Z,DemoCamera", "Z,NoAdapter", r"rig.cfg, line 4 \(Device,Z,NoAdapter,DStage\)"),
        (PLAIN, "DStage", "DNothing", r"line 4 \(Device,Z,DemoCamera,DNothing\).*DNothing"),
        (PLAIN, "Camera,Camera", "Camera,Cam", r"line 6 \(Property,Core,Camera,Cam\).*Cam"),
        (PLAIN, "Focus,Z", "Focus,Q", r"line 7 \(Property,Core,Focus,Q\).*Q"),
        (PLAIN, "Focus,Z", "Focus,Camera", r"line 7 \(Property,Core,Focus,Camera\)"),
        (PLAIN, "Focus,Z\n", "Focus,Z\nProperty,Camera,Shine,1\n", r"line 8 .*Shine"),
        (PLAIN, "Focus,Z\n", "Focus,Z\nProperty,Camera,PixelType,7bit\n", r"line 8 .*7bit"),
        (
            PLAIN,
            "Focus,Z\n",
            "Focus,Z\nConfigGroup,System,Startup,Camera,Gain,1\n"
            "ConfigGroup,System,Startup,Camera,Shine,1\n",
            r"line 9 \(ConfigGroup,System,Startup,Camera,Shine,1\)",
        ),
        (PLAIN, "Property,Core,Focus,Z\n", "", r"no device has the Focus role.*suitable: Z"),
        (
            PLAIN,
            "Device,Camera,DemoCamera,DCam\nDevice,Z,",
            "Device,Z,",
            r"line 5 \(Property,Core,Camera,Camera\)",
        ),
        (PYTHON, "scripted_stage,", "no_such_module,", r"line 4 \(pyDevice,Z,no_such_module"),
        (PYTHON, "ScriptedStage", "NoSuchClass", r"line 4 .*NoSuchClass"),
        (PYTHON, "Focus,Z", "Focus,Q", r"line 7 \(Property,Core,Focus,Q\): 'Q' cannot be"),
        (PYTHON, "Focus,Z", "Focus,Camera", r"line 7 .*'Camera' cannot be the Focus"),
        (
            PYTHON,
            "Property,Core,Initialize,1",
            "#py Property,Z,Fault,initialize\nProperty,Core,Initialize,1",
            r"line 4 \(pyDevice,Z,.*'Z' .*did not initialize .*: no controller on COM7",
        ),
        (PLAIN, "Property,Core,Initialize,1", "", "no line initializes the devices"),
    ],
)
def test_names_the_line_and_the_device_at_fault(
    tmp_path: Path, text: str, old: str, new: str, says: str
) -> None:
    assert old in text
    with pytest.raises(DeviceConfigError, match=says):
        _open(tmp_path, text.replace(old, new))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"focus_device": "Q"}, "'Q' is no Focus device; loaded and suitable: Z"),
        ({"camera": "Z"}, "'Z' is no Camera device; loaded and suitable: Camera"),
    ],
)
def test_names_the_device_that_the_rig_asks_for_in_vain(
    tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    with pytest.raises(DeviceConfigError, match=says):
        _open(tmp_path, PLAIN, **changes)


def test_names_the_file_that_is_not_there(tmp_path: Path) -> None:
    settings = MicroscopeSettings(config=tmp_path / "none.cfg", z_min_um=0, z_max_um=1)
    with pytest.raises(DeviceConfigError, match=r"none\.cfg.*No such file"):
        Microscope.open(settings)


def test_the_startup_preset_may_choose_another_device(tmp_path: Path) -> None:
    text = PLAIN.replace("Device,Z,", "Device,Piezo,DemoCamera,DStage\nDevice,Z,")
    with _open(tmp_path, text + "ConfigGroup,System,Startup,Core,Focus,Piezo\n") as microscope:
        assert microscope.state.focus_device == "Piezo"


def test_the_rig_chooses_its_devices(tmp_path: Path) -> None:
    text = PLAIN.replace("Device,Z,", "Device,Piezo,DemoCamera,DStage\nDevice,Z,")
    with _open(tmp_path, text, focus_device="Piezo") as microscope:
        microscope.move_to(4)
        assert microscope.state.focus_device == "Piezo"


SCRIPT = """
import sys
from pathlib import Path
from devices import HardwareThread, Microscope, MicroscopeSettings
microscope = Microscope.open(MicroscopeSettings(Path(sys.argv[1]), z_min_um=-50, z_max_um=50))
hardware = HardwareThread()
hardware.submit(lambda: microscope.move_to(20)).result()
hardware.submit(microscope.snap).result()
ending = sys.argv[2]
if ending == "closed":
    hardware.close()
    microscope.close()
if ending == "forgotten":
    sys.kept = microscope  # the interpreter lets go of it too late for __del__
if ending == "halted":
    microscope.halt()
if ending == "raised":
    raise ValueError("the end")
if ending == "busy":
    hardware.submit(microscope.snap)
print("done")
sys.exit(7)
"""


@pytest.mark.parametrize(
    ("ending", "times"),
    [("closed", 5), ("forgotten", 5), ("halted", 2), ("raised", 2), ("busy", 2)],
)
def test_a_process_ends_with_its_own_exit_code(ending: str, times: int) -> None:
    def run(_: int) -> subprocess.CompletedProcess[str]:
        return _python(SCRIPT, str(CONFIGS / "demo.cfg"), ending)

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(run, range(times)))
    assert [each.returncode for each in ended] == [1 if ending == "raised" else 7] * times
    for each in ended:
        if ending == "raised":
            assert "ValueError: the end" in each.stderr
        else:
            assert (each.stdout, each.stderr) == ("done\n", "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PYTHON.replace(INITIALIZE, "#py Property,Z,Fault,initialize\n" + INITIALIZE), "COM7"),
        (PYTHON + "Property,Camera,Shine,1\n", "Shine"),
    ],
)
def test_loading_leaves_logging_and_output_alone(tmp_path: Path, text: str, says: str) -> None:
    config = tmp_path / "rig.cfg"
    config.write_text(text)
    script = """
import logging, sys
from pathlib import Path
from devices import DeviceConfigError, Microscope, MicroscopeSettings
level = logging.root.level
try:
    Microscope.open(MicroscopeSettings(Path(sys.argv[1]), z_min_um=-50, z_max_um=50))
except DeviceConfigError as error:
    print(error)
assert logging.root.level == level
assert not logging.root.handlers
"""
    ended = _python(script, str(config))
    assert says in ended.stdout
    assert (ended.returncode, ended.stderr) == (0, "")


def _python(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    return subprocess.run(
        [sys.executable, "-c", script, *args],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )
