"""The encoders of commands that compute features: the installed ones, or two files."""

from __future__ import annotations

from pathlib import Path

import typer

from autofocus.config import Rig
from autofocus.scorers import registry_of
from models.checkpoints import load_compact_encoder, load_published_encoder
from models.engines import choose_engine
from models.reiqa import ExtractorSettings, ReIQA


def extractor_for(
    settings: ExtractorSettings, rig: Rig, content: Path | None, quality: Path | None
) -> ReIQA:
    """Features with these settings, from two files or else from the installed encoders."""
    if (content is None) != (quality is None):
        raise typer.BadParameter("give both files or none", param_hint="--content-ckpt")
    if content is None or quality is None:
        return registry_of(rig).load_extractor(f"reiqa-{settings.layout}", settings)
    load = load_published_encoder if settings.layout == "published" else load_compact_encoder
    return ReIQA(load(content), load(quality), settings, choose_engine(rig.engine, settings.layout))
