"""Two processes train one network, as torchrun starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autofocus.training import pretrain as module
from autofocus.training.team import Team

ROOT = Path(module.__file__).parents[2]

SCRIPT = """
import sys
from pathlib import Path
import torch
from autofocus.training import pretrain as m, training_run
from autofocus.training.team import assembled

out = Path(sys.argv[1])
settings = m.PretrainSettings(
    width=4, crop_px=32, quality_images=2, defocused=3, distorted=2, queue_size=64, projection=16,
    steps=6, pool_images=3, pool_px=96, objectives=2,
)
trained = []
update = training_run._Run._update
training_run._Run._update = lambda run, *rest: (trained.append(run), update(run, *rest))[1]
with assembled() as team:
    if team.leads:
        m.corpus_for(settings, out, None)
    team.agreed(0.0)
    corpus = m.corpus_for(settings, out, None)
    m.pretrain("quality", settings, out, corpus=corpus, team=team)
    torch.save(trained[-1].lesson.state.state_dict(), out / f"rank{team.rank}.pt")
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pair")
    (out / "train.py").write_text(SCRIPT, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "PYTHONPATH": str(ROOT),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(out / "train.py"), str(out)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    return out


def test_weights_and_queue_are_the_same_in_both_processes(pair):
    first, second = (torch.load(pair / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    for name, tensor in first.items():
        if "running" in name or "num_batches" in name:
            continue  # BatchNorm sees the local batch
        assert torch.equal(tensor, second[name]), name


def test_the_batches_are_not_the_same_in_both_processes(pair):
    first, second = (torch.load(pair / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    seen = [state["query.encoder.bn1.running_mean"] for state in (first, second)]
    assert not torch.allclose(*seen)


def test_keys_of_both_processes_are_in_the_queue(pair):
    state = torch.load(pair / "rank0.pt", weights_only=True)
    rows, scales, processes, steps = 12, 2, 2, 6
    assert int(state["position"]) == rows * scales * processes * steps % len(state["queue"])


def test_only_the_first_process_writes(pair):
    assert len(load_file(pair / "quality.safetensors")) > 10
    assert (pair / "quality.checkpoint.pt").is_file()


def test_one_process_alone_changes_nothing():
    rows = torch.arange(6.0).reshape(3, 2)
    weight = torch.nn.Parameter(rows.clone())
    (weight * rows).sum().backward()
    Team().average_gradients([weight])
    assert torch.equal(weight.grad, rows)
    assert Team().gathered(rows) is rows
    assert Team().agreed(2.5) == 2.5
