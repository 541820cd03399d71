"""Depth of field: the natural unit of every step and tolerance."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Optics:
    """What decides how deep the field is.

    Attributes
    ----------
    na : float
        Numerical aperture of the objective.
    immersion_index : float
        Refractive index between objective and specimen: 1.0 air, 1.33 water, 1.515 oil.
    pixel_size_um : float
        Camera pixel in the specimen at binning 1, um.
    wavelength_um : float
        Emission wavelength (fluorescence) or mean wavelength of the lamp, um.
    dof_um : float or None
        Total depth of field as measured or chosen, um; takes the place of the formula.
    """

    na: float
    immersion_index: float
    pixel_size_um: float
    wavelength_um: float
    dof_um: float | None = None

    def __post_init__(self) -> None:
        for name in ("na", "immersion_index", "pixel_size_um", "wavelength_um"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} = {value} must be a positive number")
        if self.dof_um is not None and not (math.isfinite(self.dof_um) and self.dof_um > 0):
            raise ValueError(f"dof_um = {self.dof_um} must be a positive number, or left out")
        if self.dof_um is None and not (self.na**2 > 0 and 0 < self.depth_of_field_um() < math.inf):
            raise ValueError(f"na = {self.na}: no depth of field follows from it; check the optics")
        if self.na >= self.immersion_index:
            raise ValueError(
                f"na = {self.na} must be below immersion_index = {self.immersion_index}; "
                "for an immersion objective set the index of its medium (water 1.33, oil 1.515)"
            )

    def depth_of_field_um(self, binning: int = 1) -> float:
        """Total depth of field in um: lambda n / NA^2 + n p / NA.

        The first term is diffraction, the second the camera's sampling (S. Inoue and K. Spring,
        *Video Microscopy*, 2nd ed. 1997, section 2.4.6); p grows with the binning.

        >>> Optics(0.75, 1.0, 0.325, 0.53).depth_of_field_um()  # 0.942 + 0.433
        1.3755...
        """
        if self.dof_um is not None:
            return self.dof_um
        diffraction = self.wavelength_um * self.immersion_index / self.na**2
        sampling = self.immersion_index * self.pixel_size_um * binning / self.na
        return diffraction + sampling

    def sampling(self, binning: int = 1) -> float | None:
        """Camera pixel as a multiple of wavelength / NA; 0.25 is Nyquist's rate.

        None where ``dof_um`` takes the place of the formula: the blur then does not follow from NA
        and pixel.

        >>> Optics(0.75, 1.0, 0.325, 0.53).sampling()
        0.4599...
        """
        if self.dof_um is not None:
            return None
        return self.pixel_size_um * binning * self.na / self.wavelength_um
