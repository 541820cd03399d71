"""Which scorers are installed, where their weights are, and how to build one by name.

A folder of models holds ``compact/`` and ``published/``, each with the encoders
(`models.checkpoints`), a default head in ``head/`` and further ones in ``heads/<name>/``
(`models.head`), ``ensemble.json`` (`models.ensemble`), and networks in ``finetuned/<name>/``
(`models.finetuned`). Several folders are searched, later ones first, so that a user's own encoders
and heads stand before those that came with the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from models.checkpoints import (
    BRANCHES,
    EncoderManifest,
    import_published,
    load_encoders,
    read_encoder_manifest,
)
from models.classical import MEASURES, ClassicalScorer, referee
from models.encoders import Layout
from models.engines import EngineChoice, choose_engine
from models.ensemble import NAME as ENSEMBLE
from models.ensemble import Ensemble, EnsembleScorer
from models.errors import HeadError, UnknownScorer
from models.finetuned import FineTunedScorer, load_finetuned, read_finetuned_manifest
from models.head import Head, load_head, read_head_manifest
from models.reiqa import ExtractorSettings, ReIQA, settings_for
from models.reiqa_scorer import ReIQAScorer
from models.scorer import Scorer

DEFAULT_HEAD = "default"
ENSEMBLE_FILE = "ensemble.json"
FINETUNED = "finetuned"
"""Folder of networks in a folder of models."""

_LAYOUTS: dict[str, Layout] = {"reiqa-compact": "compact", "reiqa-published": "published"}


@dataclass(frozen=True)
class Entry:
    """One scorer that can be loaded.

    Attributes
    ----------
    name : str
        For `Registry.load_scorer`.
    folder : Path or None
        Where its encoders or its fit are; None for classical measures.
    heads : tuple of str
        Heads found for it, fitting or not; empty for classical measures.
    """

    name: str
    folder: Path | None
    heads: tuple[str, ...]


def builtin_folder() -> Path:
    """Folder of the models that came with the program."""
    return Path(__file__).parent / "weights"


def is_taken(name: str) -> bool:
    """Whether a scorer that is not fine-tuned has this name."""
    return name in (*MEASURES, *_LAYOUTS, ENSEMBLE)


class Registry:
    """The scorers in some folders, and the classical measures.

    Parameters
    ----------
    folders : sequence of Path
        Later ones win; the last one receives imported encoders. They need not exist.
    engine : {"auto", "torch", "openvino", "cuda"}
        What runs encoders; see `models.engines`.
    """

    def __init__(self, folders: Sequence[Path], engine: EngineChoice = "auto") -> None:
        self.folders = tuple(folders)
        self.engine = engine

    def list(self) -> tuple[Entry, ...]:
        """Everything that can be named, learned scorers first."""
        learned = (
            Entry(name, folder, tuple(self._heads(layout)))
            for name, layout in _LAYOUTS.items()
            if (folder := self._encoders(layout)) is not None
        )
        fitted = (Entry(ENSEMBLE, path.parent, ()) for path in self._ensembles()[:1])
        tuned = (Entry(name, folder, ()) for name, folder in self._finetuned().items())
        return (*learned, *tuned, *fitted, *(Entry(name, None, ()) for name in MEASURES))

    def show(self, name: str) -> dict[str, Any]:
        """Manifests of a scorer's encoders and heads, JSON-able.

        Raises
        ------
        UnknownScorer, CheckpointError, HeadError
        """
        if name in MEASURES:
            return {"name": name, "kind": "classical measure"}
        if name == ENSEMBLE:
            return {"name": name, "kind": "ridge on log measures", **asdict(self._load_ensemble())}
        if tuned := self._finetuned().get(name):
            shown = asdict(read_finetuned_manifest(tuned))
            return {"name": name, "kind": "fine-tuned network", "folder": str(tuned), **shown}
        layout, folder = self._require(name)
        heads = self._heads(layout)
        return {
            "name": name,
            "kind": "Re-IQA features and a head",
            "folder": str(folder),
            "encoders": asdict(read_encoder_manifest(folder)),
            "heads": {head: asdict(read_head_manifest(at)) for head, at in heads.items()},
        }

    def verify(self, name: str) -> dict[str, str]:
        """Read every file of a scorer and compare it with its manifest.

        Returns
        -------
        dict
            SHA-256 by part: ``content``, ``quality`` and ``head <name>``, or ``weights`` of a
            fine-tuned network; nothing for a classical measure, which has no files.

        Raises
        ------
        UnknownScorer
            When there is no such scorer.
        CheckpointError, HeadError
            Of the first file that is not what its manifest says.
        """
        if name in MEASURES:
            return {}
        if name == ENSEMBLE:
            self._load_ensemble()
            return {}
        if tuned := self._finetuned().get(name):
            return {"weights": load_finetuned(tuned).manifest.weights_sha256}
        layout, folder = self._require(name)
        manifest = load_encoders(folder).manifest
        found = dict(zip(BRANCHES, (manifest.content_sha256, manifest.quality_sha256), strict=True))
        for head in self._heads(layout):
            scorer = self._load_learned(name, head)
            found[f"head {head}"] = scorer.fitted.manifest.head_sha256
        return found

    def import_(self, content_path: Path, quality_path: Path) -> EncoderManifest:
        """Import the two published checkpoint files into the last folder.

        Raises
        ------
        CheckpointError
            When one of them is not what it claims to be; nothing is written then.
        """
        return import_published(content_path, quality_path, self.folders[-1] / "published")

    def load_scorer(self, name: str, head: str = DEFAULT_HEAD) -> Scorer:
        """Build a scorer, everything about it verified.

        Parameters
        ----------
        name : str
            ``reiqa-compact``, ``reiqa-published``, ``classical_ensemble``, a fine-tuned network's
            name or a key of `models.classical.MEASURES`.
        head : str
            Which of the heads in `list`; classical measures and fine-tuned networks have none.

        Raises
        ------
        UnknownScorer
            Lists those that exist.
        CheckpointError, HeadError
            When the files are damaged or do not belong together, or there is no such head.
        """
        if name in MEASURES:
            return ClassicalScorer(name)
        if name == ENSEMBLE:
            return EnsembleScorer(self._load_ensemble())
        if tuned := self._finetuned().get(name):
            return self._load_finetuned(name, tuned)
        return self._load_learned(name, head)

    def load_extractor(self, name: str, settings: ExtractorSettings | None = None) -> ReIQA:
        """Features without a head, for training one; with what the layout is made for if None.

        Raises
        ------
        UnknownScorer, CheckpointError
        """
        layout, folder = self._require(name)
        pair = load_encoders(folder)
        settings = settings or settings_for(layout)
        return ReIQA(pair.content, pair.quality, settings, choose_engine(self.engine, layout))

    def head_folder(self, name: str, head: str) -> Path:
        """Where a head is; see `models.head`.

        Raises
        ------
        UnknownScorer, HeadError
            When there is no such scorer, or it has no such head.
        """
        layout, _ = self._require(name)
        heads = self._heads(layout)
        if head not in heads:
            raise HeadError(
                f"{name} has no head {head!r}, only {sorted(heads)}; fit one on labelled z-stacks"
            )
        return heads[head]

    def _load_learned(self, name: str, head: str) -> ReIQAScorer:
        layout, _ = self._require(name)
        folder = self.head_folder(name, head)
        settings = read_head_manifest(folder).settings
        if settings.layout != layout:
            raise HeadError(f"{folder} was fitted on the {settings.layout} layout")
        extractor = self.load_extractor(name, settings)
        fitted: Head = load_head(folder, extractor=extractor)
        return ReIQAScorer(extractor, fitted, referee())

    def _load_finetuned(self, name: str, folder: Path) -> FineTunedScorer:
        fitted = load_finetuned(folder)
        # Small networks, like the compact encoders, but their score is the last of the layers.
        engine = replace(choose_engine(self.engine, "compact"), bfloat16=False)
        forward = engine.compile(fitted.network)
        return FineTunedScorer(name, fitted.manifest, fitted.usual, forward, referee())

    def _finetuned(self) -> dict[str, Path]:
        """Folders of networks by name; one that takes the name of another scorer is left out."""
        found: dict[str, Path] = {}
        for folder in self.folders:
            paths = sorted(folder.glob(f"{FINETUNED}/*/manifest.json"))
            found |= {path.parent.name: path.parent for path in paths}
        return {name: folder for name, folder in found.items() if not is_taken(name)}

    def _ensembles(self) -> Sequence[Path]:
        found = (folder / ENSEMBLE_FILE for folder in reversed(self.folders))
        return tuple(path for path in found if path.is_file())

    def _load_ensemble(self) -> Ensemble:
        paths = self._ensembles()
        if not paths:
            raise UnknownScorer(f"no {ENSEMBLE_FILE} in {', '.join(map(str, self.folders))}")
        return Ensemble.load(paths[0])

    def _require(self, name: str) -> tuple[Layout, Path]:
        layout = _LAYOUTS.get(name)
        folder = self._encoders(layout) if layout else None
        if layout is None or folder is None:
            known = ", ".join(entry.name for entry in self.list())
            hint = "; import its two files first" if layout == "published" else ""
            raise UnknownScorer(f"no scorer is called {name!r}{hint}; there are {known}")
        return layout, folder

    def _encoders(self, layout: Layout) -> Path | None:
        candidates = (folder / layout for folder in reversed(self.folders))
        return next((folder for folder in candidates if (folder / "manifest.json").is_file()), None)

    def _heads(self, layout: Layout) -> dict[str, Path]:
        """Folders of heads by name. Names are looked up here, never joined to a path."""
        found: dict[str, Path] = {}
        for folder in self.folders:
            pair = folder / layout
            found |= {path.parent.name: path.parent for path in pair.glob("heads/*/manifest.json")}
            if (pair / "head" / "manifest.json").is_file():
                found[DEFAULT_HEAD] = pair / "head"
        return found
