"""Scorers by name, from the models that came with the program and the rig's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from autofocus.config import Rig
from models.classical import DEFAULT_MEASURE
from models.registry import DEFAULT_HEAD, Registry, builtin_folder
from models.scorer import Scorer

DEFAULT_SCORER = "reiqa-compact"

LoadScorer = Callable[[str | None, str | None], Scorer]


def registry_of(rig: Rig) -> Registry:
    """Built-in models, and the rig's own before them."""
    return Registry([builtin_folder(), rig.models_dir], rig.engine)


def scorers_of(rig: Rig) -> LoadScorer:
    """Load scorers by (name, head), each once; None means the rig's default.

    The default is the rig file's ``scorer``, else the learned score, else, where no encoders are
    installed, the default classical measure.
    """
    registry = registry_of(rig)

    @cache
    def load_once(name: str, head: str) -> Scorer:
        return registry.load_scorer(name, head)

    def load(name: str | None, head: str | None) -> Scorer:
        return load_once(name or default_scorer(rig, registry), head or DEFAULT_HEAD)

    return load


def default_scorer(rig: Rig, registry: Registry) -> str:
    """Name of the scorer of a run that asks for none."""
    installed = {entry.name for entry in registry.list()}
    learned = DEFAULT_SCORER if DEFAULT_SCORER in installed else DEFAULT_MEASURE
    return rig.scorer or learned
