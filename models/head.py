"""The light regressor on frozen features: StandardScaler + Ridge, and what it was fitted on.

A head is a folder: ``head.joblib`` (a scikit-learn pipeline), ``distribution.npz`` (where the
training features lie) and ``manifest.json``. Features mean something only together with the
encoders and settings that made them, so the manifest names those and a head is refused with others.

A joblib file can execute code when loaded. Its SHA-256, the encoders and the settings are compared
before it is opened, so a file that was damaged, swapped or half written is never opened. The hash
stands next to the file and proves nothing about who wrote both: folders of heads must come from
this program or from people you trust, and nothing that was uploaded may be put there.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from models.distribution import Distribution, fit_distribution
from models.errors import HeadError
from models.reiqa import ExtractorSettings, ReIQA

Float64 = NDArray[np.float64]

_FORMAT = 1


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
        ``("score",)`` or ``("score", "defocus_dof")``.
    score_range : tuple of float
        Smallest and largest label it was fitted on.
    report : mapping
        Of the training, JSON-able; informative.
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
        head was not fitted for it.
    out_of_distribution : bool
        The features are farther from those it was fitted on than 99.9 % of these are when left
        out of the fit.
    """

    score: float
    defocus_dof: float | None
    out_of_distribution: bool


@dataclass(frozen=True)
class Head:
    """A fitted head.

    Attributes
    ----------
    pipeline : Pipeline
        StandardScaler and Ridge.
    distribution : Distribution
        Of the standardised training features.
    manifest : HeadManifest
        What belongs to it.
    """

    pipeline: Pipeline
    distribution: Distribution
    manifest: HeadManifest

    def predict(self, features: NDArray[np.floating[Any]]) -> HeadPrediction:
        """Score the features of one frame, shape (D,).

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
        linear = self._linear
        standardised = (features[None].astype(np.float64) - linear.mean) / linear.scale
        outputs = (standardised @ linear.slope.T + linear.offset)[0]
        distance = float(self.distribution.distance(standardised)[0])
        return HeadPrediction(
            score=float(outputs[0]),
            defocus_dof=max(0.0, float(outputs[1])) if len(outputs) > 1 else None,
            out_of_distribution=distance > self.distribution.threshold,
        )

    @cached_property
    def _linear(self) -> _Linear:
        """Plain arrays out of the pipeline: they predict the same in every scikit-learn."""
        try:
            (_, scaler), (_, ridge) = self.pipeline.steps
            slope = np.atleast_2d(ridge.coef_).astype(np.float64)
            offset = np.broadcast_to(np.float64(ridge.intercept_), (len(slope),))
            linear = _Linear(scaler.mean_, scaler.scale_, slope, offset)
        except (AttributeError, TypeError, ValueError) as error:
            raise HeadError(f"not a StandardScaler and a Ridge: {error}") from error
        wanted = (len(self.manifest.outputs), self.manifest.feature_dim)
        if slope.shape != wanted or linear.mean.shape != wanted[1:]:
            raise HeadError(
                f"head {self.manifest.title} maps {slope.shape[1]} features to {slope.shape[0]} "
                f"outputs, its manifest says {wanted[1]} to {wanted[0]}"
            )
        return linear


@dataclass(frozen=True)
class _Linear:
    mean: Float64
    scale: Float64
    slope: Float64
    offset: Float64


def fit_head(
    features: ArrayLike,
    scores: ArrayLike,
    defocus_dof: ArrayLike | None = None,
    *,
    extractor: ReIQA,
    label: Label,
    name: str,
    alpha: float | tuple[float, float] = 1000.0,
    groups: Sequence[object] | None = None,
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
    extractor : ReIQA
        Its settings and encoders go into the manifest.
    label : Label
        What ``scores`` are.
    name : str
        Of the head.
    alpha : float or tuple of float
        Strength of the ridge, one for both outputs or one each.
    groups : sequence of length n, optional
        Stack of each row; see `models.distribution.fit_distribution`.
    report : mapping, optional
        JSON-able facts about the training.

    Raises
    ------
    HeadError
        When the shapes do not agree or there is too little to fit.
    """
    x = np.asarray(features, np.float64)
    columns = [scores] if defocus_dof is None else [scores, defocus_dof]
    y = np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
    _require_fittable(x, y)
    ridge = Ridge(np.broadcast_to(np.asarray(alpha, np.float64), (len(columns),)))
    pipeline = make_pipeline(StandardScaler(), ridge).fit(x, y)
    try:
        distribution = fit_distribution(pipeline[0].transform(x), groups)
    except ValueError as error:
        raise HeadError(f"cannot fit head {name}: {error}") from error
    manifest = HeadManifest(
        name=name,
        settings=extractor.settings,
        content_sha256=extractor.content_sha256,
        quality_sha256=extractor.quality_sha256,
        feature_dim=x.shape[1],
        label=label,
        outputs=("score", "defocus_dof")[: len(columns)],
        score_range=(float(y[:, 0].min()), float(y[:, 0].max())),
        report=dict(report or {}),
    )
    return Head(pipeline, distribution, manifest)


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


def load_head(folder: Path, *, extractor: ReIQA) -> Head:
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
    head._linear  # noqa: B018 - a malformed pipeline is found now, not at the first frame
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


def _require_match(manifest: HeadManifest, extractor: ReIQA) -> None:
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
