"""Fit the head that ships: frozen features of simulated and real frames, labels in depths of field.

Every frame is scored by its own distance to focus, so the score means the same on every specimen:
1 in focus, 0.5 two depths of field away, 0 hopeless.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from autofocus.training.labelled import Group
from autofocus.training.network import fit_network
from models.ensemble import Ensemble, fit_ensemble, log_measures
from models.head import (
    Head,
    Label,
    Regressor,
    centred_sampling,
    fit_head,
    sampling_range,
    with_sampling,
)
from models.regressor import label_of, plain_regressor
from models.reiqa import ReIQA

Float64 = NDArray[np.float64]

SIGMA_DOF = 2.0
# Further away than this all frames look alike; their distance is not worth learning.
FARTHEST_DOF = 12.0
_ENSEMBLE_ALPHA = 10.0
_AS_GOOD = 0.005
ALPHAS = (100.0, 300.0, 1000.0, 3000.0, 10000.0)


@dataclass(frozen=True)
class FeatureTable:
    """Features of labelled frames.

    Attributes
    ----------
    features : ndarray of shape (n, D), float32
    measures : ndarray of shape (n, k)
        Logarithms of the classical measures; see `models.ensemble.log_measures`.
    defocus_dof : ndarray of shape (n,)
        |z - z_in_focus| in depths of field.
    sampling : ndarray of shape (n,)
        Camera pixel as a multiple of wavelength / NA, NaN where not known.
    groups, sources : ndarray of shape (n,), str
        Specimen and kind of source of each frame.
    """

    features: NDArray[np.float32]
    measures: NDArray[np.float64]
    defocus_dof: NDArray[np.float64]
    sampling: NDArray[np.float64]
    groups: NDArray[np.str_]
    sources: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.defocus_dof)

    def only(self, keep: NDArray[np.bool_]) -> FeatureTable:
        """The rows where ``keep`` is true."""
        return FeatureTable(
            self.features[keep],
            self.measures[keep],
            self.defocus_dof[keep],
            self.sampling[keep],
            self.groups[keep],
            self.sources[keep],
        )

    def save(self, path: Path) -> None:
        """Write ``.npz``."""
        np.savez(
            path,
            X=self.features,
            measures=self.measures,
            defocus_dof=self.defocus_dof,
            sampling=self.sampling,
            groups=self.groups,
            sources=self.sources,
        )

    @classmethod
    def load(cls, path: Path) -> FeatureTable:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            columns = ("X", "measures", "defocus_dof", "sampling", "groups", "sources")
            return cls(*(stored[name] for name in columns))


def score_of(defocus_dof: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The label of the notes: 1 / (1 + (d / sigma)^2), d in depths of field, sigma = 2."""
    return label_of(np.asarray(defocus_dof), SIGMA_DOF)


def extract(extractor: ReIQA, groups: Sequence[Group], *, jobs: int = 1) -> FeatureTable:
    """Features of all frames of all groups, in order."""
    with joblib.Parallel(n_jobs=jobs, return_as="generator") as parallel:
        made: Iterable[FeatureTable] = parallel(
            joblib.delayed(_extract_group)(extractor, group) for group in groups
        )
        tables = list(track(made, "specimens", total=len(groups)))
    return FeatureTable(
        *(
            np.concatenate([getattr(table, column.name) for table in tables])
            for column in fields(FeatureTable)
        )
    )


def _extract_group(extractor: ReIQA, group: Group) -> FeatureTable:
    torch.set_num_threads(1)
    frames = group.frames()
    return FeatureTable(
        features=extractor.features_of([frame.image for frame in frames]),
        measures=np.stack([log_measures(frame.image) for frame in frames]),
        defocus_dof=np.array([frame.defocus_dof for frame in frames]),
        sampling=np.array([frame.sampling for frame in frames]),
        groups=np.full(len(frames), group.name),
        sources=np.full(len(frames), group.source),
    )


def targets(table: FeatureTable) -> NDArray[np.float64]:
    """Columns (score, |d|), shape (n, 2); |d| is cut at `FARTHEST_DOF`."""
    distance = np.minimum(table.defocus_dof, FARTHEST_DOF)
    return np.stack([score_of(table.defocus_dof), distance], axis=1)


@dataclass(frozen=True)
class CrossValidation:
    """How well held-out specimens are scored.

    Attributes
    ----------
    pooled_plcc : float
        Correlation of score and label over all held-out frames.
    mean_srcc : float
        Mean over specimens of the rank correlation of score and label.
    defocus_error_dof : float
        Median error of |d| within 6 depths of field.
    within_deviation : float or None
        Share of those whose error is within the deviation that the head tells; None of a ridge.
    """

    pooled_plcc: float
    mean_srcc: float
    defocus_error_dof: float
    within_deviation: float | None


def left_out(
    table: FeatureTable,
    regressors: Mapping[str, Regressor],
    *,
    products: bool = True,
    folds: int = 5,
) -> dict[str, Float64]:
    """Predict every frame by heads that have not seen its specimen.

    Parameters
    ----------
    table : FeatureTable
    regressors : mapping
        What fits each head, by its title.
    products : bool
        As of `models.head.with_sampling`.
    folds : int

    Returns
    -------
    dict of ndarray
        Of each title, shape (n, outputs); the columns are those of `models.regressor.OUTPUTS`.
    """
    wanted = targets(table)
    predicted: dict[str, Float64] = {}
    design = with_sampling(
        table.features.astype(np.float64),
        centred_sampling(table.sampling, sampling_range(table.sampling)),
        products=products,
    )
    splits = GroupKFold(folds).split(design, groups=table.groups)
    for train, test in track(splits, f"{len(regressors)} left out", total=folds):
        scaler = StandardScaler().fit(design[train])
        seen, unseen = scaler.transform(design[train]), scaler.transform(design[test])
        for title, regressor in regressors.items():
            fitted = plain_regressor(regressor(seen, wanted[train]), sigma=SIGMA_DOF)
            rows = predicted.setdefault(title, np.zeros((len(table), fitted.outputs)))
            rows[test] = fitted.predict(unseen)
    return predicted


def judge(table: FeatureTable, predicted: Float64) -> CrossValidation:
    """Compare what `left_out` predicted with the truth."""
    wanted = targets(table)
    near = table.defocus_dof <= 6
    error = np.abs(predicted[near, 1] - wanted[near, 1])
    told = predicted.shape[1] > 2
    return CrossValidation(
        pooled_plcc=float(np.corrcoef(predicted[:, 0], wanted[:, 0])[0, 1]),
        mean_srcc=_mean_srcc(predicted[:, 0], wanted[:, 0], table.groups),
        defocus_error_dof=float(np.median(error)),
        within_deviation=float(np.mean(error <= predicted[near, 2])) if told else None,
    )


def fit(extractor: ReIQA, table: FeatureTable, *, name: str = "default") -> Head:
    """Fit on every frame what scores held-out specimens best: a ridge, or else a small network.

    The report in the manifest holds what cross-validation saw of all that was tried, and of what
    was chosen by source; of frames as they are, which lie nearer to focus than a network is fitted
    for (decision 26).
    """
    ridges = {f"ridge {alpha:g}": alpha for alpha in ALPHAS}
    predicted = left_out(table, {title: Ridge(alpha).fit for title, alpha in ridges.items()})
    predicted |= left_out(table, {"network": fit_network}, products=False)
    found = {title: judge(table, values) for title, values in predicted.items()}
    chosen = simplest_of_the_best({title: each.pooled_plcc for title, each in found.items()})
    wanted = targets(table)
    return fit_head(
        table.features,
        wanted[:, 0],
        wanted[:, 1],
        extractor=extractor,
        label=Label(sigma=SIGMA_DOF),
        name=name,
        alpha=ridges.get(chosen, math.nan),
        network=None if chosen in ridges else fit_network,
        groups=table.groups.tolist(),
        sampling=table.sampling,
        report={
            "frames": len(table),
            "specimens": len(np.unique(table.groups)),
            "regressor": chosen,
            "cross_validation": {title: asdict(each) for title, each in found.items()},
            "cross_validation_by_source": _by_source(table, predicted[chosen]),
        },
    )


def simplest_of_the_best(correlation: Mapping[str, float]) -> str:
    """The strongest ridge within 0.005 of the best ridge; the network if it is better by more.

    What cannot be told apart there is decided for what generalises further.

    Parameters
    ----------
    correlation : mapping
        Of ridges, the weakest first, and of the network last.
    """
    *ridges, network = correlation
    best = max(correlation[title] for title in ridges)
    if correlation[network] > best + _AS_GOOD:
        return network
    return [title for title in ridges if correlation[title] >= best - _AS_GOOD][-1]


def _by_source(table: FeatureTable, predicted: Float64) -> dict[str, dict[str, float]]:
    sources = {str(source): table.sources == source for source in np.unique(table.sources)}
    return {
        source: asdict(judge(table.only(rows), predicted[rows])) for source, rows in sources.items()
    }


def fit_classical(table: FeatureTable) -> Ensemble:
    """Fit the classical ensemble on the same frames."""
    return fit_ensemble(table.measures, targets(table), table.sampling, alpha=_ENSEMBLE_ALPHA)


def _mean_srcc(
    predicted: NDArray[np.float64], wanted: NDArray[np.float64], groups: NDArray[np.str_]
) -> float:
    found = []
    for name in np.unique(groups):
        rows = groups == name
        if np.ptp(wanted[rows]) > 0:
            found.append(spearmanr(predicted[rows], wanted[rows]).statistic)
    return float(np.mean(found))
