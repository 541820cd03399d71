from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from autofocus.training.default_head import (
    FARTHEST_DOF,
    extract,
    fit,
    judge,
    left_out,
    score_of,
    simplest_of_the_best,
    targets,
)
from autofocus.training.labelled import (
    EMPTY_DEFOCUS_DOF,
    defocused,
    draw_defocus_dof,
    sampling_of,
    simulated_groups,
    transmitted_groups,
)
from autofocus.training.network import fit_network
from autofocus.training.transmitted import draw_transmitted
from devices.simulated.contrast import InterferenceContrast, PhaseContrast
from devices.simulated.optics import Objective
from models.encoders import CompactEncoder, weights_sha256
from models.head import Label, fit_head, load_head, save_head
from models.reiqa import ExtractorSettings, ReIQA


@pytest.fixture(scope="module")
def encoders():
    torch.manual_seed(0)
    return CompactEncoder(4), CompactEncoder(4)


@pytest.fixture(scope="module")
def extractor(encoders):
    return ReIQA(*encoders, ExtractorSettings(patches=4, top_k=0.5))


@pytest.fixture(scope="module")
def table(extractor):
    return extract(extractor, simulated_groups(6, seed=3, frames=4))


def test_a_group_is_always_the_same_and_no_two_are():
    first, second = simulated_groups(2, seed=5, frames=2)
    again = simulated_groups(2, seed=5, frames=2)[0]
    assert np.array_equal(first.frames()[1].image, again.frames()[1].image)
    assert first.name != second.name


def test_every_sixteenth_group_is_empty_and_as_far_from_focus_as_can_be():
    empty = simulated_groups(16, seed=5, frames=2)[15]
    assert empty.name.startswith("empty")
    assert {frame.defocus_dof for frame in empty.frames()} == {EMPTY_DEFOCUS_DOF}


@pytest.mark.parametrize(
    ("index", "contrast"), [(0, type(None)), (6, PhaseContrast), (12, InterferenceContrast)]
)
def test_transmitted_groups_have_every_contrast_and_know_where_focus_is(index, contrast):
    objective = Objective(0.75, 1.0, 0.53, 0.3)
    drawn = draw_transmitted(index, objective, side=96, rng=np.random.default_rng(0))
    assert isinstance(drawn.contrast, contrast)
    group = transmitted_groups(index + 1, seed=5, frames=3)[index]
    frames = group.frames()
    assert group.source == "transmitted"
    assert [frame.defocus_dof == 0 for frame in frames] == [True, False, False]
    assert np.array_equal(frames[1].image, group.frames()[1].image)


def test_distances_begin_in_focus_and_stay_within_twenty_depths_of_field():
    distance = draw_defocus_dof(500, np.random.default_rng(0))
    assert distance[0] == 0
    assert np.abs(distance).max() <= 20
    assert 0.25 < np.mean(np.abs(distance) <= 2) < 0.7


def test_blurring_a_real_image_keeps_its_light_and_loses_its_detail():
    rng = np.random.default_rng(0)
    sharp = rng.random((160, 160)).astype(np.float32)
    objective = Objective(0.75, 1.0, 0.53, 0.325)
    in_focus, near, far = defocused(sharp, objective, [0.0, 1.0, 5.0])
    assert np.array_equal(in_focus, sharp)
    assert near.std() > far.std()
    assert far.mean() == pytest.approx(sharp.mean(), rel=0.02)


def test_the_label_is_one_in_focus_and_half_two_depths_of_field_away():
    assert score_of(0.0) == 1.0
    assert score_of(2.0) == 0.5


def test_fitting_a_head_leaves_the_encoders_as_they_were(encoders, extractor, table):
    """Features that follow the label: a ridge is right, so no network can be better by more."""
    before = [weights_sha256(encoder) for encoder in encoders]
    noise = np.random.default_rng(0).normal(0, 0.01, table.features.shape)
    follow = (score_of(table.defocus_dof)[:, None] + noise).astype(np.float32)
    head = fit(extractor, replace(table, features=follow))
    assert [weights_sha256(encoder) for encoder in encoders] == before
    assert head.manifest.content_sha256 == before[0]
    assert head.manifest.outputs == ("score", "defocus_dof")
    assert head.manifest.report["frames"] == len(table) == 24


def test_cross_validation_never_sees_the_specimen_it_predicts(table):
    scrambled = judge(table, left_out(table, {"ridge": Ridge(100.0).fit}, folds=3)["ridge"])
    assert -1 <= scrambled.pooled_plcc <= 1
    # A lookup by specimen would be perfect if a specimen were on both sides.
    assert scrambled.pooled_plcc < 0.999


@pytest.mark.parametrize(
    ("network", "chosen"), [(0.85, "ridge 300"), (0.86, "ridge 300"), (0.87, "network")]
)
def test_a_network_is_taken_only_where_it_is_clearly_better(network, chosen):
    correlation = {"ridge 100": 0.856, "ridge 300": 0.853, "ridge 1000": 0.84, "network": network}
    assert simplest_of_the_best(correlation) == chosen


def test_the_report_says_what_was_tried_and_what_was_chosen(table, extractor):
    report = fit(extractor, table).manifest.report
    assert report["regressor"] in report["cross_validation"]
    assert len(report["cross_validation"]) == 6
    assert set(report["cross_validation_by_source"]) == {"simulated"}


def test_a_network_tells_how_sure_it_is_and_survives_the_disk(table, extractor, tmp_path):
    wanted = targets(table)
    fitted = fit_head(
        table.features,
        wanted[:, 0],
        wanted[:, 1],
        extractor=extractor,
        label=Label(sigma=2.0),
        name="network",
        network=fit_network,
        sampling=table.sampling,
    )
    save_head(tmp_path, fitted)

    said = load_head(tmp_path, extractor=extractor).predict(table.features[0], table.sampling[0])

    assert said == fitted.predict(table.features[0], table.sampling[0])
    assert 0 < said.score < 1
    assert 0 <= said.defocus_dof <= FARTHEST_DOF
    assert said.defocus_sd_dof > 0


def test_cross_validation_says_how_often_the_error_is_within_the_deviation(table):
    true = targets(table)
    sure, unsure, ridge = (
        np.column_stack([true[:, 0], true[:, 1] + 0.5, np.full(len(true), deviation)])
        for deviation in (0.4, 0.6, np.nan)
    )

    assert judge(table, sure).within_deviation == 0
    assert judge(table, unsure).within_deviation == 1
    assert judge(table, ridge[:, :2]).within_deviation is None
    assert judge(table, unsure).defocus_error_dof == pytest.approx(0.5)


def test_a_head_reads_the_sampling_of_the_frames_it_was_fitted_on(table, extractor):
    head = fit(extractor, table)
    known = head.manifest.sampling
    logs = np.log(table.sampling)
    assert (known.low, known.high) == (logs.min(), logs.max())
    assert known.mean == pytest.approx(logs.mean())


def test_the_sampling_of_simulated_frames_is_that_of_their_objective():
    objective = Objective(0.75, 1.0, 0.5, 0.2)
    assert sampling_of(objective) == pytest.approx(0.3)
