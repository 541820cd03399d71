from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from models.errors import ImageError
from models.frame import as_grey_float, inspect

Frame = NDArray[np.generic]
Generator = np.random.Generator

OFFSET = 100
NOISE = 3.0


def camera(light: NDArray[np.float64], rng: Generator) -> NDArray[np.uint16]:
    """Counts of a camera with offset 100 and read noise 3."""
    return np.round(light + rng.normal(OFFSET, NOISE, light.shape)).clip(0, 65535).astype(np.uint16)


def nothing(size: int, rng: Generator) -> NDArray[np.uint16]:
    return camera(np.zeros((size, size)), rng)


def with_hot_pixels(frame: NDArray[np.uint16], share: float, rng: Generator) -> NDArray[np.uint16]:
    hot = frame.copy()
    hot[rng.random(frame.shape) < share] = 4000
    return hot


def with_bright_columns(frame: NDArray[np.uint16]) -> NDArray[np.uint16]:
    bright = frame.copy()
    bright[:, [frame.shape[1] // 3, frame.shape[1] // 3 + 5]] += 50
    return bright


def with_banding(frame: NDArray[np.uint16], rng: Generator) -> NDArray[np.uint16]:
    height, width = frame.shape
    bands = rng.normal(0, 1, (height, 1)) + rng.normal(0, 1, (1, width))
    return np.round(frame + bands).astype(np.uint16)


def spots(size: int, count: int, *, height: float, sigma: float, rng: Generator) -> Frame:
    y, x = np.mgrid[:size, :size]
    light = np.zeros((size, size))
    for row, column in rng.uniform(8, size - 8, (count, 2)):
        light += np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * sigma**2))
    return height * light


def stripes(size: int, period: int) -> NDArray[np.float64]:
    return np.tile(np.arange(size) % period < period // 2, (size, 1)) * 20.0


EMPTY: Mapping[str, Callable[[int, Generator], Frame]] = {
    "constant": lambda n, rng: np.full((n, n), 700, np.uint16),
    "zero": lambda n, rng: np.zeros((n, n), np.uint8),
    "read noise": nothing,
    "read noise below one count": lambda n, rng: np.round(rng.normal(100, 0.4, (n, n))),
    "float noise around zero": lambda n, rng: rng.normal(0, 1, (n, n)).astype(np.float32),
    "bright flat field": lambda n, rng: rng.poisson(10_000, (n, n)).astype(np.uint16),
    "dim flat field": lambda n, rng: rng.poisson(3, (n, n)).astype(np.uint16),
    "a few photons": lambda n, rng: rng.poisson(0.1, (n, n)).astype(np.uint16),
    "electron multiplication": lambda n, rng: (
        rng.poisson(0.5, (n, n)) * rng.exponential(30, (n, n))
    ),
    "one hot pixel": lambda n, rng: with_hot_pixels(nothing(n, rng), 1 / n**2, rng),
    "hot pixels": lambda n, rng: with_hot_pixels(nothing(n, rng), 0.0005, rng),
    "hot pixels, no noise": lambda n, rng: with_hot_pixels(np.full((n, n), 7, "u2"), 0.0005, rng),
    "bright columns": lambda n, rng: with_bright_columns(nothing(n, rng)),
    "banding": lambda n, rng: with_banding(nothing(n, rng), rng),
}

FILLED: Mapping[str, Callable[[Generator], Frame]] = {
    "1 spot in 4 megapixels": lambda rng: camera(
        spots(2048, 1, height=10 * NOISE, sigma=1.5, rng=rng), rng
    ),
    "spots of 8 sigma on 0.1 % of the pixels": lambda rng: camera(
        spots(512, 20, height=8 * NOISE, sigma=1.2, rng=rng), rng
    ),
    "a blurred spot of 1 sigma": lambda rng: camera(
        spots(512, 1, height=NOISE, sigma=25, rng=rng), rng
    ),
    "a field of blurred spots of half a sigma": lambda rng: camera(
        spots(512, 40, height=NOISE / 2, sigma=20, rng=rng), rng
    ),
    "dark spots on a bright field": lambda rng: camera(
        1000 - spots(512, 3, height=8 * NOISE, sigma=2, rng=rng), rng
    ),
    "an edge along the rows": lambda rng: camera(
        np.repeat([[0.0], [20.0]], 128, 0) * np.ones(256), rng
    ),
    "fine stripes along the columns": lambda rng: camera(stripes(256, 6), rng),
    "blurred noiseless beads": lambda rng: np.round(spots(256, 5, height=3, sigma=40, rng=rng)),
    "beads below one photon": lambda rng: rng.poisson(
        0.01 + spots(256, 10, height=0.8, sigma=4, rng=rng)
    ),
}


@pytest.mark.parametrize("size", [64, 200, 512])
@pytest.mark.parametrize("name", EMPTY)
def test_a_frame_of_noise_is_dark(name: str, size: int) -> None:
    rng = np.random.default_rng(size)
    repeats = 10 if size < 512 else 2
    assert all(inspect(EMPTY[name](size, rng)).dark for _ in range(repeats))


def test_hardly_one_frame_of_noise_in_a_thousand_passes_for_structure() -> None:
    rng = np.random.default_rng(1)
    assert sum(not inspect(nothing(64, rng)).dark for _ in range(1000)) <= 1


def test_a_big_frame_of_noise_is_dark() -> None:
    assert inspect(nothing(2048, np.random.default_rng(2))).dark


@pytest.mark.parametrize("name", FILLED)
def test_weak_structure_is_not_dark(name: str) -> None:
    rng = np.random.default_rng(3)
    repeats = 1 if name == "1 spot in 4 megapixels" else 5
    assert not any(inspect(FILLED[name](rng)).dark for _ in range(repeats))


def test_demo_beads_are_never_dark(demo_frames: Mapping[float, Frame]) -> None:
    assert demo_frames[0].max() < 400  # of 65535: dim by any rule that looks at the bit depth
    assert {z_um for z_um, frame in demo_frames.items() if inspect(frame).dark} == set()


@pytest.mark.parametrize("bit_depth", [None, 8, 12, 16])
def test_dark_does_not_depend_on_the_bit_depth(
    bit_depth: int | None, demo_frames: Mapping[float, Frame]
) -> None:
    assert not inspect(demo_frames[0], bit_depth=bit_depth).dark
    assert inspect(nothing(128, np.random.default_rng(4)), bit_depth=bit_depth).dark


@pytest.mark.parametrize("structure", [0.0, 500.0])
def test_offset_and_noise_are_those_of_the_camera(structure: float) -> None:
    rng = np.random.default_rng(5)
    stats = inspect(camera(spots(512, 40, height=structure, sigma=3, rng=rng), rng))
    assert stats.offset == pytest.approx(OFFSET, abs=1)
    assert stats.noise == pytest.approx(NOISE, rel=0.1)


def test_signal_is_the_height_of_structure_and_ignores_a_hot_pixel() -> None:
    rng = np.random.default_rng(6)
    frame = camera(spots(256, 5, height=400, sigma=4, rng=rng), rng)
    frame[50, 60] = 60_000
    stats = inspect(frame)
    assert stats.signal == pytest.approx(400, rel=0.1)
    assert stats.snr == pytest.approx(stats.signal / stats.noise)


def test_a_noiseless_frame_has_finite_snr(demo_frames: Mapping[float, Frame]) -> None:
    stats = inspect(demo_frames[0])
    assert stats.noise == 0
    assert math.isfinite(stats.snr)


def test_a_clipped_spot_is_saturated_although_it_is_small() -> None:
    light = spots(512, 1, height=9000, sigma=4, rng=np.random.default_rng(7))
    frame = np.minimum(camera(light, np.random.default_rng(7)), 4095)
    stats = inspect(frame, bit_depth=12)
    assert 0 < stats.saturated_fraction < 0.01
    assert stats.saturated
    assert not inspect(frame).saturated  # 4095 is nothing special to a 16-bit camera


@pytest.mark.parametrize(
    ("share", "saturated"), [(0.0, False), (0.002, False), (0.03, True), (1.0, True)]
)
def test_saturation_is_judged_at_one_percent(share: float, saturated: bool) -> None:
    frame = np.random.default_rng(8).integers(50, 200, (100, 100)).astype(np.uint8)
    frame[: round(100 * share**0.5), : round(100 * share**0.5)] = 255
    assert inspect(frame).saturated is saturated


@pytest.mark.parametrize("full", [255, 1023, 4095, 4095 << 4, 16383])
def test_a_camera_that_stops_below_its_bit_depth_saturates(full: int) -> None:
    """The adapter says 16 bit; half of the frame piles up at what the converter can say."""
    rng = np.random.default_rng(3)
    electrons = rng.poisson(full, (128, 128)) + 0.0
    frame = np.minimum(electrons, full).astype(np.uint16)
    assert inspect(frame, bit_depth=16).saturated
    below = np.minimum(electrons, full - 3).astype(np.uint16)  # no full scale: bright, flat things
    assert not inspect(below, bit_depth=16).saturated


def test_one_hot_pixel_at_the_maximum_is_not_saturation() -> None:
    frame = nothing(256, np.random.default_rng(9))
    frame[10, 10] = 65535
    assert not inspect(frame).saturated


def test_float_frames_saturate_only_when_the_bit_depth_is_known() -> None:
    frame = np.full((64, 64), 4095.0, np.float32)
    assert not inspect(frame).saturated
    assert inspect(frame, bit_depth=12).saturated


def test_fingerprint_tells_pixels_shapes_and_types_apart() -> None:
    frame = nothing(32, np.random.default_rng(10))
    changed = frame.copy()
    changed[3, 4] ^= 1
    prints = [inspect(f).fingerprint for f in (frame, changed, frame.T, frame.astype(np.float32))]
    assert len(set(prints)) == 4
    assert inspect(np.asfortranarray(frame)).fingerprint == prints[0]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), "one channel or plane"),
        (np.zeros(16, np.uint8), "height, width"),
        (np.zeros((0, 7), np.uint8), "non-empty"),
        (np.zeros((4, 4), bool), "bool"),
        (np.zeros((4, 4), complex), "complex"),
        (np.array([[1.0, np.nan]]), "NaN"),
        (np.array([[1.0, np.inf]]), "infinities"),
        (np.array([[1.0, 1e30]]), "1e[+]12"),
        ([[1, 2], [3, 4]], "NumPy array"),
    ],
)
def test_refuses_what_is_not_a_grey_frame(image: Frame, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        inspect(image)


def test_refuses_an_impossible_bit_depth() -> None:
    with pytest.raises(ImageError, match="bit_depth = 0"):
        inspect(np.zeros((8, 8), np.uint16), bit_depth=0)


def test_leaves_the_frame_alone() -> None:
    frame = nothing(64, np.random.default_rng(11)).astype(np.float32)
    frame.flags.writeable = False
    before = frame.copy()
    inspect(frame)
    assert np.array_equal(frame, before)
    with pytest.raises(FrozenInstanceError):
        inspect(frame).dark = False  # type: ignore[misc]


def test_keeps_counts_that_float32_can_hold() -> None:
    counts = np.array([[0, 65535], [1, 2**24]], np.uint32)
    assert np.array_equal(as_grey_float(counts), counts)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20),
        elements={"allow_nan": False, "allow_infinity": False, "min_value": 0, "max_value": 255},
    )
)
def test_every_number_is_finite_for_any_frame(frame: Frame) -> None:
    stats = inspect(frame)
    assert all(map(math.isfinite, (stats.offset, stats.noise, stats.signal, stats.snr)))
    assert 0 <= stats.saturated_fraction <= 1
    assert (stats.height, stats.width) == frame.shape
