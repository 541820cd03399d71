"""Give an encoder more channels without changing what it computes, as a start for `refine`.

T. Chen, I. Goodfellow and J. Shlens, "Net2Net: accelerating learning via knowledge transfer",
ICLR 2016: some channels are doubled, and what reads them shares out its weights among the copies.
Copies would learn the same for ever, so the weights get a little noise.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autofocus.errors import ConfigError
from models.encoders import CompactEncoder

# Of the spread of each layer's weights (decision 23).
NOISE = 0.1


def widened(
    encoder: CompactEncoder, width: int, *, noise: float = NOISE, seed: int = 0
) -> CompactEncoder:
    """Return a wider encoder that computes the same, but for the noise.

    Parameters
    ----------
    encoder : CompactEncoder
    width : int
        Channels of the first stage.
    noise : float
        Standard deviation of what is added to the weights of convolutions, as a share of theirs.
    seed : int
        Decides which channels are doubled, and the noise.

    Returns
    -------
    CompactEncoder
        In eval mode. The features of each stage are those of ``encoder``, some of them repeated.

    Raises
    ------
    ConfigError
        When ``width`` is not larger than it was.
    """
    if width <= encoder.width:
        raise ConfigError(f"the encoder is {encoder.width} wide; give a larger width than {width}")
    rng = np.random.default_rng(seed)
    stages = [encoder.width * 2**stage for stage in range(4)]
    sources = {old: _sources(old, old * width // encoder.width, rng) for old in stages}
    tensors = {
        name: _widened(tensor, sources, frame=name == "conv1.weight")
        for name, tensor in encoder.state_dict().items()
    }
    with torch.device("meta"):
        wide = CompactEncoder(width)
    wide.load_state_dict(tensors, assign=True)
    _disturb(wide, noise, seed)
    return wide.eval()


def _sources(old: int, new: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Channel that each new channel is a copy of: all of them, then as many as are missing."""
    return np.concatenate([np.arange(old), np.resize(rng.permutation(old), new - old)])


def _widened(tensor: Tensor, sources: dict[int, NDArray[np.intp]], *, frame: bool) -> Tensor:
    """``frame`` says that it reads the frame itself, which has one channel as before."""
    if tensor.ndim == 0:  # how many batches a normalisation has seen
        return tensor.clone()
    tensor = tensor[sources[tensor.shape[0]]]
    if tensor.ndim == 1 or frame:
        return tensor
    inputs = sources[tensor.shape[1]]
    copies = torch.from_numpy(np.bincount(inputs)[inputs])
    return tensor[:, inputs] / copies[None, :, None, None]


def _disturb(encoder: CompactEncoder, noise: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.ndim == 4:
                spread = noise * weight.std()
                weight.add_(spread * torch.randn(weight.shape, generator=generator))
