"""Remote mode: the client owns the microscope, and asks where to look next.

Nothing is remembered between two questions. Each brings the whole request and every reading so
far; the search is built anew, told the readings again, and asked for its next pass. So a client,
or this service, may be restarted in the middle of a run, and the answer is that of a run here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autofocus.budget import Spent, refusal
from autofocus.config import SearchDefaults, SearchSection
from autofocus.errors import RequestError
from autofocus.findings import findings
from autofocus.planning import FocusRequest, settings_within, strategy_of
from autofocus.search.protocol import (
    Pass,
    Purpose,
    Reading,
    SearchResult,
    SearchSettings,
    Verdict,
)
from devices import MicroscopeSettings
from models.scorer import Scorer


@dataclass(frozen=True)
class RemoteSearch:
    """A focus run on a microscope that is not ours.

    Attributes
    ----------
    request : FocusRequest
        What to focus on. The client takes the frames, so ROI, channel and binning are its own
        doing; both z limits must be there.
    limits : MicroscopeSettings
        How far the client's stage may go; of the rest only ``towards_specimen`` and
        ``arrival_tolerance_um`` matter.
    start_z_um : float
        Where the client's stage stood when the run began, um.
    dof_um : float
        Total depth of field, um.
    """

    request: FocusRequest
    limits: MicroscopeSettings
    start_z_um: float
    dof_um: float


@dataclass(frozen=True)
class Move:
    """Where to take the next frames, in this order, um, and why."""

    z_um: tuple[float, ...]
    purpose: Purpose


@dataclass(frozen=True)
class RemotePoint:
    """One reading of the run, with why it was wanted."""

    z_um: float
    score: float
    referee: float | None
    purpose: Purpose


@dataclass(frozen=True)
class RemoteResult:
    """The answer of a remote run, as `FocusResult` has it; ``final_z_um`` is where to stay."""

    locked: bool
    verdict: Verdict
    reason: str
    z_um: float | None
    z_uncertainty_um: float | None
    score: float | None
    confidence: float
    exposures: int
    dose_ms: float | None
    start_z_um: float
    final_z_um: float
    start_score: float | None
    final_score: float | None
    scorer: str
    head: str | None
    out_of_distribution: bool
    referee: str | None
    referee_z_um: float | None
    referee_agrees: bool | None
    dof_um: float
    notes: tuple[str, ...]
    curve: tuple[RemotePoint, ...]


def next_step(
    search: RemoteSearch, readings: Sequence[Reading], scorer: Scorer
) -> Move | RemoteResult:
    """Where to look next, or how the run ended.

    Parameters
    ----------
    search : RemoteSearch
        The same in every question of a run.
    readings : sequence of Reading
        Every reading of the run so far, in the order in which they were asked for.
    scorer : Scorer
        Who scored them; only asked what its scores mean, not to score.

    Raises
    ------
    RequestError
        When the request contradicts itself, cannot be carried out without a microscope here, or
        the readings are not those that it asks for.
    """
    settings, notes = _settings(search, absolute=scorer.absolute)
    replay = _Replay(search, settings, readings)
    ended = replay.follow()
    if isinstance(ended, Move):
        return ended
    found = findings(readings, settings, ended, referee=scorer.watched_by, notes=notes)
    outcome = found.outcome
    return RemoteResult(
        locked=outcome.locked,
        verdict=outcome.verdict,
        reason=outcome.reason,
        z_um=outcome.z_um,
        z_uncertainty_um=outcome.z_uncertainty_um,
        score=outcome.score,
        confidence=outcome.confidence,
        exposures=len(readings),
        dose_ms=None if search.request.exposure_ms is None else replay.spent.dose_ms,
        start_z_um=search.start_z_um,
        final_z_um=_final_z_um(search, readings, outcome),
        start_score=outcome.start_score,
        final_score=outcome.final_score,
        scorer=scorer.name,
        head=scorer.head,
        out_of_distribution=found.out_of_distribution,
        referee=scorer.watched_by,
        referee_z_um=found.referee_z_um,
        referee_agrees=found.referee_agrees,
        dof_um=settings.dof_um,
        notes=found.notes,
        curve=tuple(
            RemotePoint(reading.z_um, reading.score, reading.referee, purpose)
            for reading, purpose in zip(readings, replay.purposes, strict=True)
        ),
    )


def _settings(search: RemoteSearch, *, absolute: bool) -> tuple[SearchSettings, tuple[str, ...]]:
    request, limits = search.request, search.limits
    _require_possible(request)
    if not limits.z_min_um <= search.start_z_um <= limits.z_max_um:
        raise RequestError(
            f"start_z_um = {search.start_z_um} um is outside z_min_um..z_max_um = "
            f"{limits.z_min_um}..{limits.z_max_um} um"
        )
    return settings_within(
        limits,
        SearchDefaults(**SearchSection().model_dump()),
        request,
        start_z_um=search.start_z_um,
        dof_um=search.dof_um,
        absolute=absolute,
    )


def _require_possible(request: FocusRequest) -> None:
    if request.warm_start:
        raise RequestError(
            "warm_start needs our own microscope; give expected_z_um and expected_sigma_um"
        )
    if request.max_seconds is not None:
        raise RequestError(
            "max_seconds cannot be kept here: the clock is yours. Stop asking when the time is "
            "over, and go back to the start"
        )
    if request.max_dose_ms is not None and request.exposure_ms is None:
        raise RequestError("max_dose_ms needs exposure_ms: the camera is yours")


def _final_z_um(search: RemoteSearch, readings: Sequence[Reading], outcome: SearchResult) -> float:
    if outcome.locked and outcome.z_um is not None:
        return outcome.z_um + search.request.channel_offset_um
    if search.request.on_failure == "stay" and readings:
        return readings[-1].z_um
    return search.start_z_um


class _Replay:
    """Tells a new search the old readings, and keeps the books as a live run does."""

    def __init__(
        self, search: RemoteSearch, settings: SearchSettings, readings: Sequence[Reading]
    ) -> None:
        self._request = search.request
        self._tolerance_um = search.limits.arrival_tolerance_um
        self._search = strategy_of(search.request).search(settings)
        self._readings = readings
        self.spent = Spent()
        self.purposes: list[Purpose] = []

    def follow(self) -> Move | SearchResult:
        """The first pass that has no readings yet, or the result."""
        try:
            step = next(self._search)
            while True:
                wanted = self._affordable(step)
                if wanted and self._left == 0:
                    return Move(wanted, step.purpose)
                given = self._take(wanted, step.purpose)
                if len(wanted) < len(step.z_um):
                    self._require_no_more()
                    return self._budget_spent()
                step = self._search.send(given)
        except StopIteration as finished:
            self._require_no_more()
            result: SearchResult = finished.value
            return result
        finally:
            self._search.close()

    @property
    def _left(self) -> int:
        return len(self._readings) - len(self.purposes)

    def _affordable(self, step: Pass) -> tuple[float, ...]:
        """The positions of a pass up to where the budget ends."""
        spent = self.spent
        for count, _ in enumerate(step.z_um):
            if self._refusal(spent):
                return step.z_um[:count]
            spent = spent.after(self._exposure_ms)
        return step.z_um

    def _take(self, wanted: tuple[float, ...], purpose: Purpose) -> tuple[Reading, ...]:
        taken = len(self.purposes)
        given = tuple(self._readings[taken : taken + len(wanted)])
        if len(given) < len(wanted):
            raise RequestError(
                f"the pass to {_listed(wanted)} um needs {len(wanted)} readings, {len(given)} "
                "came; send one for each position, in that order"
            )
        for index, (reading, z_um) in enumerate(zip(given, wanted, strict=True), start=taken):
            if abs(reading.z_um - z_um) > self._tolerance_um:
                raise RequestError(
                    f"readings[{index}] is at {reading.z_um:g} um, wanted was {z_um:g} um within "
                    f"{self._tolerance_um:g} um; send the same search and all readings of this "
                    "run, or allow more by arrival_tolerance_um"
                )
            self.spent = self.spent.after(self._exposure_ms)
            self.purposes.append(purpose)
        return given

    def _require_no_more(self) -> None:
        if self._left:
            raise RequestError(
                f"the run was over after {len(self.purposes)} readings, {len(self._readings)} "
                "came; send the readings of one run"
            )

    def _budget_spent(self) -> SearchResult:
        return SearchResult(
            Verdict.BUDGET,
            self._refusal(self.spent) or "",
            start_score=self._readings[0].score if self._readings else None,
        )

    def _refusal(self, spent: Spent) -> str | None:
        return refusal(self._request, spent, next_ms=self._exposure_ms, elapsed_s=0.0)

    @property
    def _exposure_ms(self) -> float:
        return self._request.exposure_ms or 0.0


def _listed(z_um: tuple[float, ...]) -> str:
    return ", ".join(f"{z:g}" for z in z_um)
