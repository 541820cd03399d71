from pathlib import Path

import pytest

from autofocus.config import builtin_configs, load_rig
from autofocus.errors import ConfigError

REAL = """
[microscope]
config = "rig.cfg"
z_min_um = -10.0
z_max_um = 3000.0
{safety}

[optics]
na = 0.75
pixel_size_um = 0.325
wavelength_um = 0.53
"""
SAFETY = 'towards_specimen = "+"\nmax_step_um = 50.0\nmax_towards_um = 100.0'


def rig_file(folder: Path, text: str) -> Path:
    (folder / "rig.cfg").write_text("# nothing\n")
    path = folder / "rig.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(builtin_configs().glob("*.toml")), ids=lambda p: p.stem)
def test_every_rig_file_in_configs_loads(path):
    rig = load_rig(path)
    assert rig.microscope.z_min_um < rig.microscope.z_max_um


def test_the_demo_is_the_default():
    assert load_rig().name == "Micro-Manager demo"


def test_a_real_rig_loads_with_its_safety_settings(tmp_path):
    rig = load_rig(rig_file(tmp_path, REAL.format(safety=SAFETY)))
    assert rig.microscope.towards_specimen == "+"
    assert rig.microscope.config == tmp_path / "rig.cfg"
    assert rig.optics_for(None).depth_of_field_um() == pytest.approx(1.3756, abs=1e-3)
    assert rig.optics_for("any label: there is one objective").na == 0.75


@pytest.mark.parametrize("missing", ["towards_specimen", "max_step_um", "max_towards_um"])
def test_a_real_rig_must_name_its_safety_settings(tmp_path, missing):
    safety = "\n".join(line for line in SAFETY.splitlines() if not line.startswith(missing))
    with pytest.raises(ConfigError, match=missing):
        load_rig(rig_file(tmp_path, REAL.format(safety=safety)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("z_max_um = 3000.0", "z_max_um = -11.0", "must be below"),
        ("z_max_um = 3000.0", "z_max_um = nan", "z_max_um"),
        ("na = 0.75", "na = 1.3", "immersion_index"),
        ("na = 0.75", "numerical_aperture = 0.75", "numerical_aperture"),
        ('config = "rig.cfg"', 'config = "other.cfg"', "does not exist"),
        ("[optics]", "[optik]", "optik"),
        ("na = 0.75", "na = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, message):
    text = REAL.format(safety=SAFETY)
    assert old in text
    with pytest.raises(ConfigError, match=message):
        load_rig(rig_file(tmp_path, text.replace(old, new)))


def test_objectives_are_chosen_by_label(tmp_path):
    text = REAL.format(safety=SAFETY).replace("[optics]", '[[objectives]]\nlabel = "20x"', 1) + (
        '\n[[objectives]]\nlabel = "60x"\nna = 1.4\nimmersion_index = 1.515\n'
        "pixel_size_um = 0.108\n"
    )
    rig = load_rig(rig_file(tmp_path, text))
    assert rig.optics_for("60x").na == 1.4
    with pytest.raises(ConfigError, match="'100x' is not in the rig file"):
        rig.optics_for("100x")


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_rig(tmp_path / "no.toml")
