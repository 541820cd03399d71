import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from autofocus.errors import ConfigError
from autofocus.training import pretrain as module
from autofocus.training import training_run
from autofocus.training.corpus import Corpus, load_corpus, real_crops, train_images
from autofocus.training.moco import PRISTINE, UNLABELLED
from autofocus.training.pretrain import PretrainSettings, corpus_for, pretrain
from autofocus.training.probe import make_probe_set, probe
from autofocus.training.team import Team
from autofocus.training.training_run import learning_rate
from models.encoders import CompactEncoder

ROOT = Path(module.__file__).parents[2]

TINY = PretrainSettings(
    width=4,
    crop_px=32,
    quality_images=2,
    defocused=3,
    distorted=2,
    content_images=8,
    queue_size=64,
    projection=16,
    steps=24,
    pool_images=4,
    pool_px=96,
    objectives=3,
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def corpus(pool):
    return corpus_for(TINY, pool, None)


def log_rows(out, branch="quality"):
    with (out / f"{branch}.csv").open(newline="") as source:
        return list(csv.DictReader(source))


@pytest.mark.parametrize("branch", ["quality", "content"])
def test_the_exported_encoder_loads_strictly_and_was_changed_by_training(branch, corpus, tmp_path):
    torch.manual_seed(TINY.seed)
    untrained = CompactEncoder(TINY.width).state_dict()

    file = pretrain(branch, TINY, tmp_path, corpus=corpus)

    encoder = CompactEncoder(TINY.width)
    encoder.load_state_dict(load_file(file), strict=True)
    assert not torch.equal(encoder.conv1.weight, untrained["conv1.weight"])
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["branch"] == branch
        assert opened.metadata()["steps"] == "24"
    assert [int(row["step"]) for row in log_rows(tmp_path, branch)] == [10, 20]


def test_the_loss_falls(corpus, tmp_path):
    settings = replace(TINY, steps=80, quality_images=3, learning_rate=5e-3)

    pretrain("quality", settings, tmp_path, corpus=corpus)

    losses = [float(row["loss"]) for row in log_rows(tmp_path)]
    assert np.mean(losses[-3:]) < np.mean(losses[1:4]) - 0.1


def test_a_time_budget_ends_the_run_annealed(corpus, tmp_path):
    began = time.monotonic()

    pretrain("quality", TINY, tmp_path, corpus=corpus, minutes=3 / 60)

    assert 3 <= time.monotonic() - began < 15
    rows = log_rows(tmp_path)
    assert float(rows[-1]["learning_rate"]) < 0.3 * TINY.learning_rate


def test_a_longer_run_goes_on_where_the_shorter_one_ended(corpus, tmp_path):
    pretrain("quality", TINY, tmp_path, corpus=corpus)

    pretrain("quality", replace(TINY, steps=40), tmp_path, corpus=corpus)

    assert [int(row["step"]) for row in log_rows(tmp_path)] == [10, 20, 30, 40]


def test_a_checkpoint_of_another_recipe_is_refused(corpus, tmp_path):
    pretrain("quality", TINY, tmp_path, corpus=corpus)

    with pytest.raises(ConfigError, match="other settings"):
        pretrain("quality", replace(TINY, temperature=0.1), tmp_path, corpus=corpus)


def test_a_killed_run_repeats_no_step_and_skips_none(corpus, pool, tmp_path):
    """Killed without warning in the middle; the second start must end like an undisturbed run."""
    settings = replace(TINY, steps=100_000)
    script = tmp_path / "endless.py"
    script.write_text(
        "from pathlib import Path\n"
        "from autofocus.training import pretrain as m, training_run\n"
        "training_run._CHECKPOINT_EVERY_S = 0.2\n"
        f"settings = m.PretrainSettings(**{asdict(settings)!r})\n"
        f"corpus = m.corpus_for(settings, Path({str(pool)!r}), None)\n"
        f"m.pretrain('quality', settings, Path({str(tmp_path)!r}), corpus=corpus)\n",
        encoding="utf-8",
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    checkpoint = tmp_path / "quality.checkpoint.pt"
    try:
        _wait_until(lambda: checkpoint.is_file() and len(log_rows(tmp_path)) >= 2)
    finally:
        process.kill()
        process.wait()
    reached = torch.load(checkpoint, weights_only=True)["step"]

    goal = reached + 25
    pretrain("quality", replace(settings, steps=goal), tmp_path, corpus=corpus)

    steps = [int(row["step"]) for row in log_rows(tmp_path)]
    assert steps == sorted(set(steps))
    assert steps[-1] > reached
    assert torch.load(checkpoint, weights_only=True)["step"] == goal


def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(corpus, tmp_path):
    """Same batches, same optimiser, same queue: with a constant rate nothing may differ."""
    settings = replace(TINY, warm_up=0.99999, learning_rate=1e-3)
    settings = replace(settings, steps=10**6)  # so that the rate stays at its floor
    whole = _train_steps(settings, tmp_path / "whole", corpus, [20])
    parts = _train_steps(settings, tmp_path / "parts", corpus, [8, 20])

    for name, tensor in load_file(whole).items():
        torch.testing.assert_close(tensor, load_file(parts)[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("branch", ["quality", "content"])
def test_batches_depend_on_seed_and_step_alone(branch, corpus):
    batches = module._batches(branch, TINY, corpus)

    one, again, other = batches.make(0, 3), batches.make(0, 3), batches.make(0, 4)

    np.testing.assert_array_equal(one.labels, again.labels)
    np.testing.assert_array_equal(one.scales[0].queries, again.scales[0].queries)
    assert not np.array_equal(one.scales[0].queries, other.scales[0].queries)


def test_a_quality_batch_holds_each_image_pristine_and_distorted_at_two_scales(corpus):
    batch = module._batches("quality", TINY, corpus).make(0, 0)

    full, half = batch.scales
    assert full.queries.shape == full.keys.shape == (12, 1, 32, 32)
    assert half.queries.shape == half.keys.shape == (12, 1, 16, 16)
    for labels in batch.labels.reshape(2, 6):
        assert (labels == PRISTINE).sum() == 1
        assert ((labels > PRISTINE) & (labels <= 10)).sum() == 3
        assert len(set(labels.tolist())) == 6


def test_a_content_batch_has_one_row_an_image_and_no_labels(corpus):
    batch = module._batches("content", TINY, corpus).make(0, 0)

    assert batch.scales[0].queries.shape == (8, 1, 32, 32)
    assert (batch.labels == UNLABELLED).all()


def test_crops_are_normalised_and_finite(corpus):
    for branch in ("quality", "content"):
        for scale in module._batches(branch, TINY, corpus).make(1, 1).scales:
            assert np.isfinite(scale.queries).all()
            assert scale.queries.dtype == np.float32
            assert 0 <= scale.queries.min() < 0.2
            assert 0.8 < scale.queries.max() <= 1


def test_the_learning_rate_warms_up_and_is_annealed():
    rates = [learning_rate(TINY, done) for done in (0.0, 0.015, 0.03, 0.5, 1.0)]

    assert rates[0] < rates[1] < rates[2] == pytest.approx(TINY.learning_rate)
    assert rates[2] > rates[3] > rates[4] == pytest.approx(0.01 * TINY.learning_rate)


def test_the_pool_is_made_once(pool, corpus):
    stamp = (pool / "pool" / "simulated.npy").stat().st_mtime_ns

    again = corpus_for(TINY, pool, None)

    assert (pool / "pool" / "simulated.npy").stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(again.simulated, corpus.simulated)


def test_simulated_specimens_lose_contrast_with_defocus(corpus):
    detail = np.square(np.diff(corpus.simulated.astype(np.float32), axis=-1)).mean(axis=(0, 2, 3))

    assert detail[-1] < 0.5 * detail[0]


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        load_corpus(tmp_path, data=tmp_path, count=1, side=96, real_share=0.5, seed=0)


def test_a_corpus_without_real_images_draws_simulated_ones(corpus):
    drawn = Corpus(corpus.simulated, corpus.aberrated, corpus.real, real_share=1.0).draw(
        np.random.default_rng(0)
    )

    assert drawn.defocused is not None


def test_real_crops_come_from_sharp_train_images_only(tmp_path):
    """Each image has its own grey level, so that its crops give it away."""
    stacks = [
        _stack_entry(tmp_path, "focal_a", "train", levels=(10, 30, 20)),
        _stack_entry(tmp_path, "focal_b", "evaluate", levels=(40, 50, 60)),
    ]
    stills = [
        _still_entry(tmp_path, "cells", "train", level=70),
        _still_entry(tmp_path, "cells_defocused", "train", level=80),
        _still_entry(tmp_path, "others", "evaluate", level=90),
    ]
    manifest = {"stacks": stacks, "stills": stills}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")

    found = {(source, round(float(np.median(image)))) for source, image in train_images(tmp_path)}
    crops = real_crops(tmp_path, side=128, seed=0)

    assert found == {("focal", 30), ("cells", 70)}
    assert crops.shape[1:] == (128, 128)
    assert 0 <= crops.min() < crops.max() <= 1


def test_the_probe_reads_a_perfect_feature_and_not_a_blind_one():
    frames = make_probe_set(specimens=6, planes=4, side=64)

    class Told(torch.nn.Module):
        def forward(self, x):
            found = [int(np.abs(frames.frames - row[0].numpy()).mean((1, 2)).argmin()) for row in x]
            label = 1 / (1 + (frames.defocus_dof[found] / 2) ** 2)
            return torch.tensor(label, dtype=torch.float32)[:, None]

    class Blind(torch.nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 1)

    class ToldOnce(Told):
        def forward(self, x):
            return super().forward(x) if x.shape[-1] == 64 else torch.ones(len(x), 1)

    assert probe([ToldOnce()], frames) > 0.95
    assert probe([CompactEncoder(4)], frames) < 0.95
    with np.errstate(invalid="ignore"):
        assert not probe([Blind()], frames) > 0.2


def _speckled(level):
    image = np.full((140, 150), level, np.uint8)
    image[::9, ::7] = 255
    return image


def _stack_entry(folder, name, use, *, levels):
    tifffile.imwrite(
        folder / f"{name}.tif",
        np.stack([_speckled(level) for level in levels]),
        photometric="minisblack",
    )
    return {"name": name, "file": f"{name}.tif", "use": use, "in_focus_plane": 1}


def _still_entry(folder, name, use, *, level):
    (folder / name).mkdir()
    tifffile.imwrite(folder / name / "one.tif", _speckled(level))
    return {"name": name, "folder": name, "use": use}


def _wait_until(condition, limit_s=60.0):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, "the run made no checkpoint"
        time.sleep(0.1)


def _train_steps(settings, out, corpus, stops):
    out.mkdir()
    batches = module._batches("quality", settings, corpus)
    for stop in stops:
        lesson = module._Contrast("quality", settings, batches, Team())
        run = training_run._Run(lesson, settings, out, Team())
        run.load()
        while run.step < stop:
            run._update(lesson.batch(run.step, 0.0), 1e-3)
            run.step += 1
        run.save()
    return run.export()
