"""What the benchmark of the search asks: microscopes, specimens, light, faults, starts.

Everything follows from a seed. Those of the published table begin at `FIRST_SEED`; the search was
tuned on others (3 000 000 to 3 999 999, and 5 000 000 up to it, which earlier tables had), and
nothing was trained on either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from autofocus.optics import Optics

FIRST_SEED = 21_000_000
QUICK_ONE_IN = 40
WAVELENGTH_UM = 0.53
FLUORESCENT = ("nuclei", "filaments", "puncta", "cells", "tissue", "beads")
COLD_START_DOF = 25.0
WARM_START_DOF = 5.0
FAR_START_DOF = (25.0, 40.0)
FAR_RANGE_DOF = 90.0
# Half of what a run may visit where its limits are its range, and where the start then lies: out
# of reach of focus, or with focus within one depth of field of the end, inside or outside.
NARROW_DOF = 25.0
OUT_OF_RANGE_DOF = (28.0, 40.0)
AT_THE_EDGE_DOF = (24.0, 26.0)
DEEPFOCUS_START_UM = 20.0


@dataclass(frozen=True)
class Scope:
    """An objective with its camera pixel in the specimen."""

    name: str
    optics: Optics


def _scope(name: str, na: float, index: float, pixel_um: float) -> Scope:
    return Scope(name, Optics(na, index, pixel_um, WAVELENGTH_UM))


SCOPES: Mapping[str, Scope] = MappingProxyType(
    {
        scope.name: scope
        for scope in (
            _scope("10x/0.3", 0.3, 1.0, 0.65),
            _scope("20x/0.75", 0.75, 1.0, 0.325),
            _scope("40x/0.95", 0.95, 1.0, 0.1625),
            _scope("63x/1.2 water", 1.2, 1.33, 0.103),
            _scope("100x/1.45 oil", 1.45, 1.515, 0.065),
        )
    }
)

Setting = tuple[str, str]  # device, property
# What a fault sets on the simulated microscope, in units of DOF or plain. Its clock counts
# exposures of 10 ms only, so the drift is 0.02 DOF from one to the next.
IN_DOF = frozenset({"Backlash_um", "Repeatability_um", "Drift_um_s", "TiltX_um", "TiltY_um"})
FAULTS: Mapping[str, Mapping[Setting, float]] = MappingProxyType(
    {
        "none": {},
        "backlash": {("Z", "Backlash_um"): 1.5},
        "poor stage": {("Z", "Repeatability_um"): 0.1},
        "drift": {("Z", "Drift_um_s"): 2.0},
        "bleaching": {("Camera", "Bleaching"): 0.03},
        "flicker": {("Camera", "LampFlicker"): 0.15},
        "uneven light": {("Camera", "UnevenIllumination"): 0.6},
        "hot pixels": {("Camera", "HotPixels"): 200.0},
        "tilt": {("Camera", "TiltX_um"): 2.0, ("Camera", "TiltY_um"): 1.0},
        "debris": {},
        "dim": {},
        "empty": {},
        "dark": {("Camera", "Background"): 0.0},
        "saturated": {("Camera", "Gain"): 1000.0, ("Camera", "BitDepth"): 12},
        "stale frames": {("Camera", "StaleFrames"): 1.0},
        "out of range": {},
        "at the edge": {},
    }
)
# A stage without play, as precise as piezo drives are.
DEEPFOCUS_STAGE: Mapping[Setting, float] = MappingProxyType({("Z", "Repeatability_um"): 0.05})
# Nothing of these may ever be locked on.
MUST_REFUSE = ("empty", "dark", "saturated", "stale frames", "out of range")
HARDSHIPS = tuple(name for name in FAULTS if name not in (*MUST_REFUSE, "none", "at the edge"))
Item = TypeVar("Item")


@dataclass(frozen=True)
class Case:
    """One specimen under one microscope, and where the run starts.

    Attributes
    ----------
    group : {"cold", "far", "hardship", "edge", "must refuse", "warm", "deepfocus"}
        Which table it belongs to.
    start_dof : float
        Start minus in-focus plane.
    """

    group: str
    scope: str
    kind: str
    photons: float
    fault: str
    seed: int
    start_dof: float

    @property
    def optics(self) -> Optics:
        """Of its microscope."""
        return SCOPES[self.scope].optics

    @property
    def dof_um(self) -> float:
        """Depth of field, um."""
        return self.optics.depth_of_field_um()

    @property
    def stage_and_light(self) -> Mapping[Setting, float]:
        """What its fault and its group set on the simulated microscope."""
        group = DEEPFOCUS_STAGE if self.group == "deepfocus" else {}
        fault = {
            (device, name): value * self.dof_um if name in IN_DOF else value
            for (device, name), value in FAULTS[self.fault].items()
        }
        return {**group, **fault}

    @property
    def range_dof(self) -> float | None:
        """What its runs ask for; None leaves it to the rig."""
        return FAR_RANGE_DOF if self.group == "far" else None

    @property
    def within_dof(self) -> float | None:
        """How far from the start its runs may go; None leaves it to the rig."""
        return NARROW_DOF if self.fault in ("out of range", "at the edge") else None

    @property
    def nothing_to_see(self) -> bool:
        """No plane is in focus."""
        return self.fault in ("empty", "dark")


def cases(share: float = 1.0, *, first_seed: int = FIRST_SEED) -> list[Case]:
    """All cases of the published table, or a ``share`` of each group."""
    groups = (
        _deepfocus(first_seed + 50_000, 120),
        _warm(first_seed + 40_000, 4),
        _must_refuse(first_seed + 30_000, 6),
        _edge(first_seed + 60_000, 8),
        _hardship(first_seed + 20_000, 3),
        _far(first_seed + 70_000, 10),
        _cold(first_seed, 12),
    )
    return [case for group in groups for case in some_of(group, share)]


def some_of(items: Sequence[Item], share: float) -> list[Item]:
    """The same random share every time, at least one, in order; smaller shares lie in larger."""
    count = max(1, round(share * len(items)))
    chosen = np.random.default_rng(0).permutation(len(items))[:count]
    return [items[i] for i in sorted(chosen)]


def _cold(first: int, seeds: int) -> list[Case]:
    kinds = (*FLUORESCENT, "absorption")
    return [
        _draw("cold", scope, kind, "none", first + i, within_dof=COLD_START_DOF)
        for i in range(seeds)
        for kind in kinds
        for scope in SCOPES
    ]


def _hardship(first: int, seeds: int) -> list[Case]:
    return [
        _draw("hardship", scope, _kind(i), fault, first + i, within_dof=15.0)
        for i in range(seeds)
        for fault in HARDSHIPS
        for scope in SCOPES
    ]


def _far(first: int, seeds: int) -> list[Case]:
    return [
        _draw("far", scope, _kind(i), "none", first + i, away_dof=FAR_START_DOF)
        for i in range(seeds)
        for scope in SCOPES
    ]


def _edge(first: int, seeds: int) -> list[Case]:
    return [
        _draw("edge", scope, _kind(i), "at the edge", first + i, away_dof=AT_THE_EDGE_DOF)
        for i in range(seeds)
        for scope in SCOPES
    ]


def _must_refuse(first: int, seeds: int) -> list[Case]:
    return [
        _draw(
            "must refuse",
            scope,
            _kind(i),
            fault,
            first + i,
            within_dof=15.0,
            away_dof=OUT_OF_RANGE_DOF if fault == "out of range" else None,
        )
        for i in range(seeds)
        for fault in MUST_REFUSE
        for scope in SCOPES
    ]


def _warm(first: int, seeds: int) -> list[Case]:
    return [
        _draw("warm", scope, kind, "none", first + i, within_dof=WARM_START_DOF)
        for i in range(seeds)
        for kind in FLUORESCENT
        for scope in SCOPES
    ]


def _deepfocus(first: int, seeds: int) -> list[Case]:
    scope = SCOPES["10x/0.3"]
    within = DEEPFOCUS_START_UM / scope.optics.depth_of_field_um()
    drawn = (
        _draw("deepfocus", scope.name, kind, "none", first + i, within_dof=within)
        for i, kind in enumerate(("nuclei", "tissue", "cells", "filaments") * (seeds // 4))
    )
    return [Case(**{**vars(case), "photons": 200.0}) for case in drawn]


def _kind(i: int) -> str:
    return FLUORESCENT[i % len(FLUORESCENT)]


def _draw(
    group: str,
    scope: str,
    kind: str,
    fault: str,
    seed: int,
    *,
    within_dof: float = 0.0,
    away_dof: tuple[float, float] | None = None,
) -> Case:
    """Photons (log-uniform, 30 to 1000) and start from the seed and what else the case is."""
    key = [ord(letter) for letter in f"{group}{scope}{kind}{fault}"]
    rng = np.random.default_rng([seed, *key])
    photons = float(np.exp(rng.uniform(np.log(30), np.log(1000))))
    start_dof = float(rng.uniform(-within_dof, within_dof))
    if away_dof is not None:
        start_dof = float(rng.choice([-1, 1]) * rng.uniform(*away_dof))
    if fault == "dim":
        photons = float(rng.uniform(8, 20))
    if fault == "dark":
        photons = 0.0
    kind = {"debris": "debris", "empty": "empty"}.get(fault, kind)
    return Case(group, scope, kind, photons, fault, int(rng.integers(2**31)), start_dof)
