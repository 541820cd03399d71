"""A small network in the ridge's place, where tens of thousands of frames are there to fit it to.

It learns how likely each of a few dozen distances to focus is, not the distance itself: E. Imani
and M. White, "Improving regression performance with distributional losses", ICML 2018. On as few
frames as a lab has, a ridge is as good and easier to understand; see decisions 20, 23 and 26.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn
from torch.nn import functional

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_EVENLY = 0.5  # share of a search's frames that lie evenly in z; see decision 26


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
    classes : int
        Distances, evenly spread over their inverse hyperbolic sine: a tenth of a depth of field
        apart near focus, a tenth of the distance far from it. What is told in training is a
        Gaussian as wide as a class.
    seed : int
    """

    hidden: tuple[int, int] = (256, 128)
    unseen: float = 0.1
    dropped: float = 0.1
    learning_rate: float = 2e-3
    weight_decay: float = 0.3
    rows: int = 512
    epochs: int = 30
    classes: int = 36
    seed: int = 0


def fit_network(x: Float64, y: Float64, settings: NetworkSettings | None = None) -> MLPClassifier:
    """Fit the distribution of the distance to standardised inputs.

    Parameters
    ----------
    x : ndarray of shape (n, inputs)
    y : ndarray of shape (n, 2)
        Label and distance in depths of field. The label is not used: it follows from the distance.
        The largest distance must be above 0; the last class is just below it and stands for all
        beyond.
    settings : NetworkSettings, optional

    Returns
    -------
    MLPClassifier
        scikit-learn's, whose classes are distances, with the weights that torch found, its logits
        raised to what a search comes upon: scikit-learn has neither dropout nor targets between
        classes. It keeps the arrays and `predict_proba`; a distance is read by `models.regressor`.
    """
    settings = settings or NetworkSettings()
    ends = class_ends(float(y[:, 1].max()), settings.classes)
    shares = class_shares(y[:, 1], ends)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = rectifiers(
            x.shape[1],
            settings.classes,
            hidden=settings.hidden,
            unseen=settings.unseen,
            dropped=settings.dropped,
        )
        _train(network, _tensor(x), _tensor(shares), settings)
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    offsets = [layer.bias.detach().numpy().copy() for layer in layers]
    offsets[-1] += _raised_logits(shares, ends)
    return _classifier(
        [layer.weight.detach().numpy().T.copy() for layer in layers],
        offsets,
        class_distances(ends),
    )


def _raised_logits(shares: Float64, ends: Float64) -> Float32:
    """How much the logits of a network that was told ``shares`` are raised, shape (classes,).

    The frames it learns from lie near focus. Of a search's frames only some do; the others lie
    evenly in z, here as far as the classes reach. Without this, what is hard to tell is taken for
    too near: M. Saerens, P. Latinne and C. Decaestecker, "Adjusting the outputs of a classifier to
    new a priori probabilities", Neural Computation 14, 2002.
    """
    # One frame more of each class: none was never seen.
    learnt = (shares.sum(axis=0) + 1) / (len(shares) + shares.shape[1])
    evenly = np.diff(np.sinh(ends)) / np.sinh(ends[-1])
    raised: Float32 = np.log(1 - _EVENLY + _EVENLY * evenly / learnt).astype(np.float32)
    return raised


def class_ends(farthest: float, classes: int) -> Float64:
    """Where the classes of distances end, evenly spread over their inverse hyperbolic sine.

    Returns
    -------
    ndarray of shape (classes + 1,)
        Inverse hyperbolic sines, from 0 to that of ``farthest``.
    """
    return np.linspace(0, np.arcsinh(farthest), classes + 1)


def class_distances(ends: Float64) -> Float64:
    """The distance that each class stands for, shape (classes,)."""
    return np.sinh((ends[:-1] + ends[1:]) / 2)


def class_shares(distance: Float64, ends: Float64) -> Float64:
    """What is told of frames: a Gaussian as wide as a class, mirrored at zero.

    Parameters
    ----------
    distance : ndarray of shape (n,)
        At most the ``farthest`` of `class_ends`.
    ends : ndarray of shape (classes + 1,)

    Returns
    -------
    ndarray of shape (n, classes)
        How likely each class is; rows sum to 1.
    """
    width, at = ends[1] - ends[0], np.arcsinh(distance)[:, None]
    below = norm.cdf((ends - at) / width) - norm.cdf((-ends - at) / width)
    shares: Float64 = np.diff(below, axis=1)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def _classifier(slopes: list[Float32], offsets: list[Float32], distances: Float64) -> MLPClassifier:
    """scikit-learn's network of rectifiers with these weights, shape (inputs, outputs) each."""
    network = MLPClassifier(hidden_layer_sizes=tuple(len(offset) for offset in offsets[:-1]))
    network.coefs_, network.intercepts_ = slopes, offsets
    network.n_layers_, network.n_outputs_ = len(slopes) + 1, len(offsets[-1])
    network.n_features_in_, network.out_activation_ = len(slopes[0]), "softmax"
    network.classes_ = distances
    return network


def rectifiers(
    inputs: int, outputs: int, *, hidden: tuple[int, int], unseen: float, dropped: float
) -> nn.Sequential:
    """Return the network, not trained: (n, inputs) -> (n, outputs); see `NetworkSettings`."""
    first, second = hidden
    return nn.Sequential(
        nn.Dropout(unseen),
        nn.Linear(inputs, first),
        nn.ReLU(),
        nn.Dropout(dropped),
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
            loss = functional.cross_entropy(network(x[rows]), y[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


def _tensor(values: Float64) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
