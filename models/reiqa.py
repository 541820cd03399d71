"""Re-IQA features of one frame. Nothing of Re-IQA's conventions gets past this file.

Saha, Mishra and Bovik, "Re-IQA: Unsupervised Learning for Image Quality Assessment in the Wild",
CVPR 2023, arXiv:2304.00451: two frozen encoders, one that sees content and one that sees quality,
each on the patch at full and at half scale. What is around them (percentile normalisation, patches
inside the specimen, mean over the sharpest that keep apart) is this project's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.encoders import Layout, weights_sha256
from models.engines import Engine, Forward, choose_engine
from models.errors import require
from models.normalise import Highlights
from models.patches import Anchor, anchored_patches, choose_anchor, require_possible
from models.side_by_side import HalfTheThreads

Float32 = NDArray[np.float32]

# Smaller than any activation that means something, so that silent channels stay finite.
LOG_FLOOR = np.float32(1e-3)

_PATCHES_AT_ONCE = 16

_PERCENTILES = {"p80": 80.0, "p90": 90.0, "p95": 95.0}

# Per channel. Grey: the mean over the three channels of ImageNet's values.
_CONTENT_MEAN = {"published": (0.485, 0.456, 0.406), "compact": (0.449,)}
_CONTENT_STD = {"published": (0.229, 0.224, 0.225), "compact": (0.226,)}


@dataclass(frozen=True)
class ExtractorSettings:
    """Everything besides the weights that decides the features; kept in a head's manifest.

    `settings_for` gives those that the encoders of a layout are made for.

    Attributes
    ----------
    layout : {"published", "compact"}
        The published layout takes grey patches on three equal channels, ImageNet-normalised for
        the content branch; the compact one takes one channel, normalised with 0.449 and 0.226. The
        quality branch takes the patches as they are.
    patch_size : int
        Side of a patch, px; a multiple of 64, so that half scale is exact.
    patches : int
        Candidates anywhere in the specimen; in frames of more than two patches a side there is a
        grid of them besides (`models.patches.covering_positions`).
    top_k : float
        How many of the candidates, the sharpest, the network sees, as a share of ``patches``,
        0..1, rounded up.
    sharpness_sigma_px : float
        Of the Gaussian before the Laplacian whose variance ranks the candidates
        (`models.patches.sharpest_first`).
    most_overlap : float
        Share of a patch that it may have in common with a sharper one, 0..1
        (`models.patches.apart`).
    min_roi_cover : float
        Least share of specimen in a candidate, 0..1.
    border_px : int
        Outermost rows or columns that are not used on either end of a side shorter than a patch,
        because it is continued by reflection (`models.patches.without_border`).
    p_low, p_high : float
        Percentiles of the frame that become 0 and 1.
    highlights : {"clip", "compress"}
        What becomes of counts above ``p_high``: 1, or 1 + ln(x) so that the quality branch sees how
        bright a small structure is (`models.normalise.compress_highlights`). The content branch is
        given at most 1 at either scale (half scale is made before that), and the published layout
        clips.
    seed : int
        Of the candidates' positions.
    values : {"linear", "log"}
        ``"log"`` gives log(mean + 1e-3): activations span decades, and a linear head on their
        logarithms scores held-out specimens better (docs/models.md). The published layout is
        linear.
    pooling : {"mean", "p80", "p90", "p95"}
        How the features of the patches become those of the frame: their mean, or that percentile
        of each, which the sharpest patches decide.
    """

    layout: Layout = "compact"
    patch_size: int = 256
    patches: int = 32
    top_k: float = 0.2
    sharpness_sigma_px: float = 2.0
    most_overlap: float = 0.5
    min_roi_cover: float = 0.4
    border_px: int = 2
    p_low: float = 1.0
    p_high: float = 99.8
    highlights: Highlights = "clip"
    seed: int = 0
    pooling: Literal["mean", "p80", "p90", "p95"] = "mean"
    values: Literal["linear", "log"] = "linear"

    def __post_init__(self) -> None:
        require(self.layout in _CONTENT_MEAN, f"layout = {self.layout!r} is not known")
        require(self.pooling in ("mean", *_PERCENTILES), f"pooling = {self.pooling!r} unknown")
        require(self.values in ("linear", "log"), f"values = {self.values!r} is not known")
        require(
            self.highlights == "clip" or (self.highlights, self.layout) == ("compress", "compact"),
            f"highlights = {self.highlights!r}: 'clip', or 'compress' in the compact layout",
        )
        require(
            self.patch_size > 0 and self.patch_size % 64 == 0,
            f"patch_size = {self.patch_size} px must be a positive multiple of 64",
        )
        require(self.patches >= 1, f"patches = {self.patches} must be at least 1")
        require(0 < self.top_k <= 1, f"top_k = {self.top_k} must be in (0, 1]")
        require_possible(self)

    @property
    def top_patches(self) -> int:
        """Patches a frame that the network sees: 7 with the defaults."""
        return math.ceil(self.patches * self.top_k)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values; see `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExtractorSettings:
        """Rebuild what `to_dict` gave.

        Raises
        ------
        ValueError
            For a missing or unknown name or an impossible value; a default never fills in, since
            features fitted with one value are worthless with another.
        """
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(
                f"extractor settings differ in {sorted(set(values) ^ names)}; what another version "
                "of this program fitted or extracted must be made anew"
            )
        return cls(**values)


def settings_for(layout: Layout, **changes: Any) -> ExtractorSettings:
    """The settings that the encoders of a layout are made for.

    Parameters
    ----------
    layout : {"published", "compact"}
    **changes
        Other values, by the names of `ExtractorSettings`.

    Raises
    ------
    ValueError
        For impossible values.
    """
    made_for = {"values": "log", "highlights": "compress"} if layout == "compact" else {}
    return ExtractorSettings(layout=layout, **made_for | changes)


class ReIQA:
    """Frozen features of one grey frame.

    Parameters
    ----------
    content, quality : nn.Module
        Encoders (n, c, h, w) -> (n, features), float32, on the CPU; c is 3 in the published layout
        and 1 in the compact one. They are copied.
    settings : ExtractorSettings
        Everything else.
    engine : Engine, optional
        What runs the encoders; torch on the CPU if None.
    """

    def __init__(
        self,
        content: nn.Module,
        quality: nn.Module,
        settings: ExtractorSettings,
        engine: Engine | None = None,
    ) -> None:
        self.settings = settings
        self.engine = engine or choose_engine("torch")
        self.content_sha256 = weights_sha256(content)
        self.quality_sha256 = weights_sha256(quality)
        self._content = self.engine.compile(content)
        self._quality = self.engine.compile(quality)
        self._both = HalfTheThreads()

    def features(self, image: NDArray[np.generic], anchor: Anchor | None = None) -> Float32:
        """Features of one frame.

        Parameters
        ----------
        image : ndarray of shape (height, width), integer or float
            Raw camera counts, not scaled. Frames smaller than a patch are continued by reflection,
            without their outermost ``border_px``.
        anchor : Anchor, optional
            Fixes patches and normalisation; by default the frame is anchored to itself.

        Returns
        -------
        ndarray of shape (D,), float32
            [content full, content half, quality full, quality half]: 4 x 2048 values in the
            published layout, 2 x 240 and 2 x 360 in the compact pair that ships.

        Raises
        ------
        ImageError
            When the image is not a grey frame of finite numbers, or the anchor is for another size.
        """
        patches = self.patches(image, anchor or self.anchor(image))
        return self._pooled(self.features_of_patches(patches))

    def features_of(self, images: Iterable[NDArray[np.generic]]) -> Float32:
        """Features of many frames, each anchored to itself.

        Faster than one after the other where frames have few patches: small networks are, per
        patch, 2.4 times as fast on sixteen patches as on one (one core with AMX, bfloat16).

        Returns
        -------
        ndarray of shape (n, D), float32
            Those of `features` but for rounding.

        Raises
        ------
        ImageError
            As of `features`; for any of the images.
        """
        patches = [self.patches(image, self.anchor(image)) for image in images]
        together = np.concatenate(patches)
        rows = [
            self.features_of_patches(together[begin : begin + _PATCHES_AT_ONCE])
            for begin in range(0, len(together), _PATCHES_AT_ONCE)
        ]
        ends = np.cumsum([len(each) for each in patches])[:-1]
        return np.stack([self._pooled(each) for each in np.split(np.concatenate(rows), ends)])

    def anchor(self, image: NDArray[np.generic]) -> Anchor:
        """Patches and normalisation chosen on this frame, to be used on it and on others.

        The same image always gives the same anchor.
        """
        return choose_anchor(image, self.settings)

    def patches(self, image: NDArray[np.generic], anchor: Anchor) -> Float32:
        """Normalised patches that the network sees.

        Returns
        -------
        ndarray of shape (n, patch_size, patch_size), float32
            In [0, 1], or to 4 with compressed highlights; n <= `ExtractorSettings.top_patches`.
        """
        return anchored_patches(image, anchor, self.settings, self.settings.highlights)

    def features_of_patches(self, patches: Float32) -> Float32:
        """Features of patches that are already normalised, one row each.

        Parameters
        ----------
        patches : ndarray of shape (n, height, width), float32
            As from `patches`; even sides.

        Returns
        -------
        ndarray of shape (n, D), float32
            In the order of `features`.
        """
        halves = np.stack([_half(patch) for patch in patches])
        scales = [torch.from_numpy(scale)[:, None] for scale in (patches, halves)]
        content, quality = self._both(
            lambda: _forward(self._content, self._content_input, scales),
            lambda: _forward(self._quality, self._quality_input, scales),
        )
        return np.concatenate([*content, *quality], axis=1)

    def _pooled(self, features: Float32) -> Float32:
        """Of the patches of one frame to those of the frame."""
        if self.settings.pooling == "mean":
            pooled = features.mean(axis=0)
        else:
            percentile = _PERCENTILES[self.settings.pooling]
            pooled = np.percentile(features, percentile, axis=0).astype(np.float32)
        return pooled if self.settings.values == "linear" else np.log(pooled + LOG_FLOOR)

    def _content_input(self, x: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(values[self.settings.layout]).view(1, -1, 1, 1)
            for values in (_CONTENT_MEAN, _CONTENT_STD)
        )
        if self.settings.highlights == "compress":
            x = x.clamp(max=1)
        return (x - mean) / std

    def _quality_input(self, x: Tensor) -> Tensor:
        channels = len(_CONTENT_MEAN[self.settings.layout])
        return x.expand(-1, channels, -1, -1)


@torch.inference_mode()
def _forward(
    encoder: Forward, prepared: Callable[[Tensor], Tensor], scales: Sequence[Tensor]
) -> list[Float32]:
    return [encoder(prepared(scale)).numpy() for scale in scales]


def _half(patch: Float32) -> Float32:
    """Half scale: means of 2 x 2 px."""
    height, width = patch.shape
    return cv2.resize(patch, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
