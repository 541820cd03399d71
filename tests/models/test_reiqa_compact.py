"""The extractor on the compact layout: what a frame's features depend on, and what they do not."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from models.encoders import CompactEncoder, for_inference, weights_sha256
from models.errors import ImageError
from models.normalise import compress_highlights, percentile_normalisation
from models.patches import Anchor
from models.reiqa import ExtractorSettings, ReIQA, settings_for


def encoder(seed: int) -> CompactEncoder:
    """Weights from a formula, so that golden values do not hang on a random generator."""
    network = CompactEncoder()
    for index, tensor in enumerate(network.state_dict().values()):
        if not tensor.is_floating_point():
            continue
        wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 1.7 + index + seed)
        fan_in = max(1, tensor[0].numel())
        spread = wave * math.sqrt(4 / fan_in) if tensor.ndim == 4 else 1 + 0.3 * wave
        tensor.copy_(spread.reshape(tensor.shape))
    return network


def cells(height: int, width: int, *, blur: float = 0.0) -> np.ndarray:
    y, x = np.indices((height, width))
    wave = np.sin(x / 7) * np.cos(y / 11) + np.sin((x + 2 * y) / 3) / (1 + blur)
    disc = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (min(height, width) / 3) ** 2
    return (200 + disc * (1000 + 400 * wave)).astype(np.uint16)


@pytest.fixture(scope="module")
def extractor():
    torch.set_num_threads(2)
    return ReIQA(encoder(0), encoder(1), ExtractorSettings(patches=10))


def test_features_are_those_of_the_golden_file(extractor, request):
    golden = json.loads((request.path.parent / "reiqa_compact_golden.json").read_text())
    features = extractor.features(cells(700, 640))
    assert features.shape == (960,)
    np.testing.assert_allclose(features[::40], golden["features"], rtol=1e-3, atol=1e-5)


def test_features_are_four_blocks_of_plain_forwards(extractor):
    frame = cells(300, 300)
    content, quality = encoder(0).eval(), encoder(1).eval()
    full = torch.from_numpy(extractor.patches(frame, extractor.anchor(frame)))[:, None]
    half = nn.functional.avg_pool2d(full, 2)
    with torch.no_grad():
        blocks = [
            content((full - 0.449) / 0.226),
            content((half - 0.449) / 0.226),
            quality(full),
            quality(half),
        ]
    expected = torch.cat(blocks, dim=1).mean(dim=0).numpy()
    np.testing.assert_allclose(extractor.features(frame), expected, rtol=1e-3, atol=1e-5)


def test_repeated_calls_are_identical_and_leave_global_randomness_alone(extractor):
    frame = cells(500, 400)
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    one, other = extractor.features(frame), extractor.features(frame)
    np.testing.assert_array_equal(one, other)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize("shape", [(1, 1), (40, 300), (255, 255), (700, 640), (1024, 1024)])
def test_encoders_at_once_give_the_features_of_one_after_the_other(extractor, set_threads, shape):
    frame = cells(*shape)
    set_threads(1)
    wanted = extractor.features(frame)
    for threads in (2, 3, 4):
        set_threads(threads)
        distance = np.linalg.norm(extractor.features(frame) - wanted)
        assert distance <= 1e-6 * np.linalg.norm(wanted)


def test_gain_and_offset_of_the_camera_do_not_matter(extractor):
    frame = cells(400, 400)
    np.testing.assert_allclose(
        extractor.features(frame), extractor.features(frame * 5 + 100), rtol=1e-3, atol=1e-4
    )


def test_float_and_uint16_frames_give_the_same(extractor):
    frame = cells(400, 400)
    np.testing.assert_allclose(
        extractor.features(frame), extractor.features(frame.astype(np.float32)), rtol=1e-4
    )


@pytest.mark.parametrize("shape", [(1, 1), (40, 300), (255, 255), (256, 256), (257, 256)])
@pytest.mark.parametrize("level", [None, 0, 65535])
def test_small_and_constant_frames_have_finite_features(extractor, shape, level):
    frame = cells(*shape) if level is None else np.full(shape, level, np.uint16)
    assert np.isfinite(extractor.features(frame)).all()


def test_a_frame_is_anchored_to_itself(extractor):
    frame = cells(500, 500)
    anchor = Anchor.from_dict(json.loads(json.dumps(extractor.anchor(frame).to_dict())))
    np.testing.assert_array_equal(extractor.features(frame), extractor.features(frame, anchor))


def test_an_anchor_fixes_patches_and_normalisation_for_other_frames(extractor):
    frame, dimmer = cells(500, 500), cells(500, 500) // 2
    anchor = extractor.anchor(frame)
    assert len(anchor.positions) == extractor.settings.top_patches == 2
    patches = extractor.patches(dimmer, anchor)
    window = anchor.normalisation
    for patch, (y, x) in zip(patches, anchor.positions, strict=True):
        cut = dimmer[y : y + 256, x : x + 256].astype(np.float32)
        expected = np.clip((cut - window.lo) / (window.hi - window.lo), 0, 1)
        np.testing.assert_allclose(patch, expected, atol=1e-6)


def test_an_anchor_without_normalisation_lets_each_frame_have_its_own(extractor):
    frame, dimmer = cells(500, 500), cells(500, 500) // 2
    anchor = dataclasses.replace(extractor.anchor(frame), normalisation=None)
    np.testing.assert_allclose(
        extractor.patches(dimmer, anchor), extractor.patches(frame, anchor), atol=2e-3
    )


def test_of_more_anchored_positions_each_frame_takes_its_sharpest(extractor):
    frame = np.random.default_rng(0).normal(500, 1, (300, 900)).astype(np.float32)
    frame[:, 600:] += np.random.default_rng(1).normal(0, 300, (300, 300))
    anchor = Anchor((300, 900), ((0, 0), (0, 300), (0, 620), (40, 640)), None)
    spread = extractor.patches(frame, anchor).std(axis=(1, 2))
    assert len(spread) == 2
    assert spread.min() > 0.1


@pytest.mark.parametrize(
    "anchor",
    [
        Anchor((500, 501), ((0, 0),), None),
        Anchor((500, 500), ((245, 0),), None),
        Anchor((500, 500), tuple((0, x) for x in range(11)), None),
    ],
    ids=["other size", "outside", "too many"],
)
def test_an_anchor_that_does_not_fit_is_refused(extractor, anchor):
    with pytest.raises(ImageError, match="anchor"):
        extractor.features(cells(500, 500), anchor)


def test_folding_batch_norm_changes_rounding_only():
    network = encoder(3).eval()
    x = torch.rand(2, 1, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(for_inference(network)(x), network(x), rtol=1e-4, atol=1e-5)


def test_features_of_every_stage_reach_the_output():
    network = encoder(0).eval()
    with torch.no_grad():
        features = network(torch.rand(2, 1, 128, 128))
    assert features.shape == (2, network.feature_dim) == (2, 240)
    assert all(block.std() > 0 for block in features[0].split([16, 32, 64, 128]))


def test_the_weights_hash_sees_every_value_and_nothing_else():
    network = encoder(0)
    before = weights_sha256(network)
    assert weights_sha256(encoder(0).to(memory_format=torch.channels_last).eval()) == before
    with torch.no_grad():
        network.stages[3][1].bn2.running_var[7] += 1e-6
    assert weights_sha256(network) != before


def test_settings_survive_json_and_can_be_compared_and_hashed():
    settings = ExtractorSettings(patches=16, p_high=99.5)
    again = ExtractorSettings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings
    assert hash(again) == hash(settings)


def test_settings_with_a_missing_name_are_not_completed_by_defaults():
    values = ExtractorSettings().to_dict()
    del values["top_k"]
    with pytest.raises(ValueError, match="top_k"):
        ExtractorSettings.from_dict(values)


@pytest.mark.parametrize(
    "wrong",
    [
        {"layout": "v2"},
        {"patch_size": 250},
        {"patches": 0},
        {"top_k": 0.0},
        {"sharpness_sigma_px": 0.0},
        {"sharpness_sigma_px": 65.0},
        {"most_overlap": 1.1},
        {"min_roi_cover": 1.5},
        {"border_px": -1},
        {"p_low": 99.9},
        {"pooling": "max"},
        {"values": "squared"},
        {"highlights": "burn"},
        {"highlights": "compress", "layout": "published"},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ExtractorSettings(**wrong)


def test_logarithmic_values_are_the_logarithm_of_the_mean(extractor):
    image = (np.random.default_rng(0).random((300, 300)) * 1000).astype(np.uint16)
    settings = dataclasses.replace(extractor.settings, values="log")
    torch.manual_seed(0)
    pair = CompactEncoder(4), CompactEncoder(4)
    linear = ReIQA(*pair, extractor.settings).features(image)
    logarithmic = ReIQA(*pair, settings).features(image)
    assert logarithmic == pytest.approx(np.log(linear + 1e-3), abs=1e-5)
    assert np.isfinite(logarithmic).all()


@pytest.mark.parametrize("changes", [{}, {"pooling": "p90", "values": "log"}])
def test_many_frames_have_the_features_that_each_has_alone(changes):
    rng = np.random.default_rng(3)
    sizes = [(700, 700), (64, 300), (256, 256), (900, 500), (1024, 1024)]
    frames = [rng.poisson(rng.uniform(20, 900), size).astype(np.uint16) for size in sizes]
    extractor = ReIQA(encoder(0), encoder(1), ExtractorSettings(**changes))
    patches = [extractor.patches(frame, extractor.anchor(frame)) for frame in frames]
    assert sum(map(len, patches)) > 16  # more than go through the network at once
    alone = np.stack([extractor.features(frame) for frame in frames])
    np.testing.assert_allclose(extractor.features_of(frames), alone, rtol=1e-4, atol=1e-5)
    assert len(np.unique(alone.round(3), axis=0)) == len(frames)


@pytest.mark.parametrize(("pooling", "percentile"), [("p80", 80), ("p90", 90), ("p95", 95)])
def test_percentile_pooling_takes_that_percentile_of_every_feature(extractor, pooling, percentile):
    image = (np.random.default_rng(0).random((400, 400)) * 1000).astype(np.uint16)
    settings = dataclasses.replace(extractor.settings, pooling=pooling, top_k=1.0)
    pooled = ReIQA(encoder(0), encoder(1), settings)
    rows = pooled.features_of_patches(pooled.patches(image, pooled.anchor(image)))
    assert len(rows) > 3
    wanted = np.percentile(rows, percentile, axis=0)
    np.testing.assert_allclose(pooled.features(image), wanted, rtol=1e-5)
    assert not np.allclose(wanted, rows.mean(axis=0))


def bright_bead(peak):
    """A faint texture and one bead of 9 px, far fewer than the upper percentile leaves out."""
    frame = np.random.default_rng(0).normal(100, 3, (256, 256))
    frame[100:103, 100:103] = peak
    return frame.astype(np.uint16)


@pytest.mark.parametrize(("highlights", "seen"), [("clip", False), ("compress", True)])
def test_only_compressed_highlights_tell_how_bright_a_small_structure_is(highlights, seen):
    extractor = ReIQA(encoder(0), encoder(1), ExtractorSettings(highlights=highlights))
    faint, bright = (extractor.features(bright_bead(peak)) for peak in (300, 3000))
    content = slice(0, len(faint) // 2)
    np.testing.assert_allclose(faint[content], bright[content], rtol=1e-5, atol=1e-6)
    assert np.allclose(faint, bright, rtol=1e-5, atol=1e-6) is not seen


def test_compressed_highlights_begin_where_clipping_would_and_end_at_four():
    scaled = np.array([-1.0, 0.0, 0.5, 1.0, np.e, 1e9], np.float32)
    assert compress_highlights(scaled) == pytest.approx([0, 0, 0.5, 1, 2, 4])


@pytest.mark.parametrize("layout", ["published", "compact"])
def test_percentiles_of_any_byte_order_and_layout_in_memory_are_those_of_numpy(layout):
    counts = np.random.default_rng(0).integers(0, 4000, (70, 90)).astype(np.uint16)
    settings = settings_for(layout)
    wanted = np.percentile(counts, (settings.p_low, settings.p_high))
    readonly = counts.copy()
    readonly.flags.writeable = False
    for frame in (counts, counts.astype(">u2"), counts[::-1, ::-1], readonly):
        found = percentile_normalisation(frame, p_low=settings.p_low, p_high=settings.p_high)
        assert (found.lo, found.hi) == pytest.approx(tuple(wanted))


def test_the_settings_of_a_layout_take_other_values_by_name():
    assert settings_for("compact").highlights == "compress"
    assert settings_for("published").highlights == "clip"
    assert settings_for("compact", patches=8) == dataclasses.replace(
        settings_for("compact"), patches=8
    )
