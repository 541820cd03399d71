"""Fits a head on this instrument's z-stacks, as a process of its own that yields to everything.

``python -m autofocus.fitting`` reads a job as one line of JSON, reports its steps as lines of JSON,
and ends with whoever started it. `autofocus.heads` starts it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from autofocus.config import EngineName
from autofocus.errors import AutofocusError, DataError
from autofocus.labelling import indexed
from autofocus.scorers import DEFAULT_SCORER
from autofocus.stack_store import StackRecord, StackStore
from autofocus.training.default_head import SIGMA_DOF
from autofocus.training.extraction import extract_features
from autofocus.training.feature_file import FeatureFile
from autofocus.training.lab_head import Report, TrainingOptions, report_json, train
from autofocus.training.labels import focus_score
from autofocus.training.leave_one_out import judge
from autofocus.training.pictures import left_out_png
from autofocus.training.training_rows import TrainingRows
from models.errors import ModelError
from models.head import Head, save_head
from models.registry import Registry, builtin_folder
from models.reiqa import ReIQA
from models.reiqa_scorer import ReIQAScorer

REPORT = "report.json"
PICTURE = "report.png"
_CACHE = ".features"
_NICENESS = 10
_FAILED = 3

# What is done, how many of how many.
Tell = Callable[[Literal["features", "fitting"], int, int], None]


@dataclass(frozen=True)
class FittingJob:
    """What to fit.

    Attributes
    ----------
    name : str
        Of the head.
    stack_ids : tuple of str
        Labelled stacks with one depth of field; two or more.
    stacks_dir, models_dir : Path
        Of the rig.
    out : Path
        Folder for the head and its report.
    alpha : float or None
        Strength of the ridge; None chooses on left-out stacks.
    before : str
        Head to compare with; its features are used.
    engine : str
        See `models.engines`.
    """

    name: str
    stack_ids: tuple[str, ...]
    stacks_dir: Path
    models_dir: Path
    out: Path
    alpha: float | None
    before: str
    engine: EngineName


_JOB = TypeAdapter(FittingJob)


def job_line(job: FittingJob) -> bytes:
    """A job as `main` reads it."""
    return _JOB.dump_json(job) + b"\n"


def run_job(job: FittingJob, tell: Tell) -> None:
    """Fit and save a head, and how it does on stacks it has not seen.

    Raises
    ------
    StackNotFound, DataError, ModelError
        When stacks, images or the head to compare with cannot be used.
    """
    store = StackStore(job.stacks_dir)
    records = [store.complete(stack_id) for stack_id in job.stack_ids]
    registry = Registry([builtin_folder(), job.models_dir], job.engine)
    present = registry.load_scorer(DEFAULT_SCORER, job.before)
    assert isinstance(present, ReIQAScorer)
    tables = []
    for done, record in enumerate(records):
        tell("features", done, len(records))
        tables.append(_features(present.extractor, store, record))
    tell("fitting", len(records), len(records))
    rows = _rows(records, tables)
    options = TrainingOptions(job.name, alpha=job.alpha, dof_um=records[0].dof_um)
    head, report = train(rows, options)
    report = _compared(report, rows, present.fitted, records[0].sampling)
    facts = {**report.overview(), "stack_ids": list(job.stack_ids)}
    job.out.mkdir(parents=True, exist_ok=True)
    (job.out / REPORT).write_text(report_json(report), encoding="utf-8")
    (job.out / PICTURE).write_bytes(left_out_png(report.left_out))
    save_head(job.out, replace(head, manifest=replace(head.manifest, report=facts)))


def main() -> int:
    """Do the job on standard input; 0 when the head is saved."""
    job = _JOB.validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _be_modest()
    # Whatever a library prints must not be taken for a step.
    answers, sys.stdout = sys.stdout, sys.stderr

    def say(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        run_job(job, lambda what, done, total: say(what=what, done=done, total=total))
    except (AutofocusError, ModelError, OSError) as error:
        say(error=str(error))
        return _FAILED
    return 0


def _features(extractor: ReIQA, store: StackStore, record: StackRecord) -> FeatureFile:
    planes = indexed(store, record).planes
    extraction = extract_features(extractor, planes, store.folder / _CACHE)
    if extraction.skipped:
        raise DataError(f"stack {record.stack_id}: {extraction.skipped[0].reason}")
    return extraction.table


def _rows(records: Sequence[StackRecord], tables: Sequence[FeatureFile]) -> TrainingRows:
    z_in_focus_um = np.concatenate(
        [np.full(len(t), _labelled(r)) for r, t in zip(records, tables, strict=True)]
    )
    table = replace(
        tables[0],
        features=np.concatenate([each.features for each in tables]),
        planes=tuple(plane for each in tables for plane in each.planes),
    )
    sigma_um = SIGMA_DOF * records[0].dof_um
    scores: NDArray[np.float64] = np.concatenate(
        [
            focus_score(t.z_um, z_in_focus_um=_labelled(r), sigma_um=sigma_um)
            for r, t in zip(records, tables, strict=True)
        ]
    )
    return TrainingRows(table, scores, table.z_um, z_in_focus_um, sigma_um, (), ())


def _labelled(record: StackRecord) -> float:
    if record.label is None:
        raise DataError(f"stack {record.stack_id} has no label; PUT /stacks/{{id}}/label")
    return record.label.z_um


def _compared(report: Report, rows: TrainingRows, present: Head, sampling: float | None) -> Report:
    """With what the present head says, told the sampling as in a run."""
    said = np.array([present.predict(row, sampling).score for row in rows.table.features])
    return replace(report, before=judge(rows, said), before_title=present.manifest.title)


def _be_modest() -> None:
    """One thread, and only while nobody else wants the processor: a focus run may begin."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if hasattr(os, "nice"):  # on Windows the one who starts the process says so
        os.nice(_NICENESS)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(_FAILED)


if __name__ == "__main__":
    sys.exit(main())
