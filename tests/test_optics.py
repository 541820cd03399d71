"""Depth of field by the formula, or as measured."""

from __future__ import annotations

import pytest

from autofocus.optics import Optics


@pytest.mark.parametrize(
    ("optics", "binning", "expected_um"),
    [
        (Optics(0.5, 1.0, 0.5, 0.53), 1, 3.12),  # 0.53 / 0.25 + 0.5 / 0.5
        (Optics(0.5, 1.0, 0.5, 0.53), 4, 6.12),  # 0.53 / 0.25 + 4 * 0.5 / 0.5
        (Optics(1.4, 1.515, 0.065, 0.52), 1, 0.4723),  # 0.40194 + 0.07034
        (Optics(0.5, 1.0, 0.5, 0.53, dof_um=2.5), 4, 2.5),
    ],
)
def test_depth_of_field(optics: Optics, binning: int, expected_um: float) -> None:
    assert optics.depth_of_field_um(binning) == pytest.approx(expected_um, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"na": 1.0}, "immersion"),
        ({"na": 0.0}, "na = 0"),
        ({"na": 1e-200}, "no depth of field follows"),
        ({"na": 1e-160}, "no depth of field follows"),
        ({"wavelength_um": float("nan")}, "wavelength_um"),
        ({"pixel_size_um": -0.1}, "pixel_size_um"),
        ({"dof_um": 0.0}, "dof_um"),
        ({"dof_um": float("inf")}, "dof_um"),
    ],
)
def test_refuses_optics_that_cannot_be(changes: dict[str, float], says: str) -> None:
    optics = {"na": 0.5, "immersion_index": 1.0, "pixel_size_um": 0.5, "wavelength_um": 0.53}
    with pytest.raises(ValueError, match=says):
        Optics(**{**optics, **changes})
