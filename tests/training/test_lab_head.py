"""A lab's own head: which rows are joined, what leaving out shows, and what is saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autofocus.errors import DataError
from autofocus.training.feature_file import FeatureFile
from autofocus.training.lab_head import TrainingOptions, report_json, report_markdown, train
from autofocus.training.labels import focus_score
from autofocus.training.leave_one_out import (
    examples_of,
    fit_with,
    leave_one_stack_out,
    summarise,
)
from autofocus.training.losses import LOSSES, Loss, fit_linear
from autofocus.training.prediction import predict_stacks
from autofocus.training.stack_index import Plane
from autofocus.training.tables import write_table
from autofocus.training.training_rows import TrainingRows, join
from models.errors import HeadError
from models.head import load_head, save_head
from models.reiqa import ExtractorSettings

Z_UM = np.arange(-8.0, 9.0)
SIGMA_UM = 2.0


def table_of(stacks: Sequence[str], *, features: int = 12, noise: float = 0.05) -> FeatureFile:
    """Features that tell the distance to focus at z = 0, each stack with a brightness of its own.

    Base names are equal in all stacks.
    """
    rng = np.random.default_rng(0)
    slope = rng.normal(size=features)
    planes, rows = [], []
    for stack in stacks:
        own = rng.normal(size=features)
        for z in Z_UM:
            planes.append(Plane(Path(f"/lab/{stack}/frame_z{z:g}.tif"), stack, z))
            told = float(focus_score(z, z_in_focus_um=0, sigma_um=SIGMA_UM))
            rows.append(told * slope + 0.1 * own + rng.normal(0, noise, features))
    return FeatureFile(
        np.array(rows, np.float32),
        tuple(planes),
        ExtractorSettings(values="log"),
        "c" * 64,
        "q" * 64,
    )


def write_labels(path: Path, planes: Sequence[Plane], *, extra: bool = True) -> None:
    columns = ["image_path", "z_um", "focus_score", "z_in_focus_um", "sigma_um"]
    rows = []
    for plane in planes:
        score = float(focus_score(plane.z_um, z_in_focus_um=0, sigma_um=SIGMA_UM))
        rows.append([plane.path, plane.z_um, score, 0.0, SIGMA_UM])
    count = len(columns) if extra else 3
    write_table(path, columns[:count], [row[:count] for row in rows])


@pytest.fixture
def rows(tmp_path: Path) -> TrainingRows:
    table = table_of(["S1", "S2", "S3", "S4"])
    write_labels(tmp_path / "scores.csv", table.planes)
    return join(table, tmp_path / "scores.csv")


def test_rows_are_joined_by_path_whatever_their_order_and_base_names(tmp_path: Path) -> None:
    table = table_of(["S1", "S2", "S3"])
    shuffled = np.random.default_rng(1).permutation(len(table))
    dropped = set(shuffled[:5].tolist())
    labelled = [table.planes[i] for i in shuffled if i not in dropped]
    unseen = Plane(Path("/lab/S9/frame_z0.tif"), "S9", 0.0)
    write_labels(tmp_path / "scores.csv", [*labelled, unseen])
    joined = join(table, tmp_path / "scores.csv")
    kept = [i for i in range(len(table)) if i not in dropped]
    assert joined.table.planes == tuple(table.planes[i] for i in kept)
    assert np.array_equal(joined.table.features, table.features[kept])
    wanted = focus_score(joined.z_um, z_in_focus_um=0, sigma_um=SIGMA_UM)
    np.testing.assert_allclose(joined.scores, wanted)
    assert len(joined.without_label) == 5
    assert joined.without_features == (unseen.path,)


def test_the_three_columns_of_the_notes_are_enough_and_so_are_two(tmp_path: Path) -> None:
    table = table_of(["S1", "S2"])
    write_labels(tmp_path / "three.csv", table.planes, extra=False)
    three = join(table, tmp_path / "three.csv", sigma_um=SIGMA_UM)
    assert set(three.z_in_focus_um) == {0.0}
    write_table(
        tmp_path / "two.csv", ["image_path", "z_um"], [[p.path, p.z_um] for p in table.planes]
    )
    two = join(table, tmp_path / "two.csv", sigma_um=SIGMA_UM)
    np.testing.assert_allclose(two.scores, three.scores)


def test_windows_paths_in_both_files_are_joined(tmp_path: Path) -> None:
    table = table_of(["S1", "S2"])
    windows = [
        replace(p, path=f"D:\\C++workspace\\{p.stack}\\{p.path.name}")  # type: ignore[arg-type]
        for p in table.planes
    ]
    write_labels(tmp_path / "scores.csv", windows)
    with pytest.raises(DataError, match="--root"):
        join(table, tmp_path / "scores.csv")
    for plane in table.planes:
        file = tmp_path / "here" / plane.stack / plane.path.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert len(join(table, tmp_path / "scores.csv", root=tmp_path / "here")) == len(table)


def test_one_stack_or_a_double_row_or_mixed_labels_are_refused(tmp_path: Path) -> None:
    table, scores = table_of(["S1", "S2"]), tmp_path / "scores.csv"
    write_labels(scores, table.planes[: len(Z_UM)])
    with pytest.raises(DataError, match="two stacks or more"):
        join(table, scores)
    write_labels(scores, [*table.planes, table.planes[3]])
    with pytest.raises(DataError, match="2 times"):
        join(table, scores)
    scores.write_text("image_path,focus\na.tif,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no column 'focus_score'.*image_path, focus"):
        join(table, scores)
    mixed = [[p.path, 1.0, i % 2 + 1] for i, p in enumerate(table.planes)]
    write_table(scores, ["image_path", "focus_score", "sigma_um"], mixed)
    with pytest.raises(DataError, match="different sigma_um"):
        join(table, scores)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_finds_the_plane_of_stacks_it_has_not_seen(
    rows: TrainingRows, loss: Loss
) -> None:
    left_out = leave_one_stack_out(rows, fit_with(loss, 1.0))
    summary = summarise(left_out)
    assert [each.stack for each in left_out] == ["S1", "S2", "S3", "S4"]
    assert summary.srcc is not None
    assert summary.srcc.mean > 0.8
    assert summary.error_um is not None
    assert summary.error_um.median == 0.0
    assert summary.error_um.low <= summary.error_um.mean <= summary.error_um.high


def test_a_stack_is_never_in_its_own_fit(rows: TrainingRows) -> None:
    seen: list[set[str]] = []

    def fit(examples):
        seen.append(set(examples.stacks))
        return fit_linear("ridge", examples, alpha=1.0)

    leave_one_stack_out(rows, fit)
    everything = {"S1", "S2", "S3", "S4"}
    assert [everything - each for each in seen] == [{"S1"}, {"S2"}, {"S3"}, {"S4"}]


def test_features_that_tell_nothing_are_reported_as_such(
    tmp_path: Path, rows: TrainingRows
) -> None:
    noise = np.random.default_rng(5).normal(size=rows.table.features.shape).astype(np.float32)
    blind = replace(rows, table=replace(rows.table, features=noise))
    summary = summarise(leave_one_stack_out(blind, fit_with("ridge", None)))
    assert summary.srcc is not None
    assert abs(summary.srcc.mean) < 0.5


def test_huber_heeds_a_wrong_label_less_than_ridge(rows: TrainingRows) -> None:
    examples = examples_of(rows)
    wrong = replace(examples, scores=np.where(np.arange(len(rows)) < 2, 8.0, rows.scores))
    fits = [fit_linear(loss, wrong, alpha=1.0) for loss in ("huber", "ridge")]
    errors = [
        np.abs(fitted.predict(examples.features)[2:] - rows.scores[2:]).mean() for fitted in fits
    ]
    assert errors[0] < 0.5 * errors[1]


def test_ranking_looks_at_order_within_stacks_only(rows: TrainingRows) -> None:
    examples = examples_of(rows)
    shifted = rows.scores + 5.0 * np.array([int(stack[1]) for stack in rows.stacks])
    plain = fit_linear("ranking", examples, alpha=1.0)[-1].coef_
    moved = fit_linear("ranking", replace(examples, scores=shifted), alpha=1.0)[-1].coef_
    cosine = plain @ moved / np.linalg.norm(plain) / np.linalg.norm(moved)
    assert cosine == pytest.approx(1.0, abs=1e-6)


def test_multitask_makes_both_errors_small_with_slopes_that_are_alike(rows: TrainingRows) -> None:
    """At a minimum of |X W - Y|^2 + alpha tr(W C^-1 W'), C = [[1, 0.5], [0.5, 1]]."""
    examples, alpha = examples_of(rows), 10.0
    fitted = fit_linear("multitask", examples, alpha=alpha)
    x = fitted[0].transform(examples.features)
    targets = np.stack([examples.scores, -examples.distance], axis=1)
    y = (targets - targets.mean(axis=0)) / targets.std(axis=0)
    slopes = fitted[1].coef_.T * [1, -1] / targets.std(axis=0)
    pull = alpha * slopes @ np.linalg.inv([[1, 0.5], [0.5, 1]])
    np.testing.assert_allclose(x.T @ (y - x @ slopes), pull, atol=1e-8)
    score, distance = fitted.predict(examples.features).T
    assert np.corrcoef(score, examples.scores)[0, 1] > 0.9
    assert np.corrcoef(distance, examples.distance)[0, 1] > 0.8
    assert distance.mean() == pytest.approx(examples.distance.mean())


def test_multitask_without_z_is_refused(rows: TrainingRows) -> None:
    nowhere = replace(rows, z_um=np.full(len(rows), np.nan))
    with pytest.raises(DataError, match="51 of 51 have no z"):
        train(nowhere, TrainingOptions("lab", loss="multitask", alpha=1.0))


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_saved_predicts_the_same(tmp_path: Path, rows: TrainingRows, loss: Loss) -> None:
    options = TrainingOptions("lab", loss=loss, alpha=10.0, dof_um=1.5)
    head, _ = train(rows, options)
    save_head(tmp_path / "head", head)
    read = load_head(tmp_path / "head", extractor=rows.table)
    row = rows.table.features[8]
    assert read.predict(row) == head.predict(row)
    assert read.predict(row).score > read.predict(rows.table.features[0]).score
    assert read.manifest.label.absolute == (loss != "ranking")
    assert read.manifest.label.sigma == pytest.approx(
        SIGMA_UM / 1.5 if read.manifest.label.absolute else SIGMA_UM
    )
    assert read.manifest.outputs == ("score", "defocus_dof")
    assert read.manifest.report["leave_one_stack_out"]["stacks"] == 4
    other = replace(rows.table, quality_sha256="x" * 64)
    with pytest.raises(HeadError, match="quality_sha256"):
        load_head(tmp_path / "head", extractor=other)


@pytest.mark.parametrize(("dof_um", "absolute"), [(0.9, False), (1.0, True), (4.0, True)])
def test_a_wide_label_is_not_called_absolute(
    rows: TrainingRows, dof_um: float, absolute: bool
) -> None:
    head, _ = train(rows, TrainingOptions("lab", dof_um=dof_um))
    assert head.manifest.label.absolute == absolute


def test_without_a_depth_of_field_scores_do_not_claim_to_compare(rows: TrainingRows) -> None:
    head, _ = train(rows, TrainingOptions("lab"))
    assert (head.manifest.label.unit, head.manifest.outputs) == ("um", ("score",))


def test_alpha_is_chosen_on_stacks_left_out(rows: TrainingRows) -> None:
    _, report = train(rows, TrainingOptions("lab", alpha=None))
    assert report.options.alpha in (10.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)


def test_the_report_compares_with_the_head_in_use(rows: TrainingRows) -> None:
    worse = replace(rows, scores=np.random.default_rng(0).permutation(rows.scores))
    in_use, _ = train(worse, TrainingOptions("old"))
    _, report = train(rows, TrainingOptions("new", alpha=1.0, dof_um=2.0), before=in_use)
    said = json.loads(report_json(report))
    new, old = said["leave_one_stack_out"], said["before"]["leave_one_stack_out"]
    assert new["srcc"]["mean"] > old["srcc"]["mean"]
    assert len(said["per_stack"]) == 4
    assert said["per_stack"][0]["z_um"] == Z_UM.tolist()
    text = report_markdown(report)
    assert "| old |" in text
    assert f"| S1 | {said['per_stack'][0]['srcc']:.3f} |" in text


def test_labels_without_z_still_give_correlations(rows: TrainingRows) -> None:
    nowhere = np.full(len(rows), np.nan)
    _, report = train(replace(rows, z_um=nowhere, z_in_focus_um=nowhere), TrainingOptions("lab"))
    said = json.loads(report_json(report))
    assert said["leave_one_stack_out"]["error_um"] is None
    assert said["per_stack"][0]["z_um"][0] is None


def test_prediction_says_that_the_peak_is_at_the_edge_and_out_of_range(rows: TrainingRows) -> None:
    """The last output of the notes: names without z, the first plane best, its score 1.77."""
    head, _ = train(rows, TrainingOptions("lab", alpha=1.0))
    mute = [replace(plane, z_um=None) for plane in rows.table.planes[8 : len(Z_UM)]]
    table = rows.table.only(range(8, len(Z_UM)))
    brighter = table.features.copy()
    brighter[0] *= 1.8
    (found,) = predict_stacks(head, replace(table, planes=tuple(mute), features=brighter))
    assert (found.best, found.at_edge) == (0, True)
    assert found.outside_range(found.chosen)
    edge, out_of_range, *others = found.warnings()
    assert "at the edge: frame_z0.tif is the first of 9 planes" in edge
    assert "outside what the head was fitted on, 0.0588 to 1" in out_of_range
    assert "z of its planes is not known" in others[-1]


def test_prediction_of_a_good_stack_has_nothing_to_say_against_it(rows: TrainingRows) -> None:
    head, _ = train(rows, TrainingOptions("lab", alpha=1.0))
    found = predict_stacks(head, rows.table)
    assert [each.stack for each in found] == ["S1", "S2", "S3", "S4"]
    assert [each.chosen.plane.z_um for each in found] == [0.0] * 4
    assert {each.warnings() for each in found} == {()}
    assert [each.plane.z_um for each in found[0].ranking[:1]] == [0.0]
