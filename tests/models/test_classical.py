from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from models.classical import (
    DEFAULT_MEASURE,
    MEASURES,
    ClassicalScorer,
    coarse_contrast,
    compare_on_stack,
    referee,
)
from models.errors import ImageError, UnknownScorer
from models.scorer import FrameScore, Scorer

Float32 = NDArray[np.float32]

DATA = Path(os.environ.get("AUTOFOCUS_TEST_DATA", "/work/shared/data"))
DEFOCUS = (4.0, 2.0, 1.0, 0.0, 1.0, 2.0, 4.0)

every_measure = pytest.mark.parametrize("measure", MEASURES)


@pytest.fixture(scope="module")
def specimen() -> Float32:
    """Light of discs and filaments on an even haze, 0..1000."""
    rng = np.random.default_rng(0)
    light = np.zeros((192, 192), np.float32)
    for x, y, radius in rng.integers((0, 0, 4), (192, 192, 14), (14, 3)).tolist():
        cv2.circle(light, (x, y), radius, 1.0, -1)
    for start, end in rng.integers(0, 192, (10, 2, 2)).tolist():
        cv2.line(light, start, end, 0.7, 1, cv2.LINE_AA)
    return 900 * light + 100


def focus_series(specimen: Float32) -> list[Float32]:
    """Light at each of DEFOCUS; the optics blur by one pixel even in focus."""
    return [cv2.GaussianBlur(specimen, (0, 0), math.hypot(1, blur)) for blur in DEFOCUS]


def photographed(
    light: Float32, photons: float, rng: np.random.Generator, *, offset: float = 100
) -> Float32:
    counts = rng.poisson(light * (photons / 1000)) + rng.normal(offset, 2, light.shape)
    return np.round(counts).astype(np.float32)


@every_measure
def test_is_highest_in_focus_and_falls_with_blur(measure: str, specimen: Float32) -> None:
    scores = [MEASURES[measure](plane) for plane in focus_series(specimen)]
    assert all(np.diff(scores[:4]) > 0)
    assert all(np.diff(scores[3:]) < 0)


@every_measure
@pytest.mark.parametrize("gain", [0.01, 0.5, 4.0, 1000.0])
def test_gain_does_not_move_the_score(measure: str, gain: float, specimen: Float32) -> None:
    noisy = photographed(specimen, 1000, np.random.default_rng(1), offset=0)
    score = MEASURES[measure]
    assert score(noisy * np.float32(gain)) == pytest.approx(score(noisy), rel=1e-3)


@every_measure
@pytest.mark.parametrize("offset", [20, 300, 5000])
def test_a_camera_offset_scales_the_focus_curve_and_keeps_its_shape(
    measure: str, offset: float, specimen: Float32
) -> None:
    def curve(added: float) -> NDArray[np.float64]:
        planes = [plane + np.float32(added) for plane in focus_series(specimen)]
        return np.array([MEASURES[measure](plane) for plane in planes])

    bare, shifted = curve(0), curve(offset)
    np.testing.assert_allclose(shifted / shifted.max(), bare / bare.max(), atol=0.12)


@every_measure
@pytest.mark.parametrize(("kept", "offset"), [(0.5, 0), (2.0, 0), (0.97, 100), (1.03, 100)])
def test_a_change_of_brightness_from_plane_to_plane_does_not_move_the_peak(
    measure: str, kept: float, offset: float, specimen: Float32
) -> None:
    scores = [
        MEASURES[measure](plane * np.float32(kept**exposure) + np.float32(offset))
        for exposure, plane in enumerate(focus_series(specimen))
    ]
    assert DEFOCUS[int(np.argmax(scores))] == 0


@every_measure
@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64)),
        np.full((64, 64), 700),
        np.full((1, 1), 9),
        np.full((1, 40), 9),
        np.full((40, 2), 9),
    ],
    ids=lambda image: f"{image.shape} of {image[0, 0]:.0f}",
)
def test_a_frame_without_contrast_scores_0(measure: str, image: NDArray[np.float64]) -> None:
    assert MEASURES[measure](image.astype(np.float32)) == 0


@every_measure
@settings(max_examples=25, deadline=None)
@given(
    frame=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24),
        elements=st.floats(-(2.0**39), 2.0**39, width=32),
    )
)
def test_the_score_is_finite_for_any_frame(measure: str, frame: Float32) -> None:
    assert math.isfinite(MEASURES[measure](frame))


@every_measure
def test_noise_alone_scores_far_below_a_specimen_out_of_focus(
    measure: str, specimen: Float32
) -> None:
    rng = np.random.default_rng(2)
    empty = MEASURES[measure](photographed(0 * specimen, 0, rng))
    blurred = MEASURES[measure](photographed(focus_series(specimen)[1], 500, rng))
    assert empty < 0.5 * blurred


def test_the_default_finds_focus_where_photons_are_few(specimen: Float32) -> None:
    rng = np.random.default_rng(3)
    planes = focus_series(specimen)
    for _ in range(20):
        scores = [MEASURES[DEFAULT_MEASURE](photographed(plane, 15, rng)) for plane in planes]
        assert DEFOCUS[int(np.argmax(scores))] == 0


def test_the_referee_finds_faint_coarse_detail_where_single_pixels_show_only_noise() -> None:
    rng = np.random.default_rng(4)
    stain = cv2.GaussianBlur(rng.normal(size=(384, 384)).astype(np.float32), (0, 0), 6)
    planes = [cv2.GaussianBlur(stain / stain.std(), (0, 0), 1 + 4 * d) for d in DEFOCUS]
    found = {"vollath_f4": 0, "vollath_f4, binned": 0}
    for _ in range(20):
        frames = [photographed(1000 + 20 * plane, 80, rng) for plane in planes]
        for scorer in (ClassicalScorer(), referee()):
            scores = [scorer.score(frame, sampling=0.2).score for frame in frames]
            found[scorer.name] += DEFOCUS[int(np.argmax(scores))] == 0
    assert found["vollath_f4, binned"] == 20
    assert found["vollath_f4"] < 15


@pytest.mark.parametrize("sampling", [0.12, 0.19, 0.25, 0.29, 0.37, 0.46])
def test_the_referee_is_highest_where_points_are_in_focus_however_large_a_pixel_is(
    sampling: float,
) -> None:
    rng, fine = np.random.default_rng(6), 8
    dots = np.zeros((200 * fine, 200 * fine), np.float32)
    dots[tuple(rng.integers(0, 200 * fine, (2, 120)))] = 1
    scores = []
    for defocus_dof in (0.0, 0.5, 1.0, 2.0):
        blur_px = math.hypot(0.21 / sampling, 0.35 * defocus_dof * (1 + 1 / sampling))
        seen = cv2.GaussianBlur(dots, (0, 0), fine * blur_px)
        camera = cv2.resize(seen, (200, 200), interpolation=cv2.INTER_AREA) * 1e5
        scores.append(referee().score(camera, sampling=sampling).score)
    assert np.argmax(scores) == 0
    assert all(np.diff(scores) < 0)


def test_the_referee_bins_as_a_camera_does_and_not_without_knowing_the_sampling() -> None:
    frame = np.random.default_rng(5).integers(100, 900, (98, 67)).astype(np.uint16)
    camera = frame[:96, :66].reshape(32, 3, 22, 3).mean(axis=(1, 3)).astype(np.float32)
    binned = referee().score(frame, sampling=0.2).score
    assert binned == pytest.approx(MEASURES["vollath_f4"](camera), rel=1e-4)
    assert referee().score(frame).score == ClassicalScorer().score(frame).score
    for side in (2, 3, 8):
        assert math.isfinite(referee().score(frame[:side, :side], sampling=0.25).score)


def test_coarse_contrast_is_seen_from_where_detail_is_long_gone() -> None:
    rng, sampling = np.random.default_rng(8), 0.25
    cells = (cv2.GaussianBlur(rng.normal(size=(512, 512)), (0, 0), 25) > 0).astype(np.float32)
    grain = cv2.GaussianBlur(rng.random((512, 512)).astype(np.float32), (0, 0), 0.8)
    said = []
    for defocus_dof in (0.0, 4.0, 8.0, 12.0, 24.0):
        blur_px = 0.35 * defocus_dof * (1 + 1 / sampling)
        light = 1000 * cells * grain
        blurred = cv2.GaussianBlur(light, (0, 0), blur_px) if blur_px else light
        said.append(referee().score(photographed(blurred, 400, rng), sampling=sampling))
    detail = np.array([each.score for each in said]) / said[0].score
    coarse = np.array([each.coarse_contrast for each in said]) / (said[0].coarse_contrast or 0)
    assert all(np.diff(coarse) < 0)
    assert detail[2] < 0.1
    assert coarse[2] > 0.5


def test_coarse_contrast_does_not_depend_on_exposure_or_pixels() -> None:
    rng = np.random.default_rng(9)
    light = cv2.GaussianBlur(rng.random((640, 640)).astype(np.float32), (0, 0), 30)
    light = 1000 * (light - light.min()) / np.ptp(light)
    fine = coarse_contrast(light, 0.2)
    assert coarse_contrast(3 * light, 0.2) == pytest.approx(fine, rel=1e-3)
    halved = light.reshape(320, 2, 320, 2).mean((1, 3))
    assert coarse_contrast(halved, 0.4) == pytest.approx(fine, rel=0.05)
    assert fine is not None
    assert fine > 0


def test_coarse_contrast_is_not_told_of_small_frames_nor_without_the_sampling() -> None:
    frame = np.random.default_rng(10).integers(100, 900, (300, 239)).astype(np.uint16)
    assert referee().score(frame, sampling=0.25).coarse_contrast is None
    assert referee().score(frame, sampling=0.26).coarse_contrast is not None
    assert referee().score(frame).coarse_contrast is None
    assert ClassicalScorer().score(frame, sampling=0.26).coarse_contrast is None


@every_measure
def test_demo_beads_are_sharpest_at_0_although_brighter_elsewhere(
    measure: str, demo_frames: Mapping[float, NDArray[np.uint16]]
) -> None:
    assert demo_frames[300].mean() > 400 * demo_frames[0].mean()
    scores = {z: ClassicalScorer(measure).score(frame).score for z, frame in demo_frames.items()}
    assert max(scores, key=scores.__getitem__) == 0


@pytest.mark.parametrize("offset", [0, 20, 100])
def test_the_default_falls_on_both_sides_over_the_whole_travel_of_the_demo(
    offset: int, demo_frames: Mapping[float, NDArray[np.uint16]]
) -> None:
    scorer = ClassicalScorer()
    above = [
        scorer.score(frame + np.uint16(offset)).score for z, frame in demo_frames.items() if z >= 0
    ]
    below = [
        scorer.score(frame + np.uint16(offset)).score for z, frame in demo_frames.items() if z <= 0
    ]
    assert all(np.diff(above) < 0)
    assert all(np.diff(below) > 0)


def test_scorer_reports_what_the_frame_is_like(
    demo_frames: Mapping[float, NDArray[np.uint16]],
) -> None:
    scorer: Scorer = ClassicalScorer("brenner")
    assert (scorer.name, scorer.head, scorer.absolute) == ("brenner", None, False)
    beads = scorer.score(demo_frames[0])
    assert isinstance(beads, FrameScore)
    assert beads.score > 0
    assert (beads.dark, beads.saturated) == (False, False)
    assert beads.fingerprint == scorer.score(demo_frames[0].copy()).fingerprint
    assert beads.fingerprint != scorer.score(demo_frames[1]).fingerprint
    assert scorer.score(np.full((64, 64), 255, np.uint8)).saturated
    assert scorer.score(np.full((64, 64), 7, np.uint8)).dark


def test_scorer_refuses_colour() -> None:
    with pytest.raises(ImageError, match="convert colour"):
        ClassicalScorer().score(np.zeros((8, 8, 3), np.uint8))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownScorer, match=r"'sharpest'.*tenengrad.*vollath_f4"):
        ClassicalScorer("sharpest")


def test_compare_on_stack_scores_every_plane_with_every_measure(specimen: Float32) -> None:
    curves = compare_on_stack(focus_series(specimen))
    assert list(curves) == list(MEASURES)
    assert {len(curve) for curve in curves.values()} == {len(DEFOCUS)}
    assert curves["brenner"][3] == MEASURES["brenner"](focus_series(specimen)[3])


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no recorded z-stacks at {DATA}")
def test_the_default_finds_the_plane_in_focus_of_recorded_stacks() -> None:
    stacks = json.loads((DATA / "manifest.json").read_text())["stacks"]
    # Small stacks only, for time; docs/benchmarks/classical.md has them all.
    labelled = [s for s in stacks if s["trust"] != "C" and s["height"] <= 512]
    assert len(labelled) >= 8
    missed = []
    for stack in labelled:
        curve = [ClassicalScorer().score(p).score for p in tifffile.imread(DATA / stack["file"])]
        first, last = stack["in_focus_accepted"]
        if not first <= int(np.argmax(curve)) <= last:
            missed.append((stack["name"], int(np.argmax(curve))))
    assert missed == []
