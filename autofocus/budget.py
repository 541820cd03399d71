"""What a run may spend, looked at before every exposure."""

from __future__ import annotations

from dataclasses import dataclass

from autofocus.planning import FocusRequest


@dataclass(frozen=True)
class Spent:
    """What a run has cost so far."""

    exposures: int = 0
    dose_ms: float = 0.0

    def after(self, exposure_ms: float, *, exposures: int = 1) -> Spent:
        """The same after one more exposure, or several."""
        return Spent(self.exposures + exposures, self.dose_ms + exposures * exposure_ms)


def refusal(
    request: FocusRequest, spent: Spent, *, next_ms: float, elapsed_s: float, frames: int = 1
) -> str | None:
    """Why the next exposures would exceed the budget; None while they may be made.

    Parameters
    ----------
    request : FocusRequest
        What may be spent.
    spent : Spent
        What has been.
    next_ms : float
        Each exposure to come, ms.
    elapsed_s : float
        Time since the run began, s.
    frames : int
        How many are to come at once: a sweep is begun only when it may be finished.
    """
    if request.max_exposures is not None and spent.exposures + frames > request.max_exposures:
        if frames == 1:
            return f"max_exposures = {request.max_exposures} spent"
        return (
            f"{spent.exposures} exposures spent; a sweep of {frames} would exceed "
            f"max_exposures = {request.max_exposures}"
        )
    next_ms *= frames
    if request.max_dose_ms is not None and spent.dose_ms + next_ms > request.max_dose_ms:
        return (
            f"{spent.dose_ms:g} ms spent; {next_ms:g} ms more would exceed "
            f"max_dose_ms = {request.max_dose_ms:g}"
        )
    if request.max_seconds is not None and elapsed_s + next_ms / 1000 > request.max_seconds:
        return f"{elapsed_s:.1f} s spent of max_seconds = {request.max_seconds:g}"
    return None
