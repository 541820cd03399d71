"""Fields of nothing, and of specimens out of focus."""

import json

import numpy as np
import pytest
import tifffile

from autofocus.bench import empties
from autofocus.errors import ConfigError
from models.classical import ClassicalScorer


def test_simulated_fields_are_half_empty_in_both_lights():
    fields = list(empties.simulated_fields(2))
    assert [field.empty for field in fields] == [False, True] * 4
    assert {field.source for field in fields} == {
        "simulated fluorescence",
        "simulated transmitted",
    }
    assert all(field.sampling > 0 for field in fields)


def test_background_crops_hold_nothing(tmp_path):
    rng = np.random.default_rng(0)
    sharp = rng.poisson(20, (400, 600)).astype(np.uint16)
    sharp[250:330, 80:160] += 500
    for name in ("cells", "bbbc006_z00_defocused"):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "one.tif", sharp)
    stills = [{"name": n, "folder": n} for n in ("cells", "bbbc006_z00_defocused")]
    (tmp_path / "manifest.json").write_text(json.dumps({"stills": stills}), encoding="utf-8")

    fields = list(empties.real_fields(tmp_path))

    empty = [field.image for field in fields if field.empty]
    assert 1 <= len(empty) <= 4
    assert max(image.max() for image in empty) < 100
    assert sum(not field.empty for field in fields) == 1
    assert all(field.image.max() > 300 for field in fields if not field.empty)
    with pytest.raises(ConfigError, match="manifest"):
        list(empties.real_fields(tmp_path / "nowhere"))


def test_signal_over_noise_tells_bright_specimens_from_nothing(tmp_path):
    fields = list(empties.simulated_fields(6))
    said = empties.measure(fields, ClassicalScorer())
    empties.draw(fields, said, tmp_path / "roc.png")
    row = next(line for line in empties.table(fields, said).splitlines() if "over noise" in line)
    assert float(row.split("|")[5]) > 0.7
    assert (tmp_path / "roc.png").stat().st_size > 5000
