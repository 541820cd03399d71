"""Specimens differ between seeds, repeat for a seed, and are sharp where they say."""

import numpy as np
import pytest

from devices.simulated.optics import Objective, depth_of_field_um
from devices.simulated.render import Renderer
from devices.simulated.specimens import KINDS, make_specimen

OBJECTIVE = Objective(na=0.75, immersion_index=1.0, wavelength_um=0.53, pixel_size_um=0.325)
STRUCTURED = [kind for kind in KINDS if not kind.startswith("empty")]


def draw(kind, seed, *, side=128, pixel_size_um=0.325):
    rng = np.random.default_rng(seed)
    return make_specimen(kind, shape=(side, side), pixel_size_um=pixel_size_um, rng=rng)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pixel_size_um", [0.065, 0.325, 1.6])
def test_layers_are_light_or_matter_at_every_magnification(kind, pixel_size_um):
    for seed in range(3):
        specimen = draw(kind, seed, pixel_size_um=pixel_size_um)
        for _, layer in specimen.layers:
            assert layer.shape == (128, 128)
            assert layer.dtype == np.float32
            assert np.isfinite(layer).all()
            assert layer.min() >= 0
        assert (specimen.layers[0][1].max() > 0) == (kind in STRUCTURED)


@pytest.mark.parametrize("kind", STRUCTURED)
def test_a_seed_repeats_and_another_differs(kind):
    first, again, other = draw(kind, 3), draw(kind, 3), draw(kind, 4)
    assert np.array_equal(first.layers[0][1], again.layers[0][1])
    assert not np.array_equal(first.layers[0][1], other.layers[0][1])


@pytest.mark.parametrize("kind", [kind for kind in STRUCTURED if kind != "phase"])
def test_the_sharpest_plane_is_within_half_a_depth_of_field(kind):
    for seed in range(3):
        renderer = Renderer(draw(kind, seed), OBJECTIVE)
        assert abs(renderer.sharpest_defocus_um) < 0.5 * depth_of_field_um(OBJECTIVE)


def test_aberration_moves_the_sharpest_plane_of_a_section():
    aberrated = Objective(0.75, 1.0, 0.53, 0.325, spherical_waves=0.3)
    renderer = Renderer(draw("absorption", 1), aberrated)
    assert abs(renderer.sharpest_defocus_um) > 0.5 * depth_of_field_um(aberrated)


def test_debris_is_sharp_elsewhere():
    offsets = {draw("debris", seed).layers[1][0] for seed in range(6)}
    assert all(8 <= abs(offset) <= 40 for offset in offsets)
    assert min(offsets) < 0 < max(offsets)


@pytest.mark.parametrize("kind", ["nuclei", "cells", "tissue"])
def test_the_picture_continues_at_the_opposite_edge(kind):
    image = Renderer(draw(kind, 5), OBJECTIVE).relative(0.0)
    across = np.abs(image[0] - image[-1]).mean()
    inside = np.abs(np.diff(image, axis=0)).mean()
    assert across < 4 * inside


def test_sizes_are_in_um():
    def chord_px(seed, pixel_size_um):
        inside = draw("cells", seed, side=256, pixel_size_um=pixel_size_um).layers[0][1] > 0
        starts = (np.diff(inside.astype(int), axis=1) == 1).sum()
        return inside.sum() / max(starts, 1)

    ratios = [chord_px(seed, 0.2) / chord_px(seed, 0.4) for seed in range(8)]
    assert np.median(ratios) == pytest.approx(2.0, rel=0.3)


def test_an_unknown_kind_lists_those_that_exist():
    with pytest.raises(ValueError, match="nuclei"):
        draw("moon", 1)
