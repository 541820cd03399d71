import numpy as np
import pytest
import torch

from autofocus.errors import ConfigError
from autofocus.training.widen import widened
from models.encoders import CompactEncoder


@pytest.fixture
def encoder():
    """One that has seen something: statistics of normalisations that are not those of a new one."""
    torch.manual_seed(0)
    encoder = CompactEncoder(4)
    with torch.no_grad():
        for _ in range(3):
            encoder.train()(torch.rand(8, 1, 64, 64))
    return encoder.eval()


@pytest.mark.parametrize("width", [5, 6, 8, 11])
def test_a_wider_encoder_computes_the_same_features_some_of_them_twice(encoder, width):
    frames = torch.rand(3, 1, 64, 64)
    wide = widened(encoder, width, noise=0.0)

    with torch.no_grad():
        before, after = encoder(frames), wide(frames)

    assert after.shape == (3, 15 * width)
    start = begin = 0
    for stage in range(4):
        old, new = 4 * 2**stage, width * 2**stage
        was, now = before[:, begin : begin + old], after[:, start : start + new]
        torch.testing.assert_close(now[:, :old], was, rtol=1e-4, atol=1e-6)
        for column in now.T[old:]:
            assert torch.isclose(column[:, None], was, rtol=1e-4, atol=1e-6).all(dim=0).any()
        start, begin = start + new, begin + old


def test_noise_tells_copies_apart_and_repeats_with_the_seed(encoder):
    first, again, other = (widened(encoder, 6, seed=seed).state_dict() for seed in (1, 1, 2))

    for name, weight in first.items():
        assert torch.equal(weight, again[name]), name
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    stem = first["conv1.weight"].flatten(1).numpy()
    assert len(np.unique(stem, axis=0)) == 6


def test_the_encoder_itself_is_left_as_it_was(encoder):
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}

    widened(encoder, 8)

    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("width", [4, 3, 0])
def test_a_width_that_is_not_larger_is_refused(encoder, width):
    with pytest.raises(ConfigError, match="4 wide"):
        widened(encoder, width)
