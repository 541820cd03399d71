"""A small network in the ridge's place, where tens of thousands of frames are there to fit it to.

On as few frames as a lab has, a ridge is as good and easier to understand; see decision 20.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neural_network import MLPRegressor
from torch import Tensor, nn
from torch.nn import functional

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class NetworkSettings:
    """The recipe.

    Attributes
    ----------
    hidden : tuple of int
        Rectified units of each hidden layer.
    unseen, dropped : float
        Share of the inputs, and of the units of the first layer, left out at random in training
        (N. Srivastava et al., "Dropout", JMLR 15, 2014).
    learning_rate, weight_decay : float
        AdamW; the rate rises and falls once (L. Smith, "Super-convergence", 2018).
    rows, epochs : int
        Rows a step, and times that every row is seen.
    seed : int
    """

    hidden: tuple[int, int] = (256, 128)
    unseen: float = 0.1
    dropped: float = 0.1
    learning_rate: float = 2e-3
    weight_decay: float = 0.3
    rows: int = 512
    epochs: int = 30
    seed: int = 0


def fit_network(x: Float64, y: Float64, settings: NetworkSettings | None = None) -> MLPRegressor:
    """Fit outputs to standardised inputs; every output weighs the same, whatever its unit.

    Parameters
    ----------
    x : ndarray of shape (n, inputs)
    y : ndarray of shape (n, outputs)
    settings : NetworkSettings, optional

    Returns
    -------
    MLPRegressor
        scikit-learn's, with the weights that torch found: scikit-learn has no dropout.
    """
    settings = settings or NetworkSettings()
    spread = np.maximum(y.std(axis=0), 1e-9)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = rectifiers(x.shape[1], y.shape[1], settings)
        _train(network, _tensor(x), _tensor(y / spread), settings)
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    slopes = [layer.weight.detach().numpy().T.copy() for layer in layers]
    offsets = [layer.bias.detach().numpy().copy() for layer in layers]
    slopes[-1] *= spread.astype(np.float32)
    offsets[-1] *= spread.astype(np.float32)
    return _network_of(slopes, offsets)


def _network_of(slopes: list[Float32], offsets: list[Float32]) -> MLPRegressor:
    """scikit-learn's network of rectifiers with these weights, shape (inputs, outputs) each."""
    network = MLPRegressor(hidden_layer_sizes=tuple(len(offset) for offset in offsets[:-1]))
    network.coefs_, network.intercepts_ = slopes, offsets
    network.n_layers_, network.n_outputs_ = len(slopes) + 1, len(offsets[-1])
    network.n_features_in_, network.out_activation_ = len(slopes[0]), "identity"
    return network


def rectifiers(inputs: int, outputs: int, settings: NetworkSettings) -> nn.Sequential:
    """Return the network, not trained: (n, inputs) -> (n, outputs)."""
    first, second = settings.hidden
    return nn.Sequential(
        nn.Dropout(settings.unseen),
        nn.Linear(inputs, first),
        nn.ReLU(),
        nn.Dropout(settings.dropped),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, outputs),
    )


def _train(network: nn.Sequential, x: Tensor, y: Tensor, settings: NetworkSettings) -> None:
    steps = max(1, len(x) // settings.rows)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * steps
    )
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(x)).tensor_split(steps):
            loss = functional.mse_loss(network(x[rows]), y[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


def _tensor(values: Float64) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
