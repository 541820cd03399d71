"""The classical measures together: their logarithms and a ridge, with an absolute scale.

The mark that a learned score has to beat. It needs no network, and is fitted on the same frames as
the head of `models.reiqa_scorer`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from models.classical import MEASURES
from models.errors import HeadError
from models.frame import as_grey_float, inspect
from models.head import SamplingRange, centred_sampling, sampling_range, with_sampling
from models.scorer import FrameScore

Float64 = NDArray[np.float64]

NAME = "classical_ensemble"

_FLOOR = 1e-6  # measures are relative to the light of the frame; noise may push them below 0


@dataclass(frozen=True)
class Ensemble:
    """A linear map of log measures.

    Attributes
    ----------
    measures : tuple of str
        Names, in the order of the columns.
    sampling : SamplingRange
        Of the frames it was fitted on.
    mean, scale : tuple of float
        Of the columns of `models.head.with_sampling`.
    slope : tuple of tuple of float
        Two rows: score, distance in depths of field.
    offset : tuple of float
        Two values.
    """

    measures: tuple[str, ...]
    sampling: SamplingRange
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    slope: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]

    def predict(self, logs: Float64, sampling: float | None = None) -> tuple[float, float]:
        """Score, and distance in depths of field, of `log_measures`, shape (k,)."""
        design = with_sampling(logs[None], np.array([self.sampling.centred(sampling)]))
        standardised = (design - np.array(self.mean)) / np.array(self.scale)
        score, defocus_dof = (standardised @ np.array(self.slope).T + np.array(self.offset))[0]
        return float(score), max(0.0, float(defocus_dof))

    def save(self, path: Path) -> None:
        """Write JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Ensemble:
        """Read what `save` wrote.

        Raises
        ------
        HeadError
            When it is absent, damaged, or for measures that this version does not have.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found = cls(
                measures=tuple(values["measures"]),
                sampling=SamplingRange(**values["sampling"]),
                mean=tuple(map(float, values["mean"])),
                scale=tuple(map(float, values["scale"])),
                slope=tuple(tuple(map(float, row)) for row in values["slope"]),
                offset=tuple(map(float, values["offset"])),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HeadError(f"{path} is not a classical ensemble: {error!r}") from error
        columns = 2 * len(found.measures) + 1
        shapes = (len(found.mean), len(found.scale), *map(len, found.slope))
        if set(found.measures) - set(MEASURES) or shapes != (columns,) * 4:
            raise HeadError(f"{path} is a classical ensemble of another version; fit it again")
        return found


@dataclass(frozen=True)
class EnsembleScorer:
    """A `models.scorer.Scorer` made of an ensemble."""

    fitted: Ensemble

    @property
    def name(self) -> str:
        """``classical_ensemble``."""
        return NAME

    @property
    def head(self) -> None:
        """None: it comes as one."""
        return None

    @property
    def absolute(self) -> bool:
        """True: 1 means in focus on every specimen and objective."""
        return True

    @property
    def watched_by(self) -> None:
        """None: it is made of the measures that watch others."""
        return None

    def score(
        self,
        image: NDArray[np.generic],
        *,
        bit_depth: int | None = None,
        sampling: float | None = None,
    ) -> FrameScore:
        """Score one grey frame; see `models.scorer.Scorer.score`."""
        stats = inspect(image, bit_depth=bit_depth)
        score, defocus_dof = self.fitted.predict(log_measures(image), sampling)
        return FrameScore(
            score=score,
            defocus_dof=defocus_dof,
            dark=stats.dark,
            saturated=stats.saturated,
            fingerprint=stats.fingerprint,
        )


def log_measures(
    image: NDArray[np.generic], measures: Sequence[str] = tuple(MEASURES)
) -> NDArray[np.float64]:
    """Logarithms of the classical measures of one grey frame, shape (k,)."""
    frame = as_grey_float(image)
    return np.log([max(MEASURES[name](frame), _FLOOR) for name in measures])


def fit_ensemble(
    logs: ArrayLike, targets: ArrayLike, sampling: ArrayLike, *, alpha: float
) -> Ensemble:
    """Fit on frames of known defocus.

    Parameters
    ----------
    logs : array_like of shape (n, k)
        `log_measures` of each frame, all measures.
    targets : array_like of shape (n, 2)
        Score, and distance in depths of field.
    sampling : array_like of shape (n,)
        NaN where not known.
    alpha : float
        Strength of the ridge.
    """
    known = sampling_range(sampling)
    scaler = StandardScaler()
    design = with_sampling(np.asarray(logs, np.float64), centred_sampling(sampling, known))
    ridge = Ridge(alpha).fit(scaler.fit_transform(design), np.asarray(targets, np.float64))
    return Ensemble(
        measures=tuple(MEASURES),
        sampling=known,
        mean=tuple(scaler.mean_.tolist()),
        scale=tuple(scaler.scale_.tolist()),
        slope=tuple(tuple(row) for row in ridge.coef_.tolist()),
        offset=tuple(ridge.intercept_.tolist()),
    )
