"""A network trained end to end on a lab's own z-stacks, as a scorer.

It is a folder: ``weights.safetensors`` (the network, and where the features of the training frames
lie) and ``manifest.json``. Safetensors cannot execute code. The weights carry a copy of the
settings they are good for; the manifest must agree with it and with the file's SHA-256, else the
folder is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from models.backbones import Backbone, ScoreNetwork
from models.distribution import Distribution
from models.engines import Forward
from models.errors import CheckpointError, require
from models.head import Label
from models.patches import Anchor, anchored_patches, choose_anchor, require_possible
from models.scorer import FrameScore, Scorer

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"

_FORMAT = 1
# A frame with another pixel, in units of wavelength / NA, shows another blur at the same defocus.
_SAMPLING_TOLERANCE = 1.25
_NETWORK, _USUAL = "network.", "usual."


@dataclass(frozen=True)
class PatchSettings:
    """Which patches of a frame the network sees; names as in `models.reiqa.ExtractorSettings`.

    Attributes
    ----------
    patch_size : int
        Side, px; at least 32.
    patches, top_patches : int
        Candidates inside the specimen (in large frames a grid of them besides), and how many,
        the sharpest, are used.
    sharpness_sigma_px : float
        Of the Gaussian before the Laplacian that ranks them.
    most_overlap : float
        Share of a patch that it may have in common with a sharper one, 0..1.
    min_roi_cover : float
        Least share of specimen in a candidate, 0..1.
    border_px : int
        Outermost rows or columns that are not used of frames smaller than a patch.
    p_low, p_high : float
        Percentiles of the frame that become 0 and 1.
    seed : int
        Of the candidates' positions.
    """

    patch_size: int = 128
    patches: int = 32
    top_patches: int = 4
    sharpness_sigma_px: float = 2.0
    most_overlap: float = 0.5
    min_roi_cover: float = 0.4
    border_px: int = 2
    p_low: float = 1.0
    p_high: float = 99.8
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.patch_size >= 32, f"patch_size = {self.patch_size} px must be at least 32")
        require(
            1 <= self.top_patches <= self.patches,
            f"top_patches = {self.top_patches} must be within 1..patches = {self.patches}",
        )
        require_possible(self)


@dataclass(frozen=True)
class Settings:
    """What the weights are good for; a copy is in the file of weights.

    Attributes
    ----------
    backbone : {"resnet18", "mobilenet_v3_small"}
    patches : PatchSettings
        Preprocessing.
    label : Label
        What the score means.
    pixel_size_um, dof_um, sampling : float
        Of the frames it was trained on: camera pixel in the specimen, depth of field, and the
        pixel as a multiple of wavelength / NA.
    """

    backbone: Backbone
    patches: PatchSettings
    label: Label
    pixel_size_um: float
    dof_um: float
    sampling: float

    def __post_init__(self) -> None:
        require(self.backbone in get_args(Backbone), f"backbone = {self.backbone!r} unknown")
        for name in ("pixel_size_um", "dof_um", "sampling"):
            value = getattr(self, name)
            require(math.isfinite(value) and value > 0, f"{name} = {value} must be positive")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Rebuild what `dataclasses.asdict` gave; a default never fills in.

        Raises
        ------
        ValueError, TypeError, KeyError
            For a missing or unknown name or an impossible value.
        """
        patches, label = values["patches"], values["label"]
        for given, kind in ((patches, PatchSettings), (label, Label)):
            differing = set(given) ^ {field.name for field in fields(kind)}
            require(
                not differing,
                f"settings differ in {sorted(differing)}; what another version of this program "
                "trained must be trained anew",
            )
        return cls(**{**values, "patches": PatchSettings(**patches), "label": Label(**label)})


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says.

    Attributes
    ----------
    settings : Settings
    report : mapping
        Of the training, JSON-able; informative.
    weights_sha256 : str
        Of the file of weights; empty before it is written.
    """

    settings: Settings
    report: Mapping[str, Any]
    weights_sha256: str = ""


@dataclass(frozen=True)
class Usual:
    """Where the features of the training frames lie.

    Attributes
    ----------
    mean, scale : ndarray of shape (D,)
        Standardise the features of a frame.
    distribution : Distribution
        Of the standardised features.
    """

    mean: Float64
    scale: Float64
    distribution: Distribution

    def is_usual(self, features: NDArray[np.floating[Any]]) -> bool:
        """Whether the features of a frame are as near as 99.9 % of the left-out training frames."""
        standardised = (features.astype(np.float64) - self.mean) / self.scale
        distance = self.distribution.distance(standardised[None])[0]
        return bool(distance <= self.distribution.threshold)


@dataclass(frozen=True)
class FineTuned:
    """A trained network and all that belongs to it."""

    network: ScoreNetwork
    usual: Usual
    manifest: Manifest


@dataclass(frozen=True)
class FineTunedScorer:
    """A `models.scorer.Scorer`.

    Parameters
    ----------
    name : str
        Of its folder.
    manifest : Manifest
    usual : Usual
    forward : callable
        The network, run by an engine.
    referee : Scorer
        Classical measure of the same frames; also says whether they are dark or saturated.
    """

    name: str
    manifest: Manifest
    usual: Usual
    forward: Forward
    referee: Scorer

    @property
    def head(self) -> str:
        """Backbone and short hash: the network is its own head."""
        return f"{self.manifest.settings.backbone}@{self.manifest.weights_sha256[:8]}"

    @property
    def absolute(self) -> bool:
        """False: it knows one objective and a few specimens, and no field without any."""
        return False

    @property
    def watched_by(self) -> str:
        """Name of the referee."""
        return self.referee.name

    def anchor(self, image: NDArray[np.generic]) -> Anchor:
        """Patches and normalisation of this frame, for all frames of a run."""
        return choose_anchor(image, self.manifest.settings.patches)

    def score(
        self,
        image: NDArray[np.generic],
        *,
        bit_depth: int | None = None,
        sampling: float | None = None,
        anchor: Anchor | None = None,
    ) -> FrameScore:
        """Score one grey frame; see `models.scorer.Scorer.score`.

        A frame of another sampling than the training's (by more than a quarter) is out of
        distribution, whatever it shows.
        """
        settings = self.manifest.settings
        watched = self.referee.score(image, bit_depth=bit_depth, sampling=sampling)
        patches = anchored_patches(image, anchor or self.anchor(image), settings.patches)
        with torch.inference_mode():
            pooled = self.forward(torch.from_numpy(patches)[:, None]).mean(dim=0).numpy()
        return FrameScore(
            score=score_of_logit(float(pooled[0])),
            referee=watched.score,
            coarse_contrast=watched.coarse_contrast,
            dark=watched.dark,
            saturated=watched.saturated,
            out_of_distribution=not (
                _same_sampling(sampling, settings.sampling) and self.usual.is_usual(pooled[1:])
            ),
            fingerprint=watched.fingerprint,
        )


def score_of_logit(logit: float) -> float:
    """Focus score in (0, 1)."""
    return 1 / (1 + math.exp(-min(max(logit, -30.0), 30.0)))


def save_finetuned(folder: Path, fitted: FineTuned) -> FineTuned:
    """Write a folder; returns it with the hash of its weights in the manifest.

    The manifest is written last: an interrupted call leaves a folder that is refused.
    """
    settings = asdict(fitted.manifest.settings)
    content = save(_tensors(fitted), metadata={"settings": json.dumps(settings, sort_keys=True)})
    manifest = replace(fitted.manifest, weights_sha256=hashlib.sha256(content).hexdigest())
    text = json.dumps({"format": _FORMAT, **asdict(manifest)}, indent=2, ensure_ascii=False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    (folder / WEIGHTS).write_bytes(content)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return replace(fitted, manifest=manifest)


def load_finetuned(folder: Path) -> FineTuned:
    """Read and verify a folder that `save_finetuned` wrote; nothing in it is executed.

    Raises
    ------
    CheckpointError
        When a file is absent or damaged, or the weights are not those of the manifest or were
        trained with other settings.
    """
    manifest = read_finetuned_manifest(folder)
    path = folder / WEIGHTS
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != manifest.weights_sha256:
            raise CheckpointError(
                f"{path} has SHA-256 {found}, the manifest says {manifest.weights_sha256}; one of "
                "the two was changed: copy the folder again, or train again"
            )
        with safe_open(path, "pt") as stored:
            trained_with = json.loads((stored.metadata() or {}).get("settings", "null"))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    _require_same_settings(folder, asdict(manifest.settings), trained_with)
    try:
        return _fitted(tensors, manifest)
    except (KeyError, RuntimeError) as error:
        said = " ".join(str(error).split())[:400]
        raise CheckpointError(
            f"{path} does not fit {manifest.settings.backbone}: {said}"
        ) from error


def read_finetuned_manifest(folder: Path) -> Manifest:
    """Manifest of a folder, without reading the weights.

    Raises
    ------
    CheckpointError
        When it is absent or not one of ours.
    """
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != _FORMAT:
            raise CheckpointError(f"{path} has a format that this version does not know")
        return Manifest(**{**values, "settings": Settings.from_dict(values["settings"])})
    except OSError as error:
        raise CheckpointError(f"no fine-tuned network in {folder}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no manifest of a fine-tuned network: {error!r}"
        ) from error


def _require_same_settings(folder: Path, said: Mapping[str, Any], trained_with: Any) -> None:
    if said == trained_with:
        return
    known = trained_with if isinstance(trained_with, dict) else {}
    differences = [
        f"{name} = {known.get(name)!r}, not {value!r}"
        for name, value in said.items()
        if known.get(name) != value
    ]
    raise CheckpointError(
        f"the weights in {folder} were trained with {'; '.join(differences)} as the manifest "
        "says; the manifest was changed: copy the folder again, or train again"
    )


def _tensors(fitted: FineTuned) -> dict[str, Tensor]:
    usual, distribution = fitted.usual, fitted.usual.distribution
    arrays = {
        "mean": usual.mean,
        "scale": usual.scale,
        "center": distribution.center,
        "components": distribution.components,
        "variances": distribution.variances,
        "rest_variance": distribution.rest_variance,
        "threshold": distribution.threshold,
    }
    weights = fitted.network.state_dict().items()
    return {
        **{_NETWORK + name: tensor.detach().cpu().contiguous() for name, tensor in weights},
        **{
            _USUAL + name: torch.from_numpy(np.array(value, np.float64, order="C"))
            for name, value in arrays.items()
        },
    }


def _fitted(tensors: dict[str, Tensor], manifest: Manifest) -> FineTuned:
    network = ScoreNetwork(manifest.settings.backbone)
    network.load_state_dict(
        {
            name.removeprefix(_NETWORK): tensor
            for name, tensor in tensors.items()
            if name.startswith(_NETWORK)
        }
    )
    arrays = {
        name.removeprefix(_USUAL): tensor.numpy()
        for name, tensor in tensors.items()
        if name.startswith(_USUAL)
    }
    distribution = Distribution(
        center=arrays["center"],
        components=arrays["components"],
        variances=arrays["variances"],
        rest_variance=float(arrays["rest_variance"]),
        threshold=float(arrays["threshold"]),
    )
    usual = Usual(arrays["mean"], arrays["scale"], distribution)
    return FineTuned(network.eval(), usual, manifest)


def _same_sampling(given: float | None, trained: float) -> bool:
    return given is None or trained / _SAMPLING_TOLERANCE <= given <= trained * _SAMPLING_TOLERANCE
