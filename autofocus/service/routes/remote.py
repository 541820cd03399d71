"""``/autofocus/next``: where to look next, for a client that owns its microscope."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from autofocus.remote import Move, next_step
from autofocus.service.dependencies import TheConductor
from autofocus.service.problems import described
from autofocus.service.remote import DoneOut, MoveNextOut, NextBody, NextOut

router = APIRouter(tags=["autofocus"])

_SEARCH = {
    "start_z_um": 12.0,
    "z_min_um": -40.0,
    "z_max_um": 40.0,
    "optics": {"na": 0.75, "pixel_size_um": 0.325, "wavelength_um": 0.53},
}
_EXAMPLES: dict[str, Any] = {
    "a run begins": {"value": {"search": _SEARCH, "readings": []}},
    "after the frame at the start": {
        "value": {"search": _SEARCH, "readings": [{"z_um": 12.0, "score": 0.021}]}
    },
    "around here, the depth of field given": {
        "value": {
            "search": {
                "start_z_um": 12.0,
                "z_min_um": -150.0,
                "z_max_um": 150.0,
                "center_um": 12.0,
                "range_um": 60.0,
                "dof_um": 1.4,
            }
        }
    },
}


@router.post(
    "/autofocus/next",
    summary="Say where to look next",
    response_description="Where to take the next frames, or how the run ended.",
    responses=described(422, 500),
)
def next_autofocus(
    conductor: TheConductor, body: Annotated[NextBody, Body(openapi_examples=_EXAMPLES)]
) -> NextOut:
    """Focus a microscope that this service does not drive: send the readings, get positions.

    Nothing is remembered here: every question brings the whole search and all readings so far,
    and is answered as a run with that request would go on. Touches no hardware; the limits are
    those of the question, not of this rig, and no position beyond them is ever answered. Readings
    that the search did not ask for are refused with 422. As in `POST /autofocus`, all between the
    two limits is searched unless `range_um`, `range_dof` and `center_um` say otherwise.
    """
    search = body.search.remote_search()
    scorer = conductor.load_scorer(search.request.scorer, search.request.head)
    step = next_step(search, [reading.reading() for reading in body.readings], scorer)
    return MoveNextOut.of(step) if isinstance(step, Move) else DoneOut.of(step)
