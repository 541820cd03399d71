"""The published layout, from random-weight checkpoint files, against torchvision itself.

The reference below shares no code with the extractor but the patch positions: one patch at a time
through ``torchvision.models.resnet50`` without its ``fc``.
"""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from models.checkpoints import load_published_encoder
from models.reiqa import ExtractorSettings, ReIQA

SETTINGS = ExtractorSettings(layout="published", patches=10)
SMALLER = ExtractorSettings(layout="published", patches=10, patch_size=128)  # four times faster
TOLERANCE = 1e-4


def random_resnet50(seed: int) -> nn.Module:
    """Random weights whose BatchNorm statistics fit images, so that the input matters."""
    torch.manual_seed(seed)
    network = resnet50(weights=None)
    network.fc = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average over the one batch below
    coarse = torch.rand(8, 1, 16, 16).expand(-1, 3, -1, -1)
    with torch.no_grad():
        network.train()(nn.functional.interpolate(coarse, (64, 64), mode="bicubic"))
    return network.eval()


@pytest.fixture(scope="module")
def networks():
    torch.set_num_threads(2)
    return random_resnet50(1), random_resnet50(2)


@pytest.fixture(scope="module")
def encoders(networks, tmp_path_factory):
    """The same weights after a journey through files as the authors publish them."""
    loaded = []
    for network in networks:
        path = tmp_path_factory.mktemp("published") / "r50.pth"
        weights = {f"module.encoder.{name}": value for name, value in network.state_dict().items()}
        torch.save({"model": weights | projection_head(), "epoch": 40}, path)
        loaded.append(load_published_encoder(path))
        path.unlink()
    return loaded


def projection_head() -> dict[str, torch.Tensor]:
    shapes = {
        "0.weight": (2048, 2048),
        "0.bias": (2048,),
        "2.weight": (128, 2048),
        "2.bias": (128,),
    }
    return {f"module.head.{name}": torch.zeros(1).expand(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    y, x = np.indices((420, 400))
    cells = sum(
        800 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * s**2))
        for cy, cx, s in ((120, 130, 40), (300, 150, 25), (210, 300, 50), (350, 330, 15))
    )
    return np.random.default_rng(3).poisson(cells + 100).astype(np.uint16)


def reference_features(networks, frame, positions, size: int) -> np.ndarray:
    lo, hi = np.percentile(frame, [1, 99.8])
    unit = np.clip((frame.astype(np.float64) - lo) / (hi - lo), 0, 1)
    mean = np.array([0.485, 0.456, 0.406])[:, None, None]
    std = np.array([0.229, 0.224, 0.225])[:, None, None]

    def forward(network, chw):
        with torch.no_grad():
            return network(torch.from_numpy(chw.astype(np.float32))[None])[0].numpy()

    rows = []
    for y, x in positions:
        full = np.repeat(unit[None, y : y + size, x : x + size], 3, axis=0)
        half = full.reshape(3, size // 2, 2, size // 2, 2).mean(axis=(2, 4))
        content, quality = networks
        rows.append(
            np.concatenate(
                [
                    forward(content, (full - mean) / std),
                    forward(content, (half - mean) / std),
                    forward(quality, full),
                    forward(quality, half),
                ]
            )
        )
    return np.mean(rows, axis=0)


def relative_l2(found: np.ndarray, reference: np.ndarray) -> list[float]:
    """One a block: content full, content half, quality full, quality half."""
    pairs = zip(found.reshape(4, 2048), reference.reshape(4, 2048), strict=True)
    return [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs]


class Before(nn.Module):
    """An encoder that sees ``x * scale + shift``, per channel."""

    def __init__(self, encoder: nn.Module, *, scale: list[float], shift: list[float]) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1))
        self.register_buffer("shift", torch.tensor(shift).view(1, 3, 1, 1))

    def forward(self, x):
        return self.encoder(x * self.scale + self.shift)


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def normalised(encoder):
    return Before(encoder, scale=(1 / STD).tolist(), shift=(-MEAN / STD).tolist())


def unnormalised(encoder):
    return Before(encoder, scale=STD.tolist(), shift=MEAN.tolist())


def v1_stride(encoder):
    moved = copy.deepcopy(encoder)
    for layer in (moved.layer2, moved.layer3, moved.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return moved


def test_features_equal_torchvision_patch_by_patch(networks, encoders, frame):
    extractor = ReIQA(*encoders, SETTINGS)
    positions = extractor.anchor(frame).positions
    assert len(positions) == 2  # of ten candidates
    features = extractor.features(frame)
    assert (features.shape, features.dtype) == ((8192,), np.float32)
    reference = reference_features(networks, frame, positions, 256)
    assert max(relative_l2(features, reference)) <= TOLERANCE


@pytest.fixture(scope="module")
def smaller_reference(networks, encoders, frame) -> np.ndarray:
    positions = ReIQA(*encoders, SMALLER).anchor(frame).positions
    return reference_features(networks, frame, positions, 128)


@pytest.mark.parametrize(
    ("content_as", "quality_as", "wrong_blocks"),
    [
        (None, None, set()),
        (None, normalised, {2, 3}),
        (unnormalised, None, {0, 1}),
        (v1_stride, None, {0, 1}),
        (None, v1_stride, {2, 3}),
    ],
    ids=["right", "quality normalised", "content not normalised", "content v1", "quality v1"],
)
def test_wrong_preprocessing_is_caught(
    encoders, frame, smaller_reference, content_as, quality_as, wrong_blocks
):
    content, quality = encoders
    wrong = ReIQA(
        content_as(content) if content_as else content,
        quality_as(quality) if quality_as else quality,
        SMALLER,
    )
    errors = relative_l2(wrong.features(frame), smaller_reference)
    assert {block for block, error in enumerate(errors) if error > TOLERANCE} == wrong_blocks


def test_encoders_are_left_as_they_were(encoders):
    content, quality = encoders
    before = copy.deepcopy(content.state_dict())
    ReIQA(content, quality, SETTINGS)
    assert all(torch.equal(value, before[name]) for name, value in content.state_dict().items())
    assert any(isinstance(module, nn.BatchNorm2d) for module in content.modules())
