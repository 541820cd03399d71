"""Drive a running service from a program.

>>> with Client("http://127.0.0.1:8000") as microscope:  # doctest: +SKIP
...     run = microscope.autofocus(range_um=60)
...     if not run.locked:
...         print(run.reason)
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import httpx
import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import TypeAdapter

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
from autofocus.service.head_answers import ActiveHeadOut, HeadList, HeadOut
from autofocus.service.remote import (
    DoneOut,
    MoveNextOut,
    NextOut,
    ReadingBody,
    RemoteResultOut,
    RemoteSearchBody,
)
from autofocus.service.scores import AnchorOut, ScoresOut
from autofocus.service.stack_answers import JudgementOut, StackList, StackOut

_NEXT: TypeAdapter[MoveNextOut | DoneOut] = TypeAdapter(NextOut)


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

    def score(
        self,
        image: NDArray[np.generic],
        *,
        scorer: str | None = None,
        head: str | None = None,
        bit_depth: int | None = None,
        sampling: float | None = None,
        anchor: AnchorOut | None = None,
    ) -> ScoresOut:
        """Score a frame or a z-stack; needs no hardware.

        Parameters
        ----------
        image : ndarray of shape (height, width) or (planes, height, width)
            uint8, uint16 or float32: raw camera counts, not scaled.
        scorer, head : str, optional
            By name; by default those of the service's rig.
        bit_depth : int, optional
            Bits the camera really uses, to know what is saturated.
        sampling : float, optional
            Camera pixel in the specimen x NA / wavelength.
        anchor : AnchorOut, optional
            Of an earlier answer of the same run.
        """
        content = io.BytesIO()
        tifffile.imwrite(content, image, photometric="minisblack")
        told = {"scorer": scorer, "head": head, "bit_depth": bit_depth, "sampling": sampling}
        fields = {name: str(value) for name, value in told.items() if value is not None}
        if anchor is not None:
            fields["anchor"] = anchor.model_dump_json()
        answer = self._http.post(
            "/score", files={"file": ("frame.tif", content.getvalue())}, data=fields
        )
        return ScoresOut.model_validate(_checked(answer))

    def next(
        self, search: RemoteSearchBody, readings: Sequence[ReadingBody] = ()
    ) -> MoveNextOut | DoneOut:
        """Where to look next on a microscope of your own, or how the run ended.

        Parameters
        ----------
        search : RemoteSearchBody
            What to focus on; the same in every question of a run.
        readings : sequence of ReadingBody
            Every reading of the run so far, in the order in which they were asked for.
        """
        body = {
            "search": search.model_dump(exclude_none=True),
            "readings": [reading.model_dump(exclude_none=True) for reading in readings],
        }
        return _NEXT.validate_python(self._send("POST", "/autofocus/next", body))

    def take_stack(self, **request: Any) -> StackOut:
        """Take a z-stack; the fields of ``POST /stacks`` by name. This moves the objective."""
        return StackOut.model_validate(self._send("POST", "/stacks", request))

    def stacks(self, limit: int = 50) -> StackList:
        """The newest z-stacks."""
        return StackList.model_validate(self._send("GET", f"/stacks?limit={limit}"))

    def stack(self, stack_id: str) -> StackOut:
        """One z-stack, also while it is taken."""
        return StackOut.model_validate(self._send("GET", f"/stacks/{stack_id}"))

    def label_stack(self, stack_id: str, z_um: float | None = None) -> JudgementOut:
        """Say where a z-stack is in focus, um; without ``z_um`` the teachers are asked."""
        body: dict[str, Any] = {"teacher": True} if z_um is None else {"z_um": z_um}
        return JudgementOut.model_validate(self._send("PUT", f"/stacks/{stack_id}/label", body))

    def fit_head(self, **request: Any) -> HeadOut:
        """Fit a head on labelled z-stacks; the fields of ``POST /heads`` by name."""
        return HeadOut.model_validate(self._send("POST", "/heads", request))

    def heads(self) -> HeadList:
        """The heads and which is in use."""
        return HeadList.model_validate(self._send("GET", "/heads"))

    def head(self, name: str) -> HeadOut:
        """One head, also while it is fitted."""
        return HeadOut.model_validate(self._send("GET", f"/heads/{name}"))

    def activate_head(self, name: str) -> ActiveHeadOut:
        """Use another head from the next run on."""
        return ActiveHeadOut.model_validate(self._send("PUT", "/heads/active", {"name": name}))

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
        return _checked(self._http.request(method, path, json=body))


def focus_remotely(
    client: Client,
    search: RemoteSearchBody,
    *,
    move: Callable[[float], float],
    snap: Callable[[], NDArray[np.generic]],
    bit_depth: int | None = None,
) -> RemoteResultOut:
    """Focus a microscope of your own: the service says where to look, and judges.

    ``move`` must guard the objective: soft limits, speed, backlash and arrival are its business.
    It is never asked to leave ``z_min_um`` and ``z_max_um`` of the search. Whatever fails, the
    stage is sent back to where it started before the error goes on.

    Parameters
    ----------
    client : Client
        A running service; its own microscope is not touched.
    search : RemoteSearchBody
        What to focus on. ``start_z_um`` is where the stage stands now.
    move : callable of (z_um) -> float
        Moves the stage, waits until it stands, and returns its position as read back, um.
    snap : callable of () -> ndarray of shape (height, width)
        Takes one frame, raw counts.
    bit_depth : int, optional
        Bits the camera really uses, to know what is saturated.

    Returns
    -------
    RemoteResultOut
        The stage stands at ``final_z_um``. Look at ``locked``.

    Raises
    ------
    ServiceError
        When the service refuses.
    AutofocusError
        When the scorer changed during the run, or a position beyond the limits was answered.
    """
    try:
        return _converse(client, search, move, snap, bit_depth)
    except BaseException:
        move(search.start_z_um)
        raise


def _converse(
    client: Client,
    search: RemoteSearchBody,
    move: Callable[[float], float],
    snap: Callable[[], NDArray[np.generic]],
    bit_depth: int | None,
) -> RemoteResultOut:
    readings: list[ReadingBody] = []
    scorers: set[tuple[str, str | None]] = set()
    while isinstance(step := client.next(search, readings), MoveNextOut):
        for z_um in step.z_um:
            _require_inside(search, z_um)
            read_back_um = float(move(z_um))
            scored = client.score(
                snap(),
                scorer=search.scorer,
                head=search.head,
                bit_depth=bit_depth,
                sampling=search.sampling,
            )
            scorers.add((scored.scorer, scored.head))
            if len(scorers) > 1:
                raise AutofocusError(f"the scorer changed during the run: {sorted(scorers)}")
            readings.append(ReadingBody(**{**vars(scored.scores[0]), "z_um": read_back_um}))
    result = step.result
    if not readings or result.final_z_um != readings[-1].z_um:
        _require_inside(search, result.final_z_um)
        move(result.final_z_um)
    return result


def _require_inside(search: RemoteSearchBody, z_um: float) -> None:
    if not search.z_min_um <= z_um <= search.z_max_um:
        raise AutofocusError(
            f"the service wants to go to {z_um} um, outside {search.z_min_um}..{search.z_max_um} "
            "um; nothing was moved there"
        )


def _checked(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise ServiceError(Problem.model_validate_json(answer.content))
    return answer.json()
