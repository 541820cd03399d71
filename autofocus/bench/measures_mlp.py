"""A small network on the classical measures: what an image network must not lose to.

For comparison only; nothing of it ships.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from autofocus.training.default_head import FeatureTable, targets
from models.ensemble import log_measures
from models.frame import inspect
from models.head import SamplingRange, centred_sampling, sampling_range
from models.scorer import FrameScore

_HIDDEN = 64


@dataclass(frozen=True)
class MeasuresMLP:
    """A `models.scorer.Scorer`.

    Attributes
    ----------
    regressor : Pipeline
        Logarithms of all classical measures and of the sampling to score and distance.
    sampling : SamplingRange
        Of the frames it was fitted on.
    """

    regressor: Pipeline
    sampling: SamplingRange

    name = "classical_mlp"
    head = None
    absolute = True
    watched_by = None

    def score(
        self,
        image: NDArray[np.generic],
        *,
        bit_depth: int | None = None,
        sampling: float | None = None,
    ) -> FrameScore:
        """Score one grey frame; see `models.scorer.Scorer.score`."""
        stats = inspect(image, bit_depth=bit_depth)
        row = np.append(log_measures(image), self.sampling.centred(sampling))
        score, defocus_dof = self.regressor.predict(row[None])[0]
        return FrameScore(
            score=float(score),
            defocus_dof=max(0.0, float(defocus_dof)),
            dark=stats.dark,
            saturated=stats.saturated,
            fingerprint=stats.fingerprint,
        )


def fit_mlp(table: FeatureTable) -> MeasuresMLP:
    """Fit on the frames of the shipped head; stopped when a tenth of them, set aside, says so."""
    known = sampling_range(table.sampling)
    design = np.column_stack([table.measures, centred_sampling(table.sampling, known)])
    network = MLPRegressor(
        hidden_layer_sizes=(_HIDDEN,), early_stopping=True, max_iter=500, random_state=0
    )
    return MeasuresMLP(make_pipeline(StandardScaler(), network).fit(design, targets(table)), known)


def fit_once(features: Path) -> MeasuresMLP:
    """`fit_mlp` on the ``features.npz`` of `autofocus fit-default-head`, kept beside it.

    What is kept is a file of this program's own making: it may execute code when it is loaded.
    """
    kept = features.with_name("classical_mlp.joblib")
    if kept.is_file() and kept.stat().st_mtime > features.stat().st_mtime:
        return joblib.load(kept)
    fitted = fit_mlp(FeatureTable.load(features))
    joblib.dump(fitted, kept)
    return fitted
