"""Work by processes and by a Dask cluster: the same numbers, and clear words where it cannot be."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from lab_stacks import write_stack

from autofocus.errors import ClusterError
from autofocus.training import workers as module
from autofocus.training.extraction import extract_features
from autofocus.training.labels import focus_score
from autofocus.training.leave_one_out import fit_with, leave_one_stack_out
from autofocus.training.stack_index import ZSource, index_stacks
from autofocus.training.training_rows import TrainingRows
from autofocus.training.workers import Workers
from models.encoders import CompactEncoder
from models.reiqa import ExtractorSettings, ReIQA

WITHOUT_DASK = "Dask is not installed: pip install 'reiqa-autofocus[dask]'"


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a scheduler with two workers, each a process of its own."""
    distributed = pytest.importorskip("distributed", reason=WITHOUT_DASK)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as local:
        yield local.scheduler_address


def test_a_cluster_gives_the_same_features_and_folds_as_this_process(
    cluster: str, tmp_path: Path
) -> None:
    for seed in range(3):
        write_stack(tmp_path / f"S{seed}", range(-2, 3), seed=seed)
    planes = [p for stack in index_stacks(tmp_path, ZSource()) for p in stack.planes]
    torch.manual_seed(0)
    settings = ExtractorSettings(patch_size=64, patches=4, top_k=0.5, values="log")
    extractor = ReIQA(CompactEncoder(4), CompactEncoder(4), settings)
    there = Workers(dask=cluster)

    here_made = extract_features(extractor, planes, tmp_path / "here").table
    there_made = extract_features(extractor, planes, tmp_path / "there", workers=there)

    assert there_made.from_cache == 0
    assert there_made.table.planes == here_made.planes
    np.testing.assert_allclose(there_made.table.features, here_made.features, atol=1e-5)
    again = extract_features(extractor, planes, tmp_path / "there", workers=there)
    assert again.from_cache == len(planes)

    z_um = here_made.z_um
    scores = focus_score(z_um, z_in_focus_um=0, sigma_um=2.0)
    rows = TrainingRows(here_made, scores, z_um, np.zeros(len(z_um)), 2.0, (), ())
    for loss in ("ridge", "ranking"):
        one = leave_one_stack_out(rows, fit_with(loss, None))
        two = leave_one_stack_out(rows, fit_with(loss, None), workers=there)
        assert [each.stack for each in two] == [each.stack for each in one]
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a.predicted, b.predicted, rtol=1e-6)


def test_the_work_is_done_by_the_workers_of_the_cluster(cluster: str) -> None:
    from distributed import Client

    with Workers(dask=cluster).parallel() as parallel:
        did = set(parallel(joblib.delayed(os.getpid)() for _ in range(8)))
    with Client(cluster, set_as_default=False) as client:
        assert did <= set(client.run(os.getpid).values())


def test_an_error_of_a_worker_arrives_here(cluster: str) -> None:
    with (
        pytest.raises(FileNotFoundError, match="nowhere"),
        Workers(dask=cluster).parallel() as parallel,
    ):
        list(parallel(joblib.delayed(os.listdir)(path) for path in ("/nowhere", "/nowhere")))


def test_a_scheduler_without_workers_is_told_from_one_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distributed = pytest.importorskip("distributed", reason=WITHOUT_DASK)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0", processes=True) as local:
        address = local.scheduler_address
        with pytest.raises(ClusterError, match=f"has no workers.*dask worker {address}"):
            use(address)
    monkeypatch.setattr(module, "_PATIENCE_S", 1)
    with pytest.raises(ClusterError, match=f"no Dask scheduler answers at {address}"):
        use(address)


@pytest.mark.parametrize(
    "text", ["hello", "10.0.0.5:8786", "tcp://10.0.0.5", "tcp://a:b", "x://a:1"]
)
def test_an_address_that_is_none_is_refused_at_once(text: str) -> None:
    pytest.importorskip("distributed", reason=WITHOUT_DASK)
    with pytest.raises(ClusterError, match="is no address of a Dask scheduler"):
        use(text)


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"pip install 'reiqa-autofocus\[dask\]'"):
        use("tcp://127.0.0.1:8786")


def use(address: str) -> None:
    with Workers(dask=address).parallel():
        pytest.fail("nothing there to work with")
