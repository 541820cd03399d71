"""Options at the terminal, made from the body that HTTP takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from autofocus.service.requests import CameraBody

Command = Callable[..., None]


def takes_options_of(body: type[CameraBody]) -> Callable[[Command], Command]:
    """Give a command an option for every field of a body, handed over as ``body``.

    HTTP and the terminal share one description of a request, so they cannot drift apart. A
    terminal always waits, so ``wait`` is none.
    """
    return partial(_with_options, body)


def _with_options(body: type[CameraBody], command: Command) -> Command:
    def run(**values: Any) -> None:
        command(body=_body(body, values), **values)

    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [*(p for p in own if p.name != "body"), *_options(body)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _options(body: type[CameraBody]) -> list[inspect.Parameter]:
    plain = {"roi": tuple[int, int, int, int] | None, "on_failure": str}
    hints = {"roi": "x y width height, px of the frame after binning."}
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[
                plain.get(name, field.annotation),
                typer.Option(help=hints.get(name, field.description)),
            ],
        )
        for name, field in body.model_fields.items()
        if name != "wait"
    ]


def _body(body: type[CameraBody], values: dict[str, Any]) -> CameraBody:
    """Take the fields of a request out of ``values``."""
    wanted = {name: values.pop(name) for name in body.model_fields if name in values}
    if wanted["roi"]:
        wanted["roi"] = dict(zip(("x", "y", "width", "height"), wanted["roi"], strict=True))
    try:
        return body.model_validate(wanted)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(first["msg"], param_hint=option) from error
