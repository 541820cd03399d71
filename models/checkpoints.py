"""Encoder weights on disk: the two published Re-IQA files, and folders of our own.

A folder holds ``content.safetensors``, ``quality.safetensors`` and ``manifest.json``. Safetensors
cannot execute code; the published ``.pth`` files are pickles and are read with
``weights_only=True``, once, to be rewritten as such a folder.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.encoders import CompactEncoder, Layout, resnet50_encoder, weights_sha256
from models.errors import CheckpointError

StateDict = dict[str, Tensor]

BRANCHES = ("content", "quality")

_PROJECTION = {"head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"}
_FORMAT = 1
_NAMED = 5


@dataclass(frozen=True)
class EncoderManifest:
    """What ``manifest.json`` says of a pair of encoders.

    Attributes
    ----------
    layout : Layout
        Which network the weights belong to.
    content_sha256, quality_sha256 : str
        `models.encoders.weights_sha256` of each branch.
    facts : mapping
        How the weights were made, JSON-able; informative.
    """

    layout: Layout
    content_sha256: str
    quality_sha256: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class EncoderPair:
    """Both branches, in eval mode, with their manifest."""

    content: nn.Module
    quality: nn.Module
    manifest: EncoderManifest


def load_published_encoder(path: Path) -> nn.Module:
    """Encoder of a published checkpoint, as `models.encoders.resnet50_encoder` in eval mode.

    Parameters
    ----------
    path : Path
        ``content_aware_r50.pth`` or ``quality_aware_r50.pth``, unmodified. The weights may stand
        under ``model`` or ``state_dict`` or bare, with or without the prefixes ``module.`` and
        ``encoder.``, with or without the projection head and the optimiser. The momentum copy
        ``model_ema`` is never used: its features differ.

    Raises
    ------
    CheckpointError
        When the file cannot be read without executing code from it, or when a tensor is missing,
        unknown, of another shape or type, or not finite. Nothing is skipped.
    """
    return _resnet50(_encoder_tensors(read_pickle(path), path), path)


def load_compact_encoder(path: Path) -> CompactEncoder:
    """Encoder of a safetensors file as `autofocus pretrain` writes it, in eval mode.

    Raises
    ------
    CheckpointError
        As `load_published_encoder`.
    """
    tensors = _read_safetensors(path)
    stem = tensors.get("conv1.weight")
    if stem is None or stem.ndim != 4 or stem.shape[0] == 0:
        raise CheckpointError(f"{path} does not fit the compact encoder: missing conv1.weight")
    with torch.device("meta"):
        encoder = CompactEncoder(width=stem.shape[0])
    _load_strictly(encoder, tensors, path)
    return encoder


def import_published(content_path: Path, quality_path: Path, folder: Path) -> EncoderManifest:
    """Check the two published files and write them as a folder of slim safetensors.

    Raises
    ------
    CheckpointError
        As `load_published_encoder`, and when both files hold the same weights.
    """
    content = load_published_encoder(content_path)
    quality = load_published_encoder(quality_path)
    if weights_sha256(content) == weights_sha256(quality):
        raise CheckpointError(
            f"{content_path} and {quality_path} hold the same weights; give the content-aware file "
            "first and the quality-aware file second"
        )
    sources = {
        f"{branch}_source": {"file": path.name, "sha256": _file_sha256(path)}
        for branch, path in zip(BRANCHES, (content_path, quality_path), strict=True)
    }
    return save_encoders(folder, content, quality, sources)


def save_encoders(
    folder: Path, content: nn.Module, quality: nn.Module, facts: Mapping[str, Any]
) -> EncoderManifest:
    """Write a pair of encoders.

    Parameters
    ----------
    folder : Path
        Made if absent; a pair that is already there is replaced.
    content, quality : nn.Module
        Two `CompactEncoder`, or two of `resnet50_encoder`; not folded.
    facts : mapping
        How the weights were made, JSON-able.
    """
    layouts = {_layout(content), _layout(quality)}
    if len(layouts) != 1:
        raise CheckpointError(
            "one encoder is compact and the other published; a pair has one layout"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for branch, encoder in zip(BRANCHES, (content, quality), strict=True):
        tensors = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
        save_file(tensors, folder / f"{branch}.safetensors")
    manifest = EncoderManifest(
        layout=layouts.pop(),
        content_sha256=weights_sha256(content),
        quality_sha256=weights_sha256(quality),
        facts=dict(facts),
    )
    _write_manifest(folder, manifest)
    return manifest


def load_encoders(folder: Path) -> EncoderPair:
    """Read and verify a pair written by `save_encoders` or `import_published`.

    Raises
    ------
    CheckpointError
        When a file is absent or damaged, or its weights are not those of the manifest.
    """
    manifest = read_encoder_manifest(folder)
    content = _load_branch(folder, "content", manifest.layout, manifest.content_sha256)
    quality = _load_branch(folder, "quality", manifest.layout, manifest.quality_sha256)
    return EncoderPair(content, quality, manifest)


def read_encoder_manifest(folder: Path) -> EncoderManifest:
    """Manifest of a folder, without reading the weights.

    Raises
    ------
    CheckpointError
        When it is absent or not one of ours.
    """
    path = folder / "manifest.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != _FORMAT or values["layout"] not in ("published", "compact"):
            raise CheckpointError(
                f"{path}: format {values['format']}, layout {values['layout']} are not known to "
                "this version"
            )
        return EncoderManifest(
            layout=values["layout"],
            content_sha256=values["content"]["sha256"],
            quality_sha256=values["quality"]["sha256"],
            facts=values["facts"],
        )
    except OSError as error:
        raise CheckpointError(f"no encoders in {folder}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a manifest of encoders: {error!r}") from error


def _write_manifest(folder: Path, manifest: EncoderManifest) -> None:
    values = {
        "format": _FORMAT,
        "layout": manifest.layout,
        "content": {"file": "content.safetensors", "sha256": manifest.content_sha256},
        "quality": {"file": "quality.safetensors", "sha256": manifest.quality_sha256},
        "facts": manifest.facts,
    }
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def _load_branch(folder: Path, branch: str, layout: Layout, expected_sha256: str) -> nn.Module:
    path = folder / f"{branch}.safetensors"
    if layout == "compact":
        encoder: nn.Module = load_compact_encoder(path)
    else:
        encoder = _resnet50(_read_safetensors(path), path)
    found = weights_sha256(encoder)
    if found != expected_sha256:
        raise CheckpointError(
            f"{path}: weights have SHA-256 {found}, the manifest says {expected_sha256}; "
            "one of the two was changed: import or install them again"
        )
    return encoder


def _resnet50(tensors: StateDict, path: Path) -> nn.Module:
    with torch.device("meta"):
        encoder = resnet50_encoder()
    _load_strictly(encoder, tensors, path)
    return encoder


def _read_safetensors(path: Path) -> StateDict:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def read_pickle(path: Path) -> object:
    """Tensors and numbers of a PyTorch file; nothing in it is executed.

    Raises
    ------
    CheckpointError
        When it is absent, damaged, or holds anything else.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {path}; docs/models.md tells what is published where")
    try:
        with _numpy_scalars_allowed():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and numbers and is not unpickled, because that could "
            f"execute code: {_refusal(error)}"
        ) from error
    except Exception as error:  # whatever a damaged or foreign file makes torch stumble over
        raise CheckpointError(f"{path} is not a PyTorch checkpoint: {error!r}") from error


def _refusal(error: pickle.UnpicklingError) -> str:
    """What was refused, out of a page of torch's advice to switch the refusal off."""
    found = re.search(r"WeightsUnpickler error:\s*(.*?)(?:\. Please|\n|$)", str(error))
    return found[1] if found else "not a PyTorch file"


def _numpy_scalars_allowed() -> AbstractContextManager[None]:
    """Allow the learning rate that PyContrast saves as a numpy.float64, and nothing else.

    NumPy 1 and 2 spell the module of the constructor differently; files hold either.
    """
    scalar = np.float64().__reduce__()[0]
    return torch.serialization.safe_globals(
        [
            (scalar, "numpy.core.multiarray.scalar"),
            (scalar, "numpy._core.multiarray.scalar"),
            np.dtype,
            np.dtypes.Float64DType,
        ]
    )


def _encoder_tensors(checkpoint: object, path: Path) -> StateDict:
    """Tensors of the encoder by their torchvision names."""
    weights = _weights(checkpoint, path)
    names = {name.removeprefix("module."): name for name in weights}
    if len(names) < len(weights):
        raise CheckpointError(f"{path} holds tensors both with and without the prefix 'module.'")
    if not any(name.startswith("encoder.") for name in names):
        return {name: weights[full] for name, full in names.items()}
    unknown = [
        full
        for name, full in names.items()
        if not name.startswith("encoder.") and name not in _PROJECTION
    ]
    if unknown:
        raise CheckpointError(f"{path}: not part of Re-IQA: {_some(unknown)}")
    return {
        name.removeprefix("encoder."): weights[full]
        for name, full in names.items()
        if name.startswith("encoder.")
    }


def _weights(checkpoint: object, path: Path) -> StateDict:
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f"{path} holds a {type(checkpoint).__name__}, not named tensors")
    for key in ("model", "state_dict"):
        if key in checkpoint:
            checkpoint = checkpoint[key]
            break
    if not isinstance(checkpoint, Mapping) or not checkpoint:
        raise CheckpointError(f"{path} holds no named tensors")
    others = [
        repr(name)
        for name, value in checkpoint.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if others:
        raise CheckpointError(
            f"{path}: not tensors: {_some(others)}; expected the weights under 'model', under "
            "'state_dict', or alone"
        )
    return dict(checkpoint)


def _load_strictly(encoder: nn.Module, tensors: StateDict, path: Path) -> None:
    """Give an encoder on the meta device exactly these weights, in eval mode."""
    expected = encoder.state_dict()
    problems = [
        ("missing", [name for name in expected if name not in tensors]),
        ("unknown", [name for name in tensors if name not in expected]),
        ("wrong", _misfits(expected, tensors)),
    ]
    said = [f"{kind} {_some(names)}" for kind, names in problems if names]
    if said:
        raise CheckpointError(f"{path} does not fit {_title(encoder)}: {'; '.join(said)}")
    encoder.load_state_dict(tensors, strict=True, assign=True)
    encoder.eval()


def _misfits(expected: StateDict, tensors: StateDict) -> list[str]:
    return [
        misfit
        for name, wanted in expected.items()
        if name in tensors and (misfit := _misfit(name, wanted, tensors[name]))
    ]


def _misfit(name: str, wanted: Tensor, found: Tensor) -> str:
    if (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
        return (
            f"{name} {tuple(found.shape)} {found.dtype} (expected {tuple(wanted.shape)} "
            f"{wanted.dtype})"
        )
    return "" if found.isfinite().all() else f"{name} (not finite)"


def _title(encoder: nn.Module) -> str:
    return "the compact encoder" if isinstance(encoder, CompactEncoder) else "ResNet-50 without fc"


def _layout(encoder: nn.Module) -> Layout:
    return "compact" if isinstance(encoder, CompactEncoder) else "published"


def _some(names: list[str]) -> str:
    """First few names and how many more there are; checkpoints have hundreds."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
