"""Scorers by name, from the models that came with the program and the rig's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from autofocus.config import Rig
from autofocus.errors import StorageError
from autofocus.folders import write_whole
from models.classical import DEFAULT_MEASURE
from models.errors import HeadError
from models.registry import DEFAULT_HEAD, Registry, builtin_folder
from models.scorer import Scorer

DEFAULT_SCORER = "reiqa-compact"
ACTIVE_FILE = "active.json"

LoadScorer = Callable[[str | None, str | None], Scorer]

_KEPT = 16


class ActiveHead:
    """Which head of `DEFAULT_SCORER` is used where none is named: ``active.json``, read each time.

    Parameters
    ----------
    folder : Path
        The rig's folder of models.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ACTIVE_FILE

    @property
    def name(self) -> str:
        """The head in use; the one that came with the program until another was put."""
        return self._read("head")

    @property
    def previous(self) -> str:
        """The head that was in use before, to put back."""
        return self._read("previous")

    def put(self, name: str) -> None:
        """Use another head from now on, also after a restart.

        Raises
        ------
        StorageError
            When it cannot be written; the head in use stays.
        """
        values = {"head": name, "previous": self.name}
        if name == self.name:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(values).encode())
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error}") from error

    def _read(self, key: str) -> str:
        try:
            return str(json.loads(self.path.read_text(encoding="utf-8"))[key])
        except FileNotFoundError:
            return DEFAULT_HEAD
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HeadError(
                f"{self.path} does not say which head is in use ({error!r}); delete it to use the "
                "one that came with the program"
            ) from error


class Scorers:
    """Loads scorers by (name, head), each once; None means the rig's default.

    The default is the rig file's ``scorer``, else the learned score, else, where no encoders are
    installed, the default classical measure. Of the learned score it is the active head.

    Parameters
    ----------
    registry : Registry
        What is installed.
    active : ActiveHead
        Which head is in use.
    default : str
        Name of the scorer where none is asked for.
    """

    def __init__(self, registry: Registry, active: ActiveHead, default: str) -> None:
        self.registry = registry
        self.active = active
        self.default = default
        self._load = lru_cache(_KEPT)(registry.load_scorer)

    def __call__(self, name: str | None, head: str | None) -> Scorer:
        """Load a scorer; see `models.registry.Registry.load_scorer`."""
        name = name or self.default
        if head is None and name == DEFAULT_SCORER:
            return self._load_active(name)
        return self._load(name, head or DEFAULT_HEAD)

    def _load_active(self, name: str) -> Scorer:
        head = self.active.name
        try:
            return self._load(name, head)
        except HeadError as error:
            if head == DEFAULT_HEAD:
                raise
            raise HeadError(
                f"{error}; until {head!r} is fitted again, delete {self.active.path} to use the "
                "head that came with the program"
            ) from error


@dataclass(frozen=True)
class HeadChoice:
    """Which head scores a run.

    Attributes
    ----------
    name : str or None
        None is the one in use.
    why : str or None
        For people; None where the rig file leaves nothing to choose.
    """

    name: str | None
    why: str | None = None


def choose_head(
    rig: Rig, scorer: str | None, head: str | None, *, objective: str | None, channel: str | None
) -> HeadChoice:
    """Choose a request's own head, else the most specific of the rig file, else the one in use.

    Parameters
    ----------
    rig : Rig
        Its heads belong to its own scorer.
    scorer, head : str or None
        As a request names them.
    objective, channel : str or None
        In the light path.
    """
    if not rig.head_rules or scorer not in (None, rig.scorer or DEFAULT_SCORER):
        return HeadChoice(head)
    here = f"objective {objective or 'not known'}, channel {channel or 'not known'}"
    if head is not None:
        return HeadChoice(head, f"head {head}, as asked for ({here})")
    rule = rig.head_rule(objective, channel)
    if rule is None:
        return HeadChoice(None, f"the head in use, since the rig file has none for {here}")
    chosen_for = " and ".join(
        f"{what} {name}"
        for what, name in (("objective", rule.objective), ("channel", rule.channel))
        if name is not None
    )
    return HeadChoice(
        rule.head, f"head {rule.head} of the rig file, for {chosen_for or 'every objective'}"
    )


def registry_of(rig: Rig) -> Registry:
    """Built-in models, and the rig's own before them."""
    return Registry([builtin_folder(), rig.models_dir], rig.engine)


def scorers_of(rig: Rig) -> Scorers:
    """The scorers of a rig."""
    registry = registry_of(rig)
    return Scorers(registry, ActiveHead(rig.models_dir), default_scorer(rig, registry))


def default_scorer(rig: Rig, registry: Registry) -> str:
    """Name of the scorer of a run that asks for none."""
    installed = {entry.name for entry in registry.list()}
    learned = DEFAULT_SCORER if DEFAULT_SCORER in installed else DEFAULT_MEASURE
    return rig.scorer or learned
