import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from autofocus.commands.training import refine_encoder
from autofocus.errors import ConfigError
from autofocus.training import focus_batches, known_defocus, training_run
from autofocus.training import refine as module
from autofocus.training.default_head import extract
from autofocus.training.defocus import random_objective
from autofocus.training.focus_batches import FocusBatches
from autofocus.training.known_defocus import DISTANCES, SIDE_PX, KnownDefocus, load_known_defocus
from autofocus.training.labelled import EMPTY_DEFOCUS_DOF
from autofocus.training.network import class_ends, class_shares
from autofocus.training.refine import RefineSettings, refine
from autofocus.training.team import Team
from autofocus.training.wide_cameras import wide_camera_groups
from autofocus.training.widen import widened
from devices.simulated.specimens import KINDS
from models.checkpoints import load_compact_encoder
from models.encoders import CompactEncoder
from models.normalise import BRIGHTEST
from models.reiqa import ReIQA, settings_for

TINY = RefineSettings(crop_px=64, specimens=3, steps=20, learning_rate=3e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("light")


@pytest.fixture(scope="module")
def pool(folder):
    return load_known_defocus(folder, data=None, count=9, seed=0)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    file = tmp_path_factory.mktemp("encoder") / "quality.safetensors"
    torch.manual_seed(0)
    save_file(CompactEncoder(16).state_dict(), file)
    return file


def batches(pool, **changes):
    settings = {"specimens": 4, "distances": 4, "crop_px": 96, "unknown": 0.5}
    return FocusBatches(pool, **(settings | changes))


def detail(plane) -> float:
    return float((np.diff(plane, n=2, axis=1) ** 2).mean())


def test_the_first_distance_is_in_focus_and_the_others_are_not(pool):
    assert (pool.defocus_dof[:, 0] == 0).all()
    assert (pool.defocus_dof[:, 1:] > 0).all()
    assert pool.defocus_dof.max() <= 20


def test_every_kind_of_specimen_loses_detail_far_from_focus(pool):
    """All but phase specimens in the bright field, whose contrast is least in focus."""
    light = np.asarray(pool.light, np.float32)[:10]
    detail = (np.diff(light, axis=2) ** 2).mean(axis=(2, 3))
    farthest = pool.defocus_dof[:10].argmax(axis=1)
    lost = detail[np.arange(10), farthest] < detail[:, 0]

    assert lost.sum() >= 9


def dust_at(dust_dof, *, transmitted=False, seed=0):
    """Dust of the lesson, and an objective, on a plane of one's choice."""
    rng = np.random.default_rng(seed)
    dust = known_defocus._Dust.draw(random_objective(rng), rng, transmitted=transmitted)
    return replace(dust, away_dof=dust_dof)


@pytest.mark.parametrize("transmitted", [False, True])
def test_dust_in_focus_is_not_the_specimen_in_focus(transmitted):
    """Unless next to nothing of the specimen is to be seen there."""
    distances = np.array([0.0, 3.0, 6.0, 9.0])
    field = float(transmitted)  # what an empty field is: full of light, or dark
    noise = np.random.default_rng(0).random((4, SIDE_PX, SIDE_PX), dtype=np.float32)
    dust = dust_at(6.0, transmitted=transmitted)

    seen, nearest = dust.over(list(np.full_like(noise, field)), distances)
    _, unmoved = dust.over(list(field + noise), distances)

    assert np.argmax([detail(plane) for plane in seen]) == 2
    assert list(np.abs(nearest)) == [0, 3, 0, 3]
    assert list(unmoved) == list(distances)


@pytest.mark.parametrize(("share", "counts"), [(0.15, "specimen"), (0.05, "dust")])
def test_a_blurred_specimen_counts_while_a_tenth_of_the_contrast_is_left(share, counts):
    dust = dust_at(6.0)
    contrast = dust.amount * float(dust.renderer.relative(0.0).std())
    y = np.linspace(0, 9, SIDE_PX, dtype=np.float32)[:, None]
    waves = np.sin(y) * np.ones((1, SIDE_PX), np.float32)

    _, (distance,) = dust.over([waves / waves.std() * share * contrast], np.array([6.0]))

    assert distance == (6.0 if counts == "specimen" else 0.0)


def test_dust_in_transmitted_light_passes_a_share_of_what_the_specimen_does():
    bright, dust = np.full((SIDE_PX, SIDE_PX), 2.0, np.float32), dust_at(0.0, transmitted=True)

    (seen,), _ = dust.over([bright], np.array([0.0]))

    np.testing.assert_allclose(seen, 2 * dust.renderer.relative(0.0), rtol=1e-6)
    assert seen.mean() < 2


@pytest.mark.parametrize("index", [0, 6, 7])
def test_specimens_of_either_light_become_dusty(index):
    """It adds light of its own to fluorescence, and takes transmitted light away."""
    alone = known_defocus._simulated(index, 2, known_defocus._DUSTY_KINDS, 0xD057)()
    dusty = known_defocus._dusty(index, 2)()

    change = float((np.float32(dusty.light[0]) - np.float32(alone.light[0])).mean())
    assert dusty.transmitted is alone.transmitted is (index > 0)
    assert dusty.sampling == alone.sampling
    assert change < 0 if dusty.transmitted else change > 0


def test_half_of_the_dust_is_in_transmitted_light():
    specimens = [known_defocus._dusty(i, 1) for i in range(12)]
    light = [each.kinds[each.index % len(each.kinds)] for each in specimens]

    assert sum(kind in ("absorption", "phase") for kind in light) == 6


@pytest.mark.parametrize("dust_dof", [-5.0, 5.0])
def test_two_planes_of_a_dusty_specimen_are_beside_its_dust(dust_dof):
    dust = dust_at(dust_dof)
    for seed in range(20):
        distances = known_defocus._distances(np.random.default_rng(seed), dust)

        assert (np.abs(distances[4:6] - dust_dof) <= 0.7).all()
        assert distances[0] == 0
        assert len(distances) == DISTANCES


def test_stills_become_dusty_too():
    """Broad smooth cells: what is sharp in them, far from focus, is dust."""
    y, x = np.mgrid[:300, :300]
    cells = (1 + np.sin(x / 30) * np.sin(y / 35)).astype(np.float32)

    clean = [known_defocus._still(cells, 0, k, 3)() for k in range(6)]
    dusty = [known_defocus._dusty_still(cells, 0, k, 3)() for k in range(6)]

    plain = max(detail(plane) for each in clean for plane in np.float32(each.light[3:]))
    specks = [max(detail(plane) for plane in np.float32(each.light[4:6])) for each in dusty]
    assert np.median(specks) > 2 * plain


def test_light_is_made_once_and_anew_for_another_seed(folder, pool):
    written = (folder / "light.npy").stat().st_mtime_ns

    load_known_defocus(folder, data=None, count=9, seed=0)
    assert (folder / "light.npy").stat().st_mtime_ns == written

    other = load_known_defocus(folder.with_name("other"), data=None, count=9, seed=1)
    assert not np.array_equal(other.defocus_dof, pool.defocus_dof)


def test_batches_depend_on_seed_and_number_alone(pool):
    one, again, other = (batches(pool).make(0, number) for number in (3, 3, 4))

    assert np.array_equal(one.crops, again.crops)
    assert np.array_equal(one.sampling, again.sampling, equal_nan=True)
    assert not np.array_equal(one.crops, other.crops)


@pytest.mark.parametrize("side", [64, SIDE_PX])
def test_crops_are_normalised_and_carry_the_truth_of_their_specimen(pool, side):
    made = [batches(pool, crop_px=side).make(0, number) for number in range(6)]

    for batch in made:
        assert batch.crops.shape == (16, 1, side, side)
        assert batch.crops.dtype == np.float32
        assert batch.crops.min() >= 0
        assert batch.crops.max() <= BRIGHTEST
        assert np.isin(batch.defocus_dof, pool.defocus_dof.astype(np.float32)).all()
        by_specimen = batch.sampling.reshape(-1, 4)
        assert np.array_equal(by_specimen, by_specimen[:, [0] * 4], equal_nan=True)
    told = ~np.isnan(np.concatenate([batch.sampling for batch in made]))
    assert 0.1 < told.mean() < 0.9


def test_a_confocal_counts_photons_and_multiplying_them_doubles_their_variance():
    rng, light = np.random.default_rng(0), np.ones((300, 300), np.float32)
    drawn = [
        focus_batches._Microscope.draw(light.shape, transmitted=False, counting=1.0, rng=rng)
        for _ in range(200)
    ]
    plain = replace(
        drawn[0], lamp=None, gamma=1.0, levels=None, smoothing_px=0.0, inverted=False, gain=None
    )

    counted = plain.record(light, rng)
    multiplied = replace(plain, gain=20.0).record(light, rng)

    assert {one.read_noise_e for one in drawn} == {0.0}
    assert {one.hot for one in drawn} == {None}
    assert 0.2 < np.mean([one.gain is not None for one in drawn]) < 0.6
    for frame in (counted, multiplied):
        assert frame.min() >= 0
        assert (frame % 1 == 0).all()
    assert counted.var() / counted.mean() == pytest.approx(1, abs=0.05)
    assert multiplied.var() / multiplied.mean() / 20 == pytest.approx(2, abs=0.1)


def test_a_refined_encoder_reads_distances_that_it_could_not_read_before(pool, encoder, tmp_path):
    """On the specimens it learnt from: whether it generalises is for the benchmarks to say."""
    settings = replace(TINY, steps=80, specimens=6, late=1.0)

    file = refine(encoder, settings, tmp_path, pool=pool)

    CompactEncoder(16).load_state_dict(load_file(file), strict=True)
    with (tmp_path / "quality.csv").open(newline="") as source:
        rows = list(csv.DictReader(source))
    assert [int(row["step"]) for row in rows] == list(range(10, 81, 10))
    # What all distances equally likely would lose, by themselves.
    assert float(rows[-1]["loss"]) < np.log(settings.classes) < float(rows[0]["loss"])
    assert np.mean([float(row["correlation"]) for row in rows[-3:]]) > 0.3


def test_the_command_leaves_a_folder_to_fit_a_head_on_and_never_its_own_input(encoder, tmp_path):
    begin = tmp_path / "begin"
    begin.mkdir()
    for branch in ("content", "quality"):
        shutil.copyfile(encoder, begin / f"{branch}.safetensors")

    def run(out):
        refine_encoder(
            encoders=begin,
            out=out,
            minutes=1e-4,
            specimens=5,
            width=18,
            learning_rate=1e-3,
            threads=1,
            workers=1,
            jobs=1,
            seed=0,
        )

    with pytest.raises(ConfigError, match="another folder"):
        run(begin)
    run(tmp_path / "out")

    for branch, width in (("content", 16), ("quality", 18)):
        assert load_compact_encoder(tmp_path / "out" / f"{branch}.safetensors").width == width


def test_a_longer_run_goes_on_and_another_recipe_is_refused(pool, encoder, tmp_path):
    settings = replace(TINY, steps=10)
    refine(encoder, settings, tmp_path, pool=pool)

    refine(encoder, replace(settings, steps=20), tmp_path, pool=pool)

    with (tmp_path / "quality.csv").open(newline="") as source:
        assert [int(row["step"]) for row in csv.DictReader(source)] == [10, 20]
    with pytest.raises(ConfigError, match=r"other settings \(rank\).*--fresh"):
        refine(encoder, replace(settings, rank=0.0), tmp_path, pool=pool)
    with pytest.raises(ConfigError, match=r"other settings \(light\)"):
        refine(encoder, settings, tmp_path, pool=replace(pool, made_with="of another recipe"))


def test_a_widened_encoder_begins_with_what_it_knew_and_goes_on_where_it_was(
    pool, encoder, tmp_path
):
    settings = replace(TINY, steps=10, width=20, learning_rate=1e-9)
    refine(encoder, settings, tmp_path, pool=pool)

    file = refine(encoder, replace(settings, steps=20), tmp_path, pool=pool)

    found = load_compact_encoder(file)
    begin = widened(load_compact_encoder(encoder), 20, seed=settings.seed)
    assert found.width == 20
    for name, weight in begin.named_parameters():
        torch.testing.assert_close(found.get_parameter(name), weight, atol=1e-5, rtol=0, msg=name)
    with (tmp_path / "quality.csv").open(newline="") as source:
        assert [int(row["step"]) for row in csv.DictReader(source)] == [10, 20]


def test_chance_is_another_in_every_step_in_every_run_and_in_every_process():
    seeds = {training_run._seed(seed, number) for seed in (0, 1, 2**40) for number in range(9)}

    assert len(seeds) == 27
    run = training_run._Run.__new__(training_run._Run)
    run.team = Team(rank=1, size=3)
    assert [run.number(step) for step in range(3)] == [1, 4, 7]


def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(pool, encoder, tmp_path):
    def steps(out, stops):
        out.mkdir()
        for stop in stops:
            lesson = module._KnownDistances(
                module.load_compact_encoder(encoder), TINY, pool, Team()
            )
            run = training_run._Run(lesson, TINY, out, Team())
            run.load()
            while run.step < stop:
                run._update(lesson.batch(run.step, 1.0 if run.step > 4 else 0.0), 1e-3)
                run.step += 1
            run.save()
        return load_file(run.export())

    whole, parts = steps(tmp_path / "whole", [6]), steps(tmp_path / "parts", [3, 6])

    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, parts[name], rtol=1e-3, atol=1e-5, msg=name)


def test_the_farther_frame_must_be_read_as_farther():
    wanted = torch.tensor([0.0, 1.0, 2.0, 3.0])

    right = module._rank_loss(wanted, wanted, 4)
    wrong = module._rank_loss(-wanted, wanted, 4)

    assert right < 0.1 < 1 < wrong


def test_a_pool_has_all_distances_of_every_specimen(pool):
    """Of each kind, beads, three in transmitted light, four with dust, four of the hardest."""
    assert pool.light.shape == (21, DISTANCES, SIDE_PX, SIDE_PX)
    assert len(pool) == 21
    beads, dusty, hardest = [False], [False] * 4, [True, True, False, True]
    assert list(pool.transmitted[9:]) == [*beads, True, True, True, *dusty, *hardest]


def test_the_hardest_kinds_come_once_more_as_other_specimens():
    specimens = {kind: known_defocus._simulated(i, 0) for i, kind in enumerate(KINDS)}

    for i, kind in enumerate(("absorption", "phase", "tissue")):
        usual, hard = specimens[kind](), known_defocus._hard(i, 0)()
        assert hard.transmitted is usual.transmitted is (kind != "tissue")
        assert not np.array_equal(hard.defocus_dof, usual.defocus_dof)


@pytest.mark.parametrize("index", [0, 6, 12])
def test_transmitted_light_of_every_contrast_is_kept_with_its_distances(index):
    series = known_defocus._transmitted(index, 0)()
    light = np.asarray(series.light, np.float32)
    contrast = light.std(axis=(1, 2)) / light.mean(axis=(1, 2))

    assert series.transmitted
    assert series.defocus_dof[0] == 0
    farthest = series.defocus_dof.argmax()
    if index >= 6:  # in the bright field these are hardly seen in focus
        assert contrast[farthest] < 0.8 * contrast[0]


def test_crops_keep_how_bright_a_bead_is_beyond_the_percentile(pool):
    beads = KnownDefocus(
        pool.light[9:10], pool.defocus_dof[9:10], pool.sampling[9:10], pool.transmitted[9:10]
    )
    brightest = [batches(beads, specimens=1).make(0, n).crops.max() for n in range(12)]

    assert min(brightest) > 1
    assert max(brightest) <= BRIGHTEST


def test_specimens_are_seen_through_several_cameras_and_keep_their_distances(folder, pool):
    groups = wide_camera_groups(folder, cameras=2, seed=3)
    frames = groups[4].frames()

    assert len({group.name for group in groups}) == len(groups) == len(pool) + -(-len(pool) // 8)
    assert [frame.defocus_dof for frame in frames] == [*pool.defocus_dof[4]] * 2
    assert {frame.sampling for frame in frames} == {pool.sampling[4]}
    first, other = frames[0].image, frames[DISTANCES].image
    assert first.shape != other.shape or not np.allclose(first, other)
    again = wide_camera_groups(folder, cameras=2, seed=3)[4].frames()
    for one, same in zip(frames, again, strict=True):
        assert np.array_equal(one.image, same.image)


def striped(pool):
    """The same specimens, all of them stripes 8 px wide that any camera shows."""
    stripes = np.arange(SIDE_PX) % 8 < 4
    return replace(pool, light=np.broadcast_to(stripes, pool.light.shape).astype(np.float16))


def stripes_in(frame):
    """How far the stripes, upright or not, stand out of the spectrum of a frame."""
    side = min(frame.shape) // 8 * 8
    power = abs(np.fft.rfft2(frame[:side, :side] - frame[:side, :side].mean()))
    return max(power[0, side // 8], power[side // 8, 0]) / power.mean()


def test_a_lesson_has_as_many_empty_fields_as_asked_for_and_they_are_empty(pool):
    made = batches(striped(pool), specimens=80, crop_px=64, empty=0.25).make(0, 1)
    empty = made.defocus_dof == EMPTY_DEFOCUS_DOF
    seen = np.array([stripes_in(crop[0]) for crop in made.crops])

    assert 0.1 < empty.mean() < 0.4
    assert (empty.reshape(-1, 4) == empty.reshape(-1, 4)[:, :1]).all()
    assert np.isin(made.defocus_dof[~empty], pool.defocus_dof.astype(np.float32)).all()
    assert np.max(seen[empty]) < 0.5 * np.median(seen[~empty])


@pytest.mark.parametrize("done", [0.0, 1.0])
def test_every_part_of_the_lesson_has_empty_fields(pool, done):
    settings = replace(TINY, empty=1.0)
    lesson = module._KnownDistances(CompactEncoder(4), settings, pool, Team())

    assert (lesson.batch(0, done).defocus_dof == EMPTY_DEFOCUS_DOF).all()


def test_what_is_read_best_loses_least(pool):
    """A reading that gives every frame the classes it is told, and one that gives others."""
    lesson = module._KnownDistances(CompactEncoder(4), replace(TINY, rank=0.0), pool, Team())
    batch = lesson.batch(0, 0.0)
    distance = np.minimum(batch.defocus_dof, 12).astype(np.float64)
    shares = torch.from_numpy(class_shares(distance, class_ends(12, 36)).astype(np.float32))

    def loss_when_read(logits):
        lesson.state.reading.forward = lambda features, sampling: logits
        return lesson.loss(batch)

    right, correlation = loss_when_read(torch.log(shares + 1e-9))
    wrong, opposite = loss_when_read(torch.log(shares.flip(1) + 1e-9))

    assert float(right) == pytest.approx(float(-torch.xlogy(shares, shares).sum(1).mean()), 1e-3)
    assert float(wrong) > 2 * float(right)
    assert correlation > 0.98 > 0 > opposite


def test_every_eighth_specimen_of_wide_cameras_comes_once_more_as_an_empty_field(
    folder, pool, tmp_path
):
    shutil.copytree(folder, tmp_path / "light")
    np.save(tmp_path / "light" / "light.npy", striped(pool).light)
    groups = wide_camera_groups(tmp_path / "light", cameras=1, seed=3)
    empties = [group for group in groups if group.name.startswith("wide-empty")]

    assert len(empties) == -(-len(pool) // 8)
    frames = [frame for group in empties for frame in group.frames()]
    assert {frame.defocus_dof for frame in frames} == {EMPTY_DEFOCUS_DOF}
    seen = [stripes_in(frame.image) for group in groups[: len(pool)] for frame in group.frames()]
    assert max(stripes_in(frame.image) for frame in frames) < 0.5 * np.median(seen)


def test_frames_of_any_camera_can_be_scored_and_measured(folder, pool):
    torch.manual_seed(0)
    extractor = ReIQA(CompactEncoder(4), CompactEncoder(4), settings_for("compact"))

    table = extract(extractor, wide_camera_groups(folder, cameras=1, seed=0)[:3])

    assert len(table) == 3 * DISTANCES
    assert set(table.sources) == {"wide cameras"}
    assert np.isfinite(table.features).all()
    assert np.isfinite(table.measures).all()
