"""Drive a running service from a program.

>>> with Client("http://127.0.0.1:8000") as microscope:  # doctest: +SKIP
...     run = microscope.autofocus(range_um=60)
...     if not run.locked:
...         print(run.reason)
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import httpx

from autofocus.errors import AutofocusError
from autofocus.service.answers import (
    MicroscopeOut,
    MovedOut,
    PlanOut,
    Problem,
    RunOut,
    StageOut,
    StopOut,
)


class ServiceError(AutofocusError):
    """The service refused or failed; ``problem`` is its answer.

    Parameters
    ----------
    problem : Problem
        ``type`` names the kind, ``run_id`` the run that is in the way, if one is.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.title}: {problem.detail}")
        self.problem = problem


class Client:
    """The service, one method an operation.

    Parameters
    ----------
    url : str
        Where the service listens.
    token : str, optional
        Bearer token, if it was started with one.
    timeout_s : float or None
        Longest wait for an answer; None waits as long as a run may take.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)

    def autofocus(self, **request: Any) -> RunOut:
        """Focus; the fields of ``POST /autofocus`` by name. With ``wait=False``: begin, return.

        Raises
        ------
        ServiceError
            When the service refuses or the hardware fails. A verdict other than ``locked`` is an
            answer: look at ``locked``.
        """
        return RunOut.model_validate(self._send("POST", "/autofocus", request))

    def plan(self, **request: Any) -> PlanOut:
        """Say what `autofocus` would do with the same request; moves nothing."""
        return PlanOut.model_validate(self._send("POST", "/autofocus/plan", request))

    def run(self, run_id: str) -> RunOut:
        """One run, going on or over."""
        return RunOut.model_validate(self._send("GET", f"/runs/{run_id}"))

    def abort(self, run_id: str) -> StopOut:
        """Abort a run."""
        return StopOut.model_validate(self._send("DELETE", f"/runs/{run_id}"))

    def microscope(self) -> MicroscopeOut:
        """The last known state."""
        return MicroscopeOut.model_validate(self._send("GET", "/microscope"))

    def stage(self) -> StageOut:
        """Position of the focus drive and its limits."""
        return StageOut.model_validate(self._send("GET", "/stage"))

    def move_to(self, z_um: float) -> float:
        """Move the focus drive and return its position as read back, um."""
        return MovedOut.model_validate(self._send("POST", "/stage", {"z_um": z_um})).z_um

    def stop(self) -> StopOut:
        """Halt the stage and abort the run, if there is one."""
        return StopOut.model_validate(self._send("POST", "/stop"))

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._http.request(method, path, json=body)
        if answer.is_error:
            raise ServiceError(Problem.model_validate_json(answer.content))
        return answer.json()
