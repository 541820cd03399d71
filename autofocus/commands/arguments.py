"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="Rig file (TOML); without it the built-in demo microscope."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
