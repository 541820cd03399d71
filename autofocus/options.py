"""The options of a search at the terminal, made from the body that HTTP takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from autofocus.service.requests import SearchBody


def takes_search_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every field of `SearchBody`, handed over as ``body``.

    HTTP and the terminal share one description of a request, so they cannot drift apart.
    """

    def run(**values: Any) -> None:
        command(body=_search_body(values), **values)

    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [*(p for p in own if p.name != "body"), *_search_options()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _search_options() -> list[inspect.Parameter]:
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
        for name, field in SearchBody.model_fields.items()
    ]


def _search_body(values: dict[str, Any]) -> SearchBody:
    """Take the fields of a request out of ``values``."""
    wanted = {name: values.pop(name) for name in SearchBody.model_fields}
    if wanted["roi"]:
        wanted["roi"] = dict(zip(("x", "y", "width", "height"), wanted["roi"], strict=True))
    try:
        return SearchBody.model_validate(wanted)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(first["msg"], param_hint=option) from error
