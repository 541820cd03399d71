"""Frames of Micro-Manager's own demo camera, taken through a real core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import mm_test_adapters
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pymmcore_plus import CMMCorePlus

DEMO_Z_UM = (0, 0.5, 1, 2, 4, 8, 20, 50, 100, 200, 300)


@pytest.fixture(scope="session")
def demo_frames() -> Mapping[float, NDArray[np.uint16]]:
    """In-focus and defocused beads by z in um, both sides; noiseless, in focus at 0."""
    core = CMMCorePlus()
    core.setDeviceAdapterSearchPaths([str(mm_test_adapters.device_adapter_path())])
    core.loadDevice("Camera", "DemoCamera", "DCam")
    core.loadDevice("Z", "DemoCamera", "DStage")
    core.initializeAllDevices()
    core.setCameraDevice("Camera")
    core.setFocusDevice("Z")
    core.setProperty("Camera", "PixelType", "16bit")
    core.setProperty("Camera", "Mode", "Fluorescent Beads")
    core.setExposure(1)
    frames = {z_um: _snap(core, z_um) for half in DEMO_Z_UM for z_um in {half, -half}}
    core.unloadAllDevices()
    return dict(sorted(frames.items()))


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Give torch this many threads; afterwards it has as many as before."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _snap(core: CMMCorePlus, z_um: float) -> NDArray[np.uint16]:
    core.setPosition("Z", z_um)
    core.waitForDevice("Z")
    core.snapImage()
    return core.getImage().copy()
