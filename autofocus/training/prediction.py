"""Which plane of a stack a head takes for the sharpest, and what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autofocus.training.feature_file import FeatureFile
from autofocus.training.stack_index import Plane
from models.head import Head, HeadPrediction

# Predictions scatter about their labels; only this share of the labels' width beyond them is odd.
_BEYOND = 0.1


@dataclass(frozen=True)
class ScoredPlane:
    """A plane and what the head says of it."""

    plane: Plane
    said: HeadPrediction


@dataclass(frozen=True)
class StackPrediction:
    """What a head says of one stack.

    Attributes
    ----------
    stack : str
        Its name.
    planes : tuple of ScoredPlane
        By z where it is known, else in the order of the file.
    best : int
        The plane with the highest score.
    at_edge : bool
        It is the first or the last plane: the focus may lie outside the stack.
    fitted_on : tuple of float
        Smallest and largest label of the fit.
    """

    stack: str
    planes: tuple[ScoredPlane, ...]
    best: int
    at_edge: bool
    fitted_on: tuple[float, float]

    @property
    def title(self) -> str:
        """Name of the stack for people: that of its folder where it was the top folder."""
        return self.planes[0].plane.path.parent.name if self.stack == "." else self.stack

    @property
    def ranking(self) -> list[ScoredPlane]:
        """All planes, best first."""
        return sorted(self.planes, key=lambda each: -each.said.score)

    @property
    def chosen(self) -> ScoredPlane:
        """The best plane."""
        return self.planes[self.best]

    def outside_range(self, each: ScoredPlane) -> bool:
        """Whether a score is beyond the labels of the fit by more than a tenth of their width."""
        low, high = self.fitted_on
        margin = _BEYOND * (high - low)
        return not low - margin <= each.said.score <= high + margin

    def warnings(self) -> tuple[str, ...]:
        """What speaks against the best plane, in words."""
        best, (low, high) = self.chosen, self.fitted_on
        odd = sum(each.said.out_of_distribution for each in self.planes)
        found = {
            f"the peak is at the edge: {best.plane.name} is the "
            f"{'first' if self.best == 0 else 'last'} of {len(self.planes)} planes, and the focus "
            "may lie outside the stack": self.at_edge,
            f"its score {best.said.score:.3g} is outside what the head was fitted on, "
            f"{low:.3g} to {high:.3g}": self.outside_range(best),
            f"{odd} of {len(self.planes)} planes look like nothing the head was fitted on"
            + (", the best one too" if best.said.out_of_distribution else ""): odd > 0,
            "the z of its planes is not known; give --z-step, --z-pattern or --z-csv": (
                best.plane.z_um is None
            ),
        }
        return tuple(text for text, raised in found.items() if raised)


def predict_stacks(head: Head, table: FeatureFile) -> tuple[StackPrediction, ...]:
    """Score every plane with a head that fits the features, stack by stack.

    Raises
    ------
    HeadError
        When the head takes another number of features.
    """
    said = [head.predict(row) for row in table.features]
    stacks: dict[str, list[ScoredPlane]] = {}
    for plane, prediction in zip(table.planes, said, strict=True):
        stacks.setdefault(plane.stack, []).append(ScoredPlane(plane, prediction))
    return tuple(_of_stack(name, planes, head) for name, planes in stacks.items())


def _of_stack(name: str, planes: Sequence[ScoredPlane], head: Head) -> StackPrediction:
    if all(each.plane.z_um is not None for each in planes):
        planes = sorted(planes, key=lambda each: each.plane.z_um or 0.0)
    best = int(np.argmax([each.said.score for each in planes]))
    return StackPrediction(
        name,
        tuple(planes),
        best,
        at_edge=best in (0, len(planes) - 1),
        fitted_on=head.manifest.score_range,
    )
