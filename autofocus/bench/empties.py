"""Whether single frames tell an empty field from a specimen that is far out of focus.

A blurred specimen means: search on. An empty field means: stop. ROC curves of everything that a
frame tells, on simulated and on real frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.progress import track
from sklearn.metrics import roc_auc_score, roc_curve

from autofocus.errors import ConfigError
from autofocus.training.defocus import random_objective
from autofocus.training.labelled import sampling_of
from devices.simulated.optics import depth_of_field_um
from devices.simulated.render import Renderer, camera_counts
from devices.simulated.specimens import KINDS, make_specimen
from models.frame import as_grey_float, inspect
from models.normalise import percentile_normalisation
from models.patches import to_8bit
from models.scorer import Scorer

FIRST_SEED = 3_000_000
DEFOCUS_DOF = (2.0, 15.0)
PHOTONS = (30.0, 1000.0)
_SIDE_PX = 384
_CROP_PX = 192
_CROPS = 4
_LEAST_SHARE = 0.2
_DARK_BACKGROUND = 64  # median of 0..255
_DEFOCUSED = "bbbc006_z00_defocused"


@dataclass(frozen=True)
class Field:
    """One frame.

    Attributes
    ----------
    source : str
        ``simulated fluorescence``, ``simulated transmitted`` or ``real``.
    empty : bool
        Nothing is there; otherwise a specimen out of focus.
    image : ndarray of shape (height, width), uint8 or uint16
    sampling : float or None
    """

    source: str
    empty: bool
    image: NDArray[np.generic]
    sampling: float | None = None


def simulated_fields(count: int) -> Iterator[Field]:
    """``count`` empty fields and as many specimens 2 to 15 depths of field away, of each light."""
    for transmitted in (False, True):
        source = f"simulated {'transmitted' if transmitted else 'fluorescence'}"
        kinds = [kind for kind in KINDS if not kind.startswith("empty")]
        kinds = [kind for kind in kinds if (kind in ("absorption", "phase")) == transmitted]
        nothing = "empty_brightfield" if transmitted else "empty"
        for i in range(count):
            yield _simulated(source, kinds[i % len(kinds)], FIRST_SEED + i, empty=False)
            yield _simulated(source, nothing, FIRST_SEED + count + i, empty=True)


def _simulated(source: str, kind: str, seed: int, *, empty: bool) -> Field:
    rng = np.random.default_rng([seed, 0xE3])
    objective = random_objective(rng)
    specimen = make_specimen(
        kind, shape=(_SIDE_PX, _SIDE_PX), pixel_size_um=objective.pixel_size_um, rng=rng
    )
    renderer = Renderer(specimen, objective, condenser_na_ratio=float(rng.uniform(0.3, 0.9)))
    away = np.exp(rng.uniform(*np.log(DEFOCUS_DOF))) * depth_of_field_um(objective)
    photons = np.exp(rng.uniform(*np.log(PHOTONS)))
    light = photons * renderer.relative(float(away)) + rng.uniform(2, 50)
    image = camera_counts(light.astype(np.float32), rng=rng, read_noise_e=2.0)
    return Field(source, empty, image, sampling_of(objective))


def real_fields(data: Path) -> Iterator[Field]:
    """Crops of the stills that are out of focus, and of sharp stills where nothing lies.

    Raises
    ------
    ConfigError
        When the folder has no manifest.
    """
    manifest = data / "manifest.json"
    if not manifest.is_file():
        raise ConfigError(f"{manifest} is missing; give the folder that holds it")
    for still in json.loads(manifest.read_text(encoding="utf-8"))["stills"]:
        for file in sorted((data / still["folder"]).glob("*.tif")):
            image = tifffile.imread(file)
            grey = image if image.ndim == 2 else image.mean(axis=2).astype(np.float32)
            if still["name"] == _DEFOCUSED:
                yield from (Field("real", False, crop) for crop in _crops(grey, holding=True))
            else:
                crops = _crops(grey, holding=False)[:_CROPS]
                yield from (Field("real", True, crop) for crop in crops)


def _crops(image: NDArray[np.generic], *, holding: bool) -> list[NDArray[np.generic]]:
    """Squares of a frame of glowing things that hold some of them, or nothing for sure."""
    glowing = _glowing(image)
    if glowing is None:
        return []
    rows, columns = (range(0, side - _CROP_PX + 1, _CROP_PX) for side in image.shape)
    squares = [np.s_[y : y + _CROP_PX, x : x + _CROP_PX] for y in rows for x in columns]
    share = [float(glowing[square].mean()) for square in squares]
    chosen = (s > _LEAST_SHARE if holding else s == 0 for s in share)
    return [image[square] for square, take in zip(squares, chosen, strict=True) if take]


def _glowing(image: NDArray[np.generic]) -> NDArray[np.uint8] | None:
    """Mask of what glows, widened by 15 px; None for frames that are not dark with things in them.

    The triangle threshold (G. W. Zack et al., J. Histochem. Cytochem. 25 (1977) 741-753) suits a
    dark background with a long tail, and takes dim things in that Otsu's would leave out.
    """
    counts = cv2.GaussianBlur(as_grey_float(image), (0, 0), 2.0)
    frame8 = to_8bit(percentile_normalisation(counts, p_low=1.0, p_high=99.8).apply(counts))
    if np.median(frame8) > _DARK_BACKGROUND:
        return None
    _, mask = cv2.threshold(frame8, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_TRIANGLE)
    return cv2.dilate(mask, np.ones((31, 31), np.uint8)).astype(np.uint8)


def measure(fields: Sequence[Field], scorer: Scorer) -> list[dict[str, float]]:
    """What each frame says for being empty; higher means emptier.

    The estimated distance and the negative score of the learned head, and the signal over noise of
    `models.frame.inspect`, negative.
    """
    found = []
    for field in track(fields, "frames"):
        said = scorer.score(field.image, sampling=field.sampling)
        found.append(
            {
                "estimated distance": said.defocus_dof or 0.0,
                "score": -said.score,
                "signal over noise": -inspect(field.image).snr,
            }
        )
    return found


def table(fields: Sequence[Field], said: Sequence[Mapping[str, float]]) -> str:
    """Markdown: area under the ROC curve by source and statistic."""
    lines = ["| frames | empty | out of focus | statistic | AUC |", "|---|---|---|---|---|"]
    for source, rows in _by_source(fields).items():
        empty = np.array([fields[i].empty for i in rows])
        for name in said[0]:
            auc = roc_auc_score(empty, [said[i][name] for i in rows])
            lines.append(f"| {source} | {empty.sum()} | {(~empty).sum()} | {name} | {auc:.3f} |")
    return "\n".join(lines)


def draw(fields: Sequence[Field], said: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write the ROC curves as a PNG, one panel a source."""
    sources = _by_source(fields)
    figure = Figure(figsize=(4.2 * len(sources), 4), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(sources), squeeze=False)[0]
    for axes, (source, rows) in zip(panels, sources.items(), strict=True):
        empty = [fields[i].empty for i in rows]
        for name in said[0]:
            false_alarms, found, _ = roc_curve(empty, [said[i][name] for i in rows])
            axes.plot(false_alarms, found, label=name)
        axes.set(title=source, xlabel="specimens taken for empty", ylabel="empty fields found")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.25)
    figure.savefig(path)


def _by_source(fields: Sequence[Field]) -> dict[str, list[int]]:
    return {
        source: [i for i, field in enumerate(fields) if field.source == source]
        for source in dict.fromkeys(field.source for field in fields)
    }
