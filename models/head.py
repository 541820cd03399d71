"""The light regressor on frozen features, and what it was fitted on.

StandardScaler and Ridge, or, where there are tens of thousands of frames to fit it to, a small
network in the ridge's place (`models.regressor`). A head is a folder: ``head.joblib`` (a
scikit-learn pipeline), ``distribution.npz`` (where the training features lie) and
``manifest.json``. Features mean something only together with the encoders and settings that made
them, so the manifest names those and a head is refused with others.

A joblib file can execute code when loaded. Its SHA-256, the encoders and the settings are compared
before it is opened, so a file that was damaged, swapped or half written is never opened. The hash
stands next to the file and proves nothing about who wrote both: folders of heads must come from
this program or from people you trust, and nothing that was uploaded may be put there.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from models.distribution import Distribution, fit_distribution
from models.errors import HeadError
from models.regressor import OUTPUTS, PlainRegressor, plain_regressor
from models.reiqa import ExtractorSettings

Float64 = NDArray[np.float64]
# Standardised inputs (n, inputs) and targets (n, outputs) to what is fitted to them.
Regressor = Callable[[Float64, Float64], Any]

_FORMAT = 1


class FeatureSource(Protocol):
    """What made features: a `models.reiqa.ReIQA`, or a file of features that names it."""

    @property
    def settings(self) -> ExtractorSettings:
        """Everything besides the weights that decides the features."""

    @property
    def content_sha256(self) -> str:
        """Of the encoder, see `models.encoders.weights_sha256`."""

    @property
    def quality_sha256(self) -> str:
        """Of the encoder, see `models.encoders.weights_sha256`."""


@dataclass(frozen=True)
class Label:
    """What column 0 of the target was.

    Attributes
    ----------
    sigma : float
        Distance from the in-focus plane at which the label is 0.5, in ``unit``.
    unit : str
        ``"depth of field"`` makes scores comparable between objectives, ``"um"`` does not.
    kind : str
        Formula, with d the distance to the in-focus plane in ``unit``.
    """

    sigma: float
    unit: str = "depth of field"
    kind: str = "1/(1+(d/sigma)^2)"

    @property
    def absolute(self) -> bool:
        """Whether 1 is sharp and 0 hopeless on every specimen and objective."""
        return self.unit == "depth of field"


@dataclass(frozen=True)
class SamplingRange:
    """Logarithms of the samplings a head was fitted on; see `models.scorer.Scorer.score`.

    Attributes
    ----------
    mean : float
        Over all frames; takes the place of a sampling that is not known.
    low, high : float
        What lies beyond is taken for these.
    """

    mean: float
    low: float
    high: float

    def centred(self, sampling: float | None) -> float:
        """Logarithm within the range, less the mean; 0 when not known."""
        if sampling is None:
            return 0.0
        if not (math.isfinite(sampling) and sampling > 0):
            raise HeadError(f"sampling = {sampling} must be a positive number, or left out")
        return min(max(math.log(sampling), self.low), self.high) - self.mean


@dataclass(frozen=True)
class HeadManifest:
    """What ``manifest.json`` says of a head.

    Attributes
    ----------
    name : str
        Of the head.
    settings : ExtractorSettings
        Of the features it was fitted on.
    content_sha256, quality_sha256 : str
        Of the encoders that made them, see `models.encoders.weights_sha256`.
    feature_dim : int
        Number of features.
    label : Label
        What the score means.
    outputs : tuple of str
        The first one, two or, of a network, three of `models.regressor.OUTPUTS`.
    score_range : tuple of float
        Smallest and largest label it was fitted on.
    report : mapping
        Of the training, JSON-able; informative.
    sampling : SamplingRange or None
        Of the frames, for a head that reads it; None for one that does not.
    head_sha256, distribution_sha256 : str
        Of the two files next to the manifest; empty before they are written.
    """

    name: str
    settings: ExtractorSettings
    content_sha256: str
    quality_sha256: str
    feature_dim: int
    label: Label
    outputs: tuple[str, ...]
    score_range: tuple[float, float]
    report: Mapping[str, Any]
    sampling: SamplingRange | None = None
    head_sha256: str = ""
    distribution_sha256: str = ""

    @property
    def title(self) -> str:
        """Name and short hash, as results carry it."""
        return f"{self.name}@{self.head_sha256[:8]}" if self.head_sha256 else self.name


@dataclass(frozen=True)
class HeadPrediction:
    """What a head says of one frame.

    Attributes
    ----------
    score : float
        As predicted; not clipped to the range of the label.
    defocus_dof : float or None
        Estimated distance to the in-focus plane in depths of field, not negative; None when the
        head was not fitted for it. From ten on it means that and more.
    defocus_sd_dof : float or None
        How far off a network expects it to be, root mean square; None of a ridge.
    out_of_distribution : bool
        The features are farther from those it was fitted on than 99.9 % of these are when left
        out of the fit.
    """

    score: float
    defocus_dof: float | None
    defocus_sd_dof: float | None
    out_of_distribution: bool


@dataclass(frozen=True)
class Head:
    """A fitted head.

    Attributes
    ----------
    pipeline : Pipeline
        StandardScaler, and a Ridge or an MLPClassifier of distances.
    distribution : Distribution
        Of the standardised training features.
    manifest : HeadManifest
        What belongs to it.
    """

    pipeline: Pipeline
    distribution: Distribution
    manifest: HeadManifest

    def predict(
        self, features: NDArray[np.floating[Any]], sampling: float | None = None
    ) -> HeadPrediction:
        """Score the features of one frame.

        Parameters
        ----------
        features : ndarray of shape (D,)
        sampling : float, optional
            Of the frame; see `models.scorer.Scorer.score`.

        Raises
        ------
        HeadError
            When the number of features is another than in training.
        """
        if features.shape != (self.manifest.feature_dim,):
            raise HeadError(
                f"head {self.manifest.title} takes {self.manifest.feature_dim} features of one "
                f"frame, got shape {features.shape}"
            )
        regressor = self._regressor
        scaler = self.pipeline[0]
        x = features[None].astype(np.float64)
        if self.manifest.sampling is not None:
            centred = np.array([self.manifest.sampling.centred(sampling)])
            x = with_sampling(x, centred, products=regressor.linear)
        standardised = (x - scaler.mean_) / scaler.scale_
        outputs = regressor.predict(standardised)[0]
        own = standardised[:, : self.manifest.feature_dim]
        distance = float(self.distribution.distance(own)[0])
        return HeadPrediction(
            score=float(outputs[0]),
            defocus_dof=max(0.0, float(outputs[1])) if len(outputs) > 1 else None,
            defocus_sd_dof=float(outputs[2]) if len(outputs) > 2 else None,
            out_of_distribution=distance > self.distribution.threshold,
        )

    @cached_property
    def _regressor(self) -> PlainRegressor:
        try:
            (_, scaler), (_, fitted) = self.pipeline.steps
            regressor = plain_regressor(fitted, sigma=self.manifest.label.sigma)
            found = (len(scaler.mean_), regressor.inputs, regressor.outputs)
        except (AttributeError, TypeError, ValueError) as error:
            raise HeadError(
                f"head {self.manifest.title} is not a StandardScaler and a Ridge or a network of "
                f"distances ({error}); fit it again"
            ) from error
        columns = self.manifest.feature_dim
        if self.manifest.sampling is not None:
            columns = 2 * columns + 1 if regressor.linear else columns + 1
        wanted = (columns, columns, len(self.manifest.outputs))
        if found != wanted:
            raise HeadError(
                f"head {self.manifest.title} scales {found[0]} features and maps {found[1]} to "
                f"{found[2]} outputs, its manifest says {columns} to {wanted[2]}"
            )
        return regressor


def with_sampling(features: Float64, centred: Float64, *, products: bool = True) -> Float64:
    """Features, the centred logarithm of the sampling, and their products: (n, 2 D + 1).

    How many pixels a depth of field of defocus blurs depends on the sampling alone, so what a
    feature means for the distance in depths of field depends on it. A network multiplies for
    itself: without ``products`` it is (n, D + 1).
    """
    column = centred[:, None]
    return np.hstack([features, column, features * column] if products else [features, column])


def fit_head(
    features: ArrayLike,
    scores: ArrayLike,
    defocus_dof: ArrayLike | None = None,
    *,
    extractor: FeatureSource,
    label: Label,
    name: str,
    alpha: float | tuple[float, float] = 1000.0,
    network: Regressor | None = None,
    groups: Sequence[object] | None = None,
    sampling: ArrayLike | None = None,
    report: Mapping[str, Any] | None = None,
) -> Head:
    """Fit a head on features that ``extractor`` made.

    Parameters
    ----------
    features : array_like of shape (n, D)
        One row a frame.
    scores : array_like of shape (n,)
        Labels, higher is sharper.
    defocus_dof : array_like of shape (n,), optional
        Distance to the in-focus plane in depths of field, for a second output.
    extractor : FeatureSource
        Its settings and encoders go into the manifest.
    label : Label
        What ``scores`` are.
    name : str
        Of the head.
    alpha : float or tuple of float
        Strength of the ridge, one for both outputs or one each.
    network : callable, optional
        Fits scikit-learn's classifier of distances in the ridge's place. It needs ``defocus_dof``,
        and its score is ``label`` of the distance, whatever ``scores`` are.
    groups : sequence of length n, optional
        Stack of each row; see `models.distribution.fit_distribution`.
    sampling : array_like of shape (n,), optional
        Of each frame, NaN where not known; for heads that serve several objectives.
    report : mapping, optional
        JSON-able facts about the training.

    Raises
    ------
    HeadError
        When the shapes do not agree, there is too little to fit, or it is not fit for a network.
    """
    x = np.asarray(features, np.float64)
    if network is not None and (defocus_dof is None or not label.absolute):
        raise HeadError("a network learns depths of field; give defocus_dof and a label of those")
    columns = [scores] if defocus_dof is None else [scores, defocus_dof]
    y = np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
    _require_fittable(x, y)
    known, design = None, x
    if sampling is not None:
        known = sampling_range(sampling)
        centred = centred_sampling(sampling, known)
        design = with_sampling(x, centred, products=network is None)
    ridge = Ridge(np.broadcast_to(np.asarray(alpha, np.float64), (len(columns),)))
    scaler = StandardScaler().fit(design)
    standardised = scaler.transform(design)
    pipeline = make_pipeline(scaler, (network or ridge.fit)(standardised, y))
    try:
        regressor = plain_regressor(pipeline[-1], sigma=label.sigma)
        distribution = fit_distribution(standardised[:, : x.shape[1]], groups)
    except ValueError as error:
        raise HeadError(f"cannot fit head {name}: {error}") from error
    manifest = HeadManifest(
        name=name,
        settings=extractor.settings,
        content_sha256=extractor.content_sha256,
        quality_sha256=extractor.quality_sha256,
        feature_dim=x.shape[1],
        label=label,
        outputs=OUTPUTS[: regressor.outputs],
        score_range=(float(y[:, 0].min()), float(y[:, 0].max())),
        report=dict(report or {}),
        sampling=known,
    )
    return Head(pipeline, distribution, manifest)


def sampling_range(sampling: ArrayLike) -> SamplingRange:
    """Range of the samplings that are known.

    Raises
    ------
    HeadError
        When none is known, or one is not positive.
    """
    values = np.asarray(sampling, np.float64)
    known = values[~np.isnan(values)]
    if len(known) == 0 or not (np.isfinite(known).all() and (known > 0).all()):
        raise HeadError("samplings must be positive numbers, NaN where not known, not all NaN")
    logs = np.log(known)
    return SamplingRange(float(logs.mean()), float(logs.min()), float(logs.max()))


def centred_sampling(sampling: ArrayLike, known: SamplingRange) -> Float64:
    """`SamplingRange.centred` of every frame, NaN for one that is not known."""
    values = np.asarray(sampling, np.float64)
    return np.array([known.centred(None if np.isnan(value) else value) for value in values])


def save_head(folder: Path, head: Head) -> Head:
    """Write a head; returns it with the hashes of its files in the manifest.

    The manifest is written last: an interrupted call leaves a head that is refused.
    """
    pipeline, arrays = io.BytesIO(), io.BytesIO()
    joblib.dump(head.pipeline, pipeline)
    np.savez(
        arrays,
        center=head.distribution.center,
        components=head.distribution.components,
        variances=head.distribution.variances,
        rest_variance=head.distribution.rest_variance,
        threshold=head.distribution.threshold,
    )
    manifest = replace(
        head.manifest,
        head_sha256=hashlib.sha256(pipeline.getvalue()).hexdigest(),
        distribution_sha256=hashlib.sha256(arrays.getvalue()).hexdigest(),
    )
    text = json.dumps({"format": _FORMAT, **asdict(manifest)}, indent=2, ensure_ascii=False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "head.joblib").write_bytes(pipeline.getvalue())
    (folder / "distribution.npz").write_bytes(arrays.getvalue())
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
    return replace(head, manifest=manifest)


def load_head(folder: Path, *, extractor: FeatureSource) -> Head:
    """Read a head for this extractor, opening nothing before everything matches.

    Raises
    ------
    HeadError
        When the encoders or settings are not those it was fitted with, or a file is absent or not
        the one of the manifest; says which differ.
    """
    manifest = read_head_manifest(folder)
    _require_match(manifest, extractor)
    pipeline = _read_verified(folder / "head.joblib", manifest.head_sha256)
    arrays = _read_verified(folder / "distribution.npz", manifest.distribution_sha256)
    head = Head(_pipeline(pipeline, manifest), _distribution(arrays), manifest)
    head._regressor  # noqa: B018 - a malformed pipeline is found now, not at the first frame
    return head


def read_head_manifest(folder: Path) -> HeadManifest:
    """Manifest of a head, opening nothing else.

    Raises
    ------
    HeadError
        When it is absent or not one of ours.
    """
    path = folder / "manifest.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != _FORMAT:
            raise HeadError(f"{path} has a format that this version does not know")
        values["settings"] = ExtractorSettings.from_dict(values["settings"])
        values["label"] = Label(**values["label"])
        values["outputs"] = tuple(values["outputs"])
        values["score_range"] = tuple(values["score_range"])
        if values.get("sampling") is not None:
            values["sampling"] = SamplingRange(**values["sampling"])
        return HeadManifest(**values)
    except OSError as error:
        raise HeadError(f"no head in {folder}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HeadError(f"{path} is not the manifest of a head: {error!r}") from error


def _require_fittable(x: Float64, y: Float64) -> None:
    if x.ndim != 2 or len(x) != len(y):
        raise HeadError(f"features {x.shape} and labels {y.shape} must have one row a frame")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise HeadError("features and labels must be finite; leave out frames without a label")


def _require_match(manifest: HeadManifest, extractor: FeatureSource) -> None:
    fitted = {
        **manifest.settings.to_dict(),
        "content_sha256": manifest.content_sha256,
        "quality_sha256": manifest.quality_sha256,
    }
    given = {
        **extractor.settings.to_dict(),
        "content_sha256": extractor.content_sha256,
        "quality_sha256": extractor.quality_sha256,
    }
    differences = [
        f"{name} = {value!r}, not {given[name]!r}"
        for name, value in fitted.items()
        if value != given[name]
    ]
    if differences:
        raise HeadError(
            f"head {manifest.title} was fitted with {'; '.join(differences)}; fit it again with "
            "these encoders and settings"
        )


def _read_verified(path: Path, expected_sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HeadError(f"cannot read {path}: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected_sha256:
        raise HeadError(
            f"{path} has SHA-256 {found}, the manifest says {expected_sha256}; it was changed "
            "after it was written and is not opened"
        )
    return content


def _pipeline(content: bytes, manifest: HeadManifest) -> Pipeline:
    with warnings.catch_warnings():
        # Another release of scikit-learn may have written it; only its arrays are used.
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        try:
            return joblib.load(io.BytesIO(content))
        except (ImportError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise HeadError(
                f"head {manifest.title} was written by a scikit-learn that this one cannot read "
                f"({error!r}); fit it again"
            ) from error


def _distribution(content: bytes) -> Distribution:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return Distribution(
            center=arrays["center"],
            components=arrays["components"],
            variances=arrays["variances"],
            rest_variance=float(arrays["rest_variance"]),
            threshold=float(arrays["threshold"]),
        )
