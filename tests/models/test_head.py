"""A head predicts what was fitted, and is refused with anything else than what it was fitted on."""

import hashlib
import json
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from models.encoders import CompactEncoder
from models.errors import HeadError
from models.head import (
    Label,
    centred_sampling,
    fit_head,
    load_head,
    read_head_manifest,
    sampling_range,
    save_head,
    with_sampling,
)
from models.regressor import OUTPUTS
from models.reiqa import ExtractorSettings, ReIQA

DIMENSIONS = 40
LABEL = Label(sigma=2.0)


def extractor(seed: int = 0, **settings) -> ReIQA:
    torch.manual_seed(seed)
    return ReIQA(CompactEncoder(4), CompactEncoder(4), ExtractorSettings(**settings))


def stack_features(frames: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that know the defocus (DOF) among 39 correlated nuisances; its label; its size."""
    rng = np.random.default_rng(seed)
    defocus_dof = rng.uniform(0, 10, frames)
    score = 1 / (1 + (defocus_dof / LABEL.sigma) ** 2)
    mixing = np.random.default_rng(0).normal(0, 1, (5, DIMENSIONS))
    features = rng.normal(0, 1, (frames, 5)) @ mixing + 0.3 * rng.normal(0, 1, (frames, DIMENSIONS))
    features[:, 0] = score
    return features.astype(np.float32), score, defocus_dof


@pytest.fixture(scope="module")
def fitted():
    x, score, defocus_dof = stack_features(400, seed=1)
    return fit_head(
        x, score, defocus_dof, extractor=extractor(), label=LABEL, name="nuclei", alpha=1.0
    )


@pytest.fixture
def folder(fitted, tmp_path):
    save_head(tmp_path / "head", fitted)
    return tmp_path / "head"


def test_predictions_are_those_of_the_pipeline(fitted):
    for row in stack_features(5, seed=2)[0]:
        prediction = fitted.predict(row)
        score, defocus_dof = fitted.pipeline.predict(row[None].astype(np.float64))[0]
        assert prediction.score == pytest.approx(score, abs=1e-9)
        assert prediction.defocus_dof == pytest.approx(max(0, defocus_dof), abs=1e-9)


def whole_distances(**settings):
    """scikit-learn's own network, which tells whole distances apart."""
    network = MLPClassifier(hidden_layer_sizes=(16, 8), random_state=0, **settings)

    def fit(x, y):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return network.fit(x, np.round(y[:, 1]).astype(int))

    return fit


def test_a_network_predicts_what_its_pipeline_predicts_and_survives_the_disk(tmp_path):
    x, score, defocus_dof = stack_features(300, seed=1)
    sampling = np.random.default_rng(0).uniform(0.2, 0.8, len(x))
    head = fit_head(
        x,
        score,
        defocus_dof,
        extractor=extractor(),
        label=LABEL,
        name="network",
        network=whole_distances(max_iter=30),
        sampling=sampling,
    )
    save_head(tmp_path, head)
    loaded = load_head(tmp_path, extractor=extractor())
    centred = centred_sampling([0.3], head.manifest.sampling)
    distances = head.pipeline[-1].classes_
    assert head.manifest.outputs == OUTPUTS
    for row in stack_features(5, seed=2)[0]:
        design = with_sampling(row[None].astype(np.float64), centred, products=False)
        likely = head.pipeline.predict_proba(design)[0]
        middle = np.interp(0.5, np.cumsum(likely) - likely / 2, distances)
        for each in (head, loaded):
            prediction = each.predict(row, 0.3)
            label = 1 / (1 + (distances / LABEL.sigma) ** 2)
            assert prediction.score == pytest.approx(likely @ label, abs=1e-6)
            assert prediction.defocus_dof == pytest.approx(middle, abs=1e-5)
            deviation = np.sqrt(likely @ (distances - middle) ** 2)
            assert prediction.defocus_sd_dof == pytest.approx(deviation, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "changes", "says"),
    [
        ({"activation": "tanh"}, {}, "'tanh' is not 'relu'"),
        ({}, {"defocus_dof": None}, "give defocus_dof"),
        ({}, {"label": Label(sigma=2.0, unit="um")}, "depths of field"),
        ({}, {"defocus_dof": np.arange(50.0) % 2}, "three distances"),
    ],
)
def test_what_no_network_of_distances_can_be_fitted_to_is_refused(settings, changes, says):
    x, score, defocus_dof = stack_features(50, seed=1)
    asked = {"defocus_dof": defocus_dof, "label": LABEL} | changes
    network = whole_distances(max_iter=1, **settings)
    with pytest.raises(HeadError, match=says):
        fit_head(x, score, extractor=extractor(), name="h", network=network, **asked)


def test_the_score_follows_the_label_on_unseen_frames(fitted):
    x, score, _ = stack_features(100, seed=3)
    predicted = [fitted.predict(row).score for row in x]
    assert np.corrcoef(predicted, score)[0, 1] > 0.98


def test_an_estimated_distance_is_never_negative(fitted):
    far_beyond = stack_features(1, seed=4)[0][0]
    far_beyond[0] = 5
    assert fitted.predict(far_beyond).defocus_dof == 0


def test_without_distances_there_is_one_output():
    x, score, _ = stack_features(50, seed=1)
    head = fit_head(x, score, extractor=extractor(), label=LABEL, name="h")
    assert head.manifest.outputs == ("score",)
    assert head.predict(x[0]).defocus_dof is None


@pytest.mark.parametrize("frames", [100, 400])
def test_few_usual_frames_are_out_of_distribution(frames):
    x, score, _ = stack_features(frames, seed=5)
    head = fit_head(x, score, extractor=extractor(), label=LABEL, name="h")
    unseen = stack_features(1000, seed=6)[0]
    assert np.mean([head.predict(row).out_of_distribution for row in unseen]) < 0.03


def test_more_features_than_frames_still_leave_usual_frames_inside():
    rng = np.random.default_rng(0)
    mixing = rng.normal(0, 1, (20, 600))
    x, unseen = (rng.normal(0, 1, (n, 20)) @ mixing for n in (150, 300))
    head = fit_head(x, x[:, 0], extractor=extractor(), label=LABEL, name="h")
    assert np.mean([head.predict(row).out_of_distribution for row in unseen]) < 0.05


@pytest.mark.parametrize("change", ["along", "across", "scaled"])
def test_unusual_frames_are_out_of_distribution(fitted, change):
    x = stack_features(50, seed=7)[0]
    strange = {
        "along": x + 30 * np.random.default_rng(0).normal(0, 1, (5, DIMENSIONS))[0],
        "across": x + 5 * np.sign(np.random.default_rng(9).normal(0, 1, DIMENSIONS)),
        "scaled": x * 20,
    }[change].astype(np.float32)
    assert all(fitted.predict(row).out_of_distribution for row in strange)


def test_a_head_survives_the_disk(fitted, folder):
    loaded = load_head(folder, extractor=extractor())
    row = stack_features(1, seed=8)[0][0]
    assert loaded.predict(row) == fitted.predict(row)
    assert loaded.manifest == read_head_manifest(folder)
    assert loaded.manifest.title == f"nuclei@{loaded.manifest.head_sha256[:8]}"


def test_the_manifest_says_what_a_person_wants_to_know(folder):
    values = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert values["label"] == {
        "kind": "1/(1+(d/sigma)^2)",
        "sigma": 2.0,
        "unit": "depth of field",
    }
    assert values["settings"]["patches"] == 32
    assert values["outputs"] == ["score", "defocus_dof"]
    assert 0 < values["score_range"][0] < values["score_range"][1] <= 1


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seed": 1}, "content_sha256 = .*quality_sha256 = "),
        ({"patches": 16}, "patches = 32, not 16"),
        ({"p_high": 99.0}, "p_high = 99.8, not 99.0"),
    ],
)
def test_other_encoders_or_settings_are_refused_by_name(folder, other, said):
    with pytest.raises(HeadError, match=said):
        load_head(folder, extractor=extractor(**other))


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def test_a_swapped_joblib_is_refused_before_it_is_opened(folder, tmp_path):
    proof = tmp_path / "executed"
    joblib.dump(Payload(proof), folder / "head.joblib")
    with pytest.raises(HeadError, match="not opened"):
        load_head(folder, extractor=extractor())
    assert not proof.exists()
    joblib.load(folder / "head.joblib")  # it would have been executed
    assert proof.exists()


@pytest.mark.parametrize("other", [{"seed": 1}, {"patches": 16}])
def test_a_joblib_of_another_extractor_is_not_opened_either(folder, tmp_path, other):
    proof = tmp_path / "executed"
    forge(folder, Payload(proof))
    with pytest.raises(HeadError, match="was fitted with"):
        load_head(folder, extractor=extractor(**other))
    assert not proof.exists()


def forge(folder, pickled) -> None:
    """Put another object in place, with the hash that belongs to it."""
    joblib.dump(pickled, folder / "head.joblib")
    values = json.loads((folder / "manifest.json").read_text())
    content = (folder / "head.joblib").read_bytes()
    values["head_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(values))


def test_something_else_than_a_scaler_and_a_ridge_is_refused(folder):
    forge(folder, {"not": "a pipeline"})
    with pytest.raises(HeadError, match="not a StandardScaler and a Ridge"):
        load_head(folder, extractor=extractor())


def test_a_pipeline_of_another_size_is_refused(folder):
    x, score, _ = stack_features(50, seed=1)
    smaller = fit_head(x[:, :7], score, extractor=extractor(), label=LABEL, name="h")
    forge(folder, smaller.pipeline)
    with pytest.raises(HeadError, match="scales 7 features and maps 7 to 1 outputs"):
        load_head(folder, extractor=extractor())


def test_a_changed_distribution_is_refused(folder):
    path = folder / "distribution.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(HeadError, match=r"distribution\.npz has SHA-256"):
        load_head(folder, extractor=extractor())


@pytest.mark.parametrize("name", ["head.joblib", "distribution.npz", "manifest.json"])
def test_an_absent_file_is_refused_by_name(folder, name):
    (folder / name).unlink()
    with pytest.raises(HeadError, match=name.replace(".", r"\.")):
        load_head(folder, extractor=extractor())


@pytest.mark.parametrize("change", [{"format": 2}, {"settings": {}}, {"label": None}, {"extra": 1}])
def test_a_manifest_that_is_not_ours_is_refused(folder, change):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(HeadError, match=r"manifest\.json"):
        load_head(folder, extractor=extractor())


@pytest.mark.parametrize(
    ("features", "scores", "said"),
    [
        (np.ones((20, 3)), np.ones(19), "one row a frame|same shape"),
        (np.full((20, 3), np.nan), np.ones(20), "finite"),
        (np.ones((20, 3)), np.full(20, np.nan), "finite"),
        (np.ones((9, 3)), np.ones(9), "too few"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features, scores, said):
    with pytest.raises(HeadError, match=said):
        fit_head(features, scores, extractor=extractor(), label=LABEL, name="h")


def test_features_of_another_size_are_refused(fitted):
    with pytest.raises(HeadError, match="takes 40 features"):
        fitted.predict(np.zeros(41, np.float32))


def test_only_labels_in_depths_of_field_are_absolute():
    assert LABEL.absolute
    assert not Label(sigma=2.0, unit="um").absolute


@pytest.fixture(scope="module")
def sampled():
    """Frames whose one telling feature is the blur in pixels: d (1 + 1 / sampling)."""
    x, _, defocus_dof = stack_features(600, seed=7)
    sampling = np.exp(np.random.default_rng(8).uniform(np.log(0.1), np.log(1), 600))
    x[:, 0] = np.log(0.1 + defocus_dof * (1 + 1 / sampling))
    score = 1 / (1 + (defocus_dof / LABEL.sigma) ** 2)
    head = fit_head(
        x, score, extractor=extractor(), label=LABEL, name="h", alpha=1.0, sampling=sampling
    )
    return head, x, score, sampling


def test_a_head_that_knows_the_sampling_reads_the_distance_from_the_blur(sampled):
    head, x, score, sampling = sampled
    informed = [head.predict(row, s).score for row, s in zip(x, sampling, strict=True)]
    blind = [head.predict(row).score for row in x]
    assert np.corrcoef(informed, score)[0, 1] > np.corrcoef(blind, score)[0, 1] + 0.05


def test_an_unknown_sampling_counts_as_the_usual_one_and_extreme_ones_as_the_last(sampled):
    head, x, _, sampling = sampled
    usual = float(np.exp(np.log(sampling).mean()))
    assert head.predict(x[0]).score == pytest.approx(head.predict(x[0], usual).score)
    assert head.predict(x[0], 50.0) == head.predict(x[0], float(sampling.max()))


@pytest.mark.parametrize("sampling", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_sampling_is_refused(sampled, sampling):
    head, x, _, _ = sampled
    with pytest.raises(HeadError, match="sampling"):
        head.predict(x[0], sampling)


def test_a_head_that_knows_the_sampling_survives_its_journey_through_files(sampled, tmp_path):
    head, x, _, sampling = sampled
    save_head(tmp_path, head)
    again = load_head(tmp_path, extractor=extractor())
    assert again.predict(x[3], sampling[3]) == head.predict(x[3], sampling[3])
    assert again.manifest.sampling == head.manifest.sampling


def test_a_head_without_sampling_ignores_it(fitted):
    row = stack_features(1, seed=2)[0][0]
    assert fitted.predict(row, 0.3) == fitted.predict(row)


def test_samplings_that_are_not_known_are_left_out_of_their_range():
    known = sampling_range([0.2, np.nan, 0.8])
    assert known.mean == pytest.approx(np.log(0.4))
    assert centred_sampling([np.nan, 0.4], known) == pytest.approx([0, 0])
    with pytest.raises(HeadError, match="NaN"):
        sampling_range([np.nan])
