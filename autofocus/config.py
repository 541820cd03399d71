"""The rig file: one TOML that names the hardware, its limits and its optics."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_data_path
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from autofocus.errors import ConfigError
from autofocus.optics import Optics
from devices import MicroscopeSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Positive = Annotated[FiniteFloat, Field(gt=0)]
NotNegative = Annotated[FiniteFloat, Field(ge=0)]
EngineName = Literal["auto", "torch", "openvino", "cuda"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MicroscopeSection(_Section):
    """``[microscope]``: the hardware and how far it may move."""

    config: Path
    focus_device: str | None = None
    camera: str | None = None
    z_min_um: FiniteFloat
    z_max_um: FiniteFloat
    towards_specimen: Literal["+", "-"] | None = None
    max_step_um: Positive | None = None
    max_towards_um: NotNegative | None = None
    backlash_um: NotNegative = 0.0
    settle_ms: NotNegative = 0.0
    arrival_tolerance_um: Positive = 0.5
    timeout_ms: Positive = 10_000.0
    adapter_paths: tuple[Path, ...] = ()
    simulated: bool = False

    @model_validator(mode="after")
    def _check(self) -> MicroscopeSection:
        if self.z_min_um >= self.z_max_um:
            raise ValueError(f"z_min_um = {self.z_min_um} must be below z_max_um = {self.z_max_um}")
        missing = [
            name
            for name in ("towards_specimen", "max_step_um", "max_towards_um")
            if getattr(self, name) is None
        ]
        if missing and not self.simulated:
            raise ValueError(
                f"a real rig must name {', '.join(missing)}; write `simulated = true` only where "
                "no glass can touch anything"
            )
        return self


class OpticsSection(_Section):
    """``[optics]`` or one of ``[[objectives]]``."""

    label: str | None = None
    na: Positive
    immersion_index: Positive = 1.0
    magnification: Positive | None = None
    pixel_size_um: Positive
    wavelength_um: Positive = 0.55
    dof_um: Positive | None = None
    head: str | None = None

    @model_validator(mode="after")
    def _check(self) -> OpticsSection:
        self.optics()
        return self

    def optics(self) -> Optics:
        """The numbers that decide the depth of field."""
        return Optics(
            self.na, self.immersion_index, self.pixel_size_um, self.wavelength_um, self.dof_um
        )


class HeadSection(_Section):
    """One of ``[[heads]]``: the head of an objective, of a channel, or of both together."""

    head: str
    objective: str | None = None
    channel: str | None = None

    @model_validator(mode="after")
    def _check(self) -> HeadSection:
        if self.objective is None and self.channel is None:
            raise ValueError(
                f"head {self.head!r} needs an `objective`, a `channel` or both; for everything "
                "else the head in use is taken (PUT /heads/active)"
            )
        return self


class SearchSection(_Section):
    """``[search]``: defaults of a run, where the depth of field alone does not choose well."""

    range_um: Positive | None = None
    range_dof: Positive = 50.0
    coarse_step_um: Positive | None = None
    max_extensions: Annotated[int, Field(ge=0, le=10)] = 2


class RigFile(_Section):
    """The whole file."""

    name: str | None = None
    microscope: MicroscopeSection
    optics: OpticsSection | None = None
    objectives: tuple[OpticsSection, ...] = ()
    heads: tuple[HeadSection, ...] = ()
    search: SearchSection = SearchSection()
    scorer: str | None = None
    engine: EngineName = "auto"
    runs_dir: Path | None = None
    stacks_dir: Path | None = None
    models_dir: Path | None = None
    calibrations_dir: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> RigFile:
        if (self.optics is None) == (not self.objectives):
            raise ValueError("write either one [optics] table or at least one [[objectives]]")
        labels = [objective.label for objective in self.objectives]
        if len(labels) > 1 and (None in labels or len(set(labels)) < len(labels)):
            raise ValueError("several [[objectives]] need a different `label` each")
        self._check_heads(labels)
        return self

    def _check_heads(self, labels: list[str | None]) -> None:
        conditions = [(each.objective, each.channel) for each in self.heads]
        conditions += [(each.label, None) for each in self.objectives if each.head]
        double = next((each for each in conditions if conditions.count(each) > 1), None)
        if double is not None:
            raise ValueError(f"two heads for objective {double[0]!r}, channel {double[1]!r}")
        for objective, _ in conditions:
            if labels and None not in labels and objective not in (None, *labels):
                raise ValueError(f"[[heads]] objective {objective!r} is none of [[objectives]]")


@dataclass(frozen=True)
class SearchDefaults:
    """What a run uses where its request is silent; see `SearchSection`."""

    range_um: float | None
    range_dof: float
    coarse_step_um: float | None
    max_extensions: int


@dataclass(frozen=True)
class Objective:
    """One objective of the rig and the head fitted for it, if any."""

    label: str | None
    optics: Optics
    head: str | None


@dataclass(frozen=True)
class HeadRule:
    """A head and what it is for; an objective or channel that is None is any."""

    head: str
    objective: str | None = None
    channel: str | None = None

    def fits(self, objective: str | None, channel: str | None) -> bool:
        """Whether it is for these."""
        return self.objective in (None, objective) and self.channel in (None, channel)

    @property
    def specificity(self) -> tuple[bool, bool]:
        """Larger is more specific; another objective changes frames more than another channel."""
        return self.objective is not None, self.channel is not None


@dataclass(frozen=True)
class Rig:
    """A microscope as its rig file describes it.

    Attributes
    ----------
    name : str
        For people: the ``name`` in the file, else the file's own.
    microscope : MicroscopeSettings
        Hardware and limits.
    objectives : tuple of Objective
        At least one; a single one without label fits whatever the turret says.
    search : SearchDefaults
        Range and steps of a run that names none.
    scorer : str or None
        Default scorer, None for the package's own default.
    engine : {"auto", "torch", "openvino", "cuda"}
        What runs the encoders; see `models.engines`.
    runs_dir, stacks_dir, models_dir, calibrations_dir : Path
        Where runs, z-stacks, heads and calibrations are kept.
    heads : tuple of HeadRule
        Besides those of the objectives; see `head_rules`.
    """

    name: str
    microscope: MicroscopeSettings
    objectives: tuple[Objective, ...]
    search: SearchDefaults
    scorer: str | None
    engine: EngineName
    runs_dir: Path
    stacks_dir: Path
    models_dir: Path
    calibrations_dir: Path
    heads: tuple[HeadRule, ...] = ()

    def objective_for(self, label: str | None) -> Objective:
        """The objective in the light path.

        Parameters
        ----------
        label : str or None
            Label of the turret position, None when the rig has no turret.

        Raises
        ------
        ConfigError
            When the rig file does not describe it.
        """
        if len(self.objectives) == 1 and self.objectives[0].label in (None, label):
            return self.objectives[0]
        for objective in self.objectives:
            if objective.label == label:
                return objective
        known = ", ".join(repr(objective.label) for objective in self.objectives)
        raise ConfigError(
            f"objective {label!r} is not in the rig file (it has {known}); "
            "add an [[objectives]] table with its na, immersion_index and pixel_size_um"
        )

    @property
    def head_rules(self) -> tuple[HeadRule, ...]:
        """Heads for one objective or channel: those of ``[[heads]]`` and of the objectives."""
        own = (HeadRule(each.head, each.label) for each in self.objectives if each.head)
        return (*self.heads, *own)

    def head_rule(self, objective: str | None, channel: str | None) -> HeadRule | None:
        """The most specific rule for an objective and a channel; None when none fits."""
        fitting = [rule for rule in self.head_rules if rule.fits(objective, channel)]
        return max(fitting, key=lambda rule: rule.specificity, default=None)

    def optics_for(self, label: str | None) -> Optics:
        """Optics of the objective in the light path; see `objective_for`."""
        return self.objective_for(label).optics


def builtin_configs() -> Path:
    """Folder of the built-in rigs: inside the installed package, or next to it in a checkout."""
    packaged = Path(__file__).parent / "_configs"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "configs"


def load_rig(path: Path | None = None) -> Rig:
    """Read a rig file.

    Parameters
    ----------
    path : Path, optional
        A TOML file; without it the built-in demo, Micro-Manager's own DemoCamera.

    Raises
    ------
    ConfigError
        When the file is missing, is not TOML, or has a key or value that is wrong.
    """
    path = path or builtin_configs() / "demo.toml"
    return _rig(_parse(path), path)


def _parse(path: Path) -> RigFile:
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read rig file {path}: {error}") from error
    try:
        return RigFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'file'}: {problem['msg']}"
        for problem in error.errors()
    )


def _rig(file: RigFile, path: Path) -> Rig:
    section = file.microscope.model_dump(exclude={"config", "simulated"})
    here = path.resolve().parent
    config = here / file.microscope.config
    if not config.is_file():
        raise ConfigError(f"{path}: microscope.config: {config} does not exist")
    data = user_data_path("reiqa-autofocus", appauthor=False)
    sections: tuple[OpticsSection, ...] = file.objectives
    if file.optics is not None:
        sections = (file.optics,)
    return Rig(
        name=file.name or path.stem,
        microscope=MicroscopeSettings(config=config, **_absolute(section, here)),
        objectives=tuple(Objective(s.label, s.optics(), s.head) for s in sections),
        search=SearchDefaults(**file.search.model_dump()),
        scorer=file.scorer,
        engine=file.engine,
        runs_dir=here / file.runs_dir if file.runs_dir else data / "runs",
        stacks_dir=here / file.stacks_dir if file.stacks_dir else data / "stacks",
        models_dir=here / file.models_dir if file.models_dir else data / "models",
        calibrations_dir=(
            here / file.calibrations_dir if file.calibrations_dir else data / "calibrations"
        ),
        heads=tuple(HeadRule(each.head, each.objective, each.channel) for each in file.heads),
    )


def _absolute(section: dict[str, Any], here: Path) -> dict[str, Any]:
    return {**section, "adapter_paths": tuple(here / p for p in section["adapter_paths"])}
