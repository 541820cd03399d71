"""The scorer that ships: what it says does not depend on how many threads say it."""

import dataclasses

import numpy as np
import pytest

from models.errors import ImageError
from models.registry import Registry, builtin_folder


@pytest.fixture(scope="module")
def scorer():
    return Registry([builtin_folder()], "torch").load_scorer("reiqa-compact")


@pytest.mark.parametrize("anchored", [False, True])
def test_every_frame_scores_the_same_on_one_thread_and_on_two(
    scorer, demo_frames, set_threads, anchored
):
    anchor = scorer.anchor(demo_frames[0]) if anchored else None
    for z_um in (0, 1, -4, 50, 300):
        set_threads(1)
        wanted = scorer.score(demo_frames[z_um], anchor=anchor)
        set_threads(2)
        found = scorer.score(demo_frames[z_um], anchor=anchor)
        assert found.score == pytest.approx(wanted.score, rel=1e-5)
        rounded = {"score": wanted.score}
        for name in ("defocus_dof", "defocus_sd_dof"):
            rounded[name] = getattr(wanted, name)
            assert getattr(found, name) == pytest.approx(rounded[name], rel=1e-5)
        assert dataclasses.replace(found, **rounded) == wanted


def test_what_the_referee_refuses_is_refused(scorer, demo_frames, set_threads):
    set_threads(2)
    with pytest.raises(ImageError, match="bit_depth = 0"):
        scorer.score(demo_frames[0], bit_depth=0)
    with pytest.raises(ImageError, match="NaN"):
        scorer.score(np.full((300, 300), np.nan))
