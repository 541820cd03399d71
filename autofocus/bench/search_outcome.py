"""One run of the benchmark of the search, judged; and the log that survives a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autofocus.bench.search_cases import Case

# How far from the plane in focus, one depth of field from an end, that end may be named.
NEAR_END_DOF = 1.5

# z, score, referee. z in depths of field from the true in-focus plane of the end of the run.
Point = tuple[float, float, float | None]


@dataclass(frozen=True)
class Outcome:
    """One run, judged.

    Attributes
    ----------
    error_dof, start_error_dof : float
        True distance of the stage from the nearest accepted plane when the run ended and when it
        began, depths of field; NaN where there is nothing to focus on.
    z_error_dof : float
        The same of the position that the run answers, locked or not; NaN without one.
    kept_error_dof : float
        The same of the reading with the highest score, where a search that never refuses stays.
    end_dof : float
        Where the stage was left, on the scale of the curve.
    accepted_dof : tuple of float
        Accepted planes, on the scale of the curve; none where there is nothing to focus on.
    exposures, moves : int
    travel_dof : float
        Way of the stage.
    stage_s, camera_s, scoring_s, seconds : float
        Time; frames are scored while the stage and the camera go on.
    head : str or None
        Which head scored.
    curve : tuple of (z, score, referee)
        Every reading, in order; z in depths of field from the plane in focus when the run ended.
    """

    entrant: str
    case: Case
    verdict: str
    locked: bool
    reason: str
    start_error_dof: float
    error_dof: float
    z_error_dof: float
    kept_error_dof: float
    end_dof: float
    accepted_dof: tuple[float, ...]
    sigma_dof: float
    confidence: float
    exposures: int
    dose_ms: float
    moves: int
    travel_dof: float
    stage_s: float
    camera_s: float
    scoring_s: float
    seconds: float
    referee_agrees: bool | None
    head: str | None
    curve: tuple[Point, ...]

    @property
    def answer_error_dof(self) -> float:
        """How far off the answer is; of a lock where the carriage is, play and all."""
        return self.error_dof if self.locked else self.z_error_dof

    @property
    def error_um(self) -> float:
        """True distance of the stage from the nearest accepted plane when the run ended."""
        return self.error_dof * self.case.dof_um

    @property
    def success(self) -> bool:
        """Locked within half a depth of field."""
        return self.locked and self.error_dof <= 0.5

    @property
    def false_lock(self) -> bool:
        """Locked more than one depth of field away, or on nothing."""
        return self.locked and not self.error_dof <= 1.0

    @property
    def blurrier(self) -> bool:
        """Ended more than a quarter of a depth of field farther away than it began."""
        return self.error_dof > self.start_error_dof + 0.25

    @property
    def refused_although_right(self) -> bool:
        """Did not lock where it could have: what it answers is within half a depth of field."""
        return not self.locked and self.verdict != "edge" and self.z_error_dof <= 0.5

    @property
    def right_at_the_edge(self) -> bool:
        """Locked within half a depth of field, or told at which end of the range the peak is."""
        return self.success or (self.verdict == "edge" and self.z_error_dof <= NEAR_END_DOF)


def write_line(outcome: Outcome) -> str:
    """One line of JSON."""
    return json.dumps(asdict(outcome)) + "\n"


def read_log(log: Path) -> Iterator[Outcome]:
    """Outcomes of an earlier run."""
    for line in log.read_text(encoding="utf-8").splitlines():
        yield _outcome(json.loads(line))


def mend_log(log: Path) -> None:
    """Take a last line that a kill has cut short off the file; without a file, nothing."""
    if log.is_file():
        whole = log.read_bytes()
        log.write_bytes(whole[: whole.rfind(b"\n") + 1])


def _outcome(values: dict[str, Any]) -> Outcome:
    curve = tuple((z, score, referee) for z, score, referee in values["curve"])
    case, accepted = Case(**values["case"]), tuple(values["accepted_dof"])
    return Outcome(**{**values, "case": case, "accepted_dof": accepted, "curve": curve})
